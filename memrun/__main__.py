"""The command's entry, `memrun` and `python -m memrun`: what must be so before anything else is loaded."""

from __future__ import annotations

import os
import sys

from memrun import signals


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


signals.forget_keyboard_interrupt()
_fill_the_low_descriptors()

from memrun.cli import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
