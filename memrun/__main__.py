"""The command's entry, `memrun` and `python -m memrun`: what must be so before anything else is loaded."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # see signals.py

try:
    if callable(_signal.getsignal(_signal.SIGINT)):  # Python's own; ignored (a background job of a script), it stays so
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until it is held, a Ctrl-C ends us as it ends any program: no traceback
except KeyboardInterrupt:  # it came before that, and is told only now
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.raise_signal(_signal.SIGINT)

import gc
import os
import sys

gc.disable()  # until an event loop runs (company.py, batchrun.py): what is loaded stays, and there is no other garbage yet


def _fill_the_low_descriptors() -> None:
    """Where 0, 1 or 2 is closed, something of ours would be opened there, and a sentence meant for stderr could end up in a control
    file of the kernel. What is put there instead closes on exec: the command finds them closed, as it would without memrun."""
    try:
        while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
            continue
    except OSError:
        return
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


_fill_the_low_descriptors()

from memrun import cli  # noqa: E402


def main() -> None:
    """The whole command. Ends without the interpreter's tidying up, which takes a quarter as long as its start and changes nothing:
    what we have opened is closed, or the kernel does it."""
    status = cli.main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody to tell: cli.main has seen to what is worth telling
            continue
    os._exit(status)


if __name__ == "__main__":
    main()
