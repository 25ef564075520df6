"""What news means: counters, exits and signals -> events. Said once, for the event loop (watch.py) and for who waits without one (vigil.py).

Everything is "look again": a wake-up makes somebody read the counters and states as they are now, and tell what has changed since the
last look. So a lost, doubled or late wake-up changes nothing.
"""

from __future__ import annotations

import os
import sys
import time

from memrun import clib, events, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from memrun.cgroup import Group, Heard
    from memrun.job import Process

LOOKS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)  # seconds
TOGETHER = 0.02  # seconds
SIGINFO = 128  # bytes of one: signalfd_siginfo
SI_KERNEL = 0x80


def between(before: Heard | None, now: Heard, at: float) -> Iterator[events.Event]:
    """What has happened from one look at a group to the next."""
    if now.kills > (before.kills if before else 0):
        yield events.OomKilled(at)
    if now.raised is not None:
        yield events.Raised(at, *now.raised)
    if now.at_limit:
        yield events.Reached(at)
    if now.populated is False and (before is None or before.populated is not False):
        yield events.Emptied(at)


def undecided(before: Heard, now: Heard) -> bool:
    """v1 notifies before it kills, and before it parks (under_oom is 0 again for a moment in between): neither may have been there
    yet when we looked, and we have to look again, LOOKS apart. Bounded, and only after a notice."""
    return now.own > before.own and now.kills == before.kills and not now.at_limit and now.raised is None


def decided(before: Heard, now: Heard) -> bool:
    """Whether those looks have seen what they were for."""
    return now.kills != before.kills or now.at_limit or now.raised is not None or now.populated is False


def glance_again(group: Group) -> Heard:
    """The first of those looks, at once: most kills come 50 us after the notice, and epoll and poll count in milliseconds."""
    time.sleep(0.0001)
    return group.hear()


def exited(child: Process, group: Group, status: int, at: float) -> events.Exited:
    """The command has ended, and was reaped."""
    child.left = group.pids()
    return events.Exited(at, ok=status == 0, left=bool(child.left))


def may_be_ours_too(status: int) -> bool:
    """A raw wait status. Who ends everything at once (systemd, a scope or a unit; a machine that goes down) sends TERM to the command and to
    memrun, one after the other: a command that has died of it before memrun has heard of it was stopped, all the same. So memrun's own
    gets TOGETHER to arrive. All of it, also when it is there: systemd is still walking through the tree, and takes a directory that
    vanishes for a failure, after which it goes on to SIGKILL at once (seen in the guest: memrun died before its report was written)."""
    return status & 0x7F == signals.TERM


def signal_fd() -> int:
    """A signalfd for the signals that memrun answers for. They stay blocked for memrun's whole life: none can hit between two
    lines of Python, and siginfo tells a terminal's Ctrl-C (which the command has received as well) from a kill(1)."""
    call = clib.function("signalfd")
    if call is None:
        raise OSError(38, "this Python has no _ctypes", "signalfd")
    mask = sum(1 << (number - 1) for number in signals.HEARD).to_bytes(128, "little")
    fd = call(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError(clib.errno(), os.strerror(clib.errno()), "signalfd")
    return fd


def next_signal(fd: int) -> tuple[int, bool]:
    """From a signalfd that is readable: which, and whether it came from the kernel (a terminal's Ctrl-C), not from a process."""
    said = os.read(fd, SIGINFO)  # ssi_signo, ssi_errno, ssi_code, ...
    number, _, code = (int.from_bytes(said[at : at + 4], sys.byteorder, signed=True) for at in (0, 4, 8))
    return number, code == SI_KERNEL


def ending(number: int, at: float) -> events.Event:
    """What a signal to memrun means for a job that memrun started: TERM and INT end it, the others are passed on."""
    if number in {signals.TERM, signals.INT}:
        return events.StopAsked(at, number if number == signals.INT else None)
    return events.SignalAsked(at, number)


def detaching(number: int, at: float) -> events.Event | None:
    """And for processes that were there before memrun: they go on without it. Also when the terminal, which is not theirs, leaves."""
    if number in {signals.TERM, signals.INT, signals.HUP, signals.QUIT}:
        return events.DetachAsked(at)
    return None if number == signals.WINCH else events.SignalAsked(at, number)
