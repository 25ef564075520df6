"""Signals by number and name, without the standard library's `signal` module.

That module turns every constant into an enum, and importing `enum` costs a third of the interpreter's whole start
(5 of 14 ms). CPython's C module below it has everything that is needed before the command runs; after that, trio
brings `signal` along anyway.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # CPython's own; there is no stub for it
import os

from memrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBERS: dict[str, int] = {
    name[3:]: int(value)
    for name, value in vars(_signal).items()
    if name.startswith("SIG") and not name.startswith("SIG_") and isinstance(value, int)
}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items() if name not in {"CLD", "POLL", "IOT"}}
KILL, TERM, INT, HUP, CONT = (NUMBERS[n] for n in ("KILL", "TERM", "INT", "HUP", "CONT"))
USR1, USR2, WINCH, CHLD, STOP, QUIT, IO = (NUMBERS[n] for n in ("USR1", "USR2", "WINCH", "CHLD", "STOP", "QUIT", "IO"))
SI_KERNEL = 0x80
HEARD = (TERM, INT, HUP, QUIT, USR1, USR2, WINCH)  # what memrun answers for; everything else does what it always does


def parse(text: str) -> int:
    """'TERM', 'SIGTERM', 'sigterm' or '15' -> 15."""
    bare = text.strip().upper().removeprefix("SIG")
    number = int(bare) if bare.isascii() and bare.isdigit() and len(bare) < 4 else NUMBERS.get(bare, 0)
    if not 0 < number <= NUMBERS["RTMAX"]:
        raise UsageError(f"{text!r} is not a signal", "Signals look like TERM, SIGUSR1 or 15")
    return number


def name(number: int) -> str:
    """'SIGTERM'; real-time signals by number."""
    return f"SIG{NAMES.get(number, number)}"


def block(numbers: Iterable[int]) -> frozenset[int]:
    """Hold these signals; returns the mask before."""
    return frozenset(_signal.pthread_sigmask(_signal.SIG_BLOCK, numbers))


def set_mask(numbers: Iterable[int]) -> frozenset[int]:
    """Set the mask to exactly these; returns the mask before."""
    return frozenset(_signal.pthread_sigmask(_signal.SIG_SETMASK, numbers))


def wait(numbers: Iterable[int]) -> tuple[int, bool]:
    """Wait for one of these signals, which are blocked: its number, and whether the kernel sent it (a terminal's Ctrl-C)."""
    found = _signal.sigwaitinfo(numbers)
    return int(found.si_signo), found.si_code == SI_KERNEL


def wait_for(numbers: Iterable[int], seconds: float | None) -> int:
    """Wait so long (None: for ever) for one of these signals, which are blocked: its number, or 0."""
    if seconds is None:
        return wait(numbers)[0]
    found = _signal.sigtimedwait(numbers, max(0.0, seconds))
    return int(found.si_signo) if found is not None else 0


def die_in(seconds: int) -> None:
    """SIGALRM, which ends this process, after so long."""
    _signal.alarm(seconds)


def every() -> set[int]:
    """All signals that there are."""
    return set(_signal.valid_signals())


def ignored() -> frozenset[int]:
    """The signals that this process ignores now."""
    return frozenset(n for n in every() if _signal.getsignal(n) == _signal.SIG_IGN)


def default(number: int) -> None:
    """Back to the default disposition."""
    _signal.signal(number, _signal.SIG_DFL)


def send(pid: int, number: int) -> None:
    """To a process by number, if it is still there and lets us."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def send_pidfd(pidfd: int, number: int) -> None:
    """Signal exactly the process that the descriptor was opened on: a pid may be reborn."""
    _signal.pidfd_send_signal(pidfd, number)
