"""The way in: descriptors -> events in a mailbox. Watchers only wait and send; they decide nothing.

Everything is "look again": a wake-up makes a watcher read the counters and states as they are now, and send what has
changed since the last look. So a lost, doubled or late wake-up changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

import trio

from memrun import events, signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import Group, Heard
    from memrun.job import Process

    Send = Callable[[events.Event], None]

LOOKS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)  # seconds
SIGINFO = struct.Struct("=IiiI")  # ssi_signo, ssi_errno, ssi_code, ssi_pid
SI_KERNEL = 0x80


async def exit_of(child: Process, group: Group, send: Send) -> None:
    """Exited, when the command has ended."""
    while (status := child.reap()) is None:
        await trio.lowlevel.wait_readable(child.pidfd)
        await trio.lowlevel.checkpoint_if_cancelled()  # woken and cancelled at once: the hand has closed everything
    left = group.pids()
    child.left = left
    send(events.Exited(trio.current_time(), ok=status == 0, left=bool(left)))


async def group(group: Group, send: Send) -> None:
    """OomKilled, Reached and Emptied, as the kernel tells of them."""
    fd = group.notice_fd()
    before = group.hear()
    _tell(None, before, send)
    while True:
        if before.populated is not None:
            await trio.lowlevel.wait_readable(fd)
        elif not await _news_or_death(fd, group):
            send(events.Emptied(trio.current_time()))
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        heard = group.hear()
        _tell(before, heard, send)
        if heard.own > before.own and heard.kills == before.kills and not heard.at_limit:
            heard = await _look_again(group, heard, send)
        before = heard


async def _look_again(group: Group, before: Heard, send: Send) -> Heard:
    """v1 notifies before it kills, and before it parks (under_oom is 0 again for a moment in between): neither may have been there
    yet when we looked. Bounded, and only after a notice. A held job may be raised meanwhile and be at its wire again: heard at once."""
    pauses = list(LOOKS)
    while pauses:
        with trio.move_on_after(pauses[0]) as patience:
            await trio.lowlevel.wait_readable(group.notice_fd())
        if patience.cancelled_caught:
            del pauses[0]
        await trio.lowlevel.checkpoint_if_cancelled()
        heard = group.hear()
        if heard.kills != before.kills or heard.at_limit or heard.populated is False:
            _tell(before, heard, send)
            return heard
    return before


def _tell(before: Heard | None, now: Heard, send: Send) -> None:
    at = trio.current_time()
    if now.kills > (before.kills if before else 0):
        send(events.OomKilled(at))
    if now.at_limit:
        send(events.Reached(at))
    if now.populated is False and (before is None or before.populated is not False):
        send(events.Emptied(at))


async def _news_or_death(fd: int, group: Group) -> bool:
    """Where the kernel does not say that a group is empty (v1 with nothing beside it): the death of any of its processes
    is a reason to look again. False when there is none left."""
    found = group.pids()
    if not found:
        return False
    pidfds = [pidfd for pid in found if (pidfd := _pidfd(pid)) >= 0]
    try:
        if len(pidfds) < len(found):
            await trio.lowlevel.checkpoint()
            return True  # one was gone before we could hold it: look again at once
        async with trio.open_nursery() as nursery:

            async def wait(one: int) -> None:
                await trio.lowlevel.wait_readable(one)
                nursery.cancel_scope.cancel()

            for one in (fd, *pidfds):
                nursery.start_soon(wait, one)
        return True
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def signal_fd() -> int:
    """A signalfd for the signals that memrun answers for. They stay blocked for memrun's whole life: none can hit between two
    lines of Python, and siginfo tells a terminal's Ctrl-C (which the command has received as well) from a kill(1).

    ctypes, because the standard library has no signalfd; trio has loaded it already.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    mask = sum(1 << (number - 1) for number in signals.HEARD).to_bytes(128, "little")
    fd: int = libc.signalfd(-1, mask, os.O_CLOEXEC | os.O_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "signalfd")
    return fd


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


async def signals_to(
    fd: int, shared: Callable[[], bool], send: Send, meaning: Callable[[int, float], events.Event | None] = ending
) -> None:
    """Signals to memrun -> events. `shared`: whether the command is in our process group, so that what the terminal sends has
    reached it already."""
    while True:
        await trio.lowlevel.wait_readable(fd)
        number, _, code, _ = SIGINFO.unpack_from(os.read(fd, 128))
        event = None if code == SI_KERNEL and shared() else meaning(number, trio.current_time())
        if event is not None:
            send(event)
