"""The way in: descriptors -> events in a mailbox. Watchers only wait and send; they decide nothing. What news means: news.py."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from memrun import events, news
from memrun.cgroup import Heard

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import Group
    from memrun.job import Process

    Send = Callable[[events.Event], None]


async def exit_of(child: Process, group: Group, send: Send) -> None:
    """Exited, when the command has ended."""
    while (status := child.reap()) is None:
        await trio.lowlevel.wait_readable(child.pidfd)
        await trio.lowlevel.checkpoint_if_cancelled()  # woken and cancelled at once: the hand has closed everything
    if news.may_be_ours_too(status):
        await trio.sleep(news.TOGETHER)
    send(news.exited(child, group, status, trio.current_time()))


async def group(group: Group, send: Send, known: Heard | None = None) -> None:
    """OomKilled, Reached and Emptied, as the kernel tells of them. `known`: what had been heard already."""
    fd = group.notice_fd()
    before = group.hear()
    _tell(known, before, send)
    if news.undecided(known or Heard(), before):
        before = await _look_again(group, before, send)
    while True:
        if before.populated is not None:
            await trio.lowlevel.wait_readable(fd)
        elif not await _news_or_death(fd, group):
            send(events.Emptied(trio.current_time()))
            return
        await trio.lowlevel.checkpoint_if_cancelled()
        heard = group.hear()
        _tell(before, heard, send)
        if news.undecided(before, heard):
            heard = await _look_again(group, heard, send)
        before = heard


async def _look_again(group: Group, before: Heard, send: Send) -> Heard:
    """See news.undecided. A held job may be raised meanwhile and be at its wire again: heard at once."""
    heard = news.glance_again(group)
    if news.decided(before, heard):
        _tell(before, heard, send)
        return heard
    pauses = list(news.LOOKS)
    while pauses:
        with trio.move_on_after(pauses[0]) as patience:
            await trio.lowlevel.wait_readable(group.notice_fd())
        if patience.cancelled_caught:
            del pauses[0]
        await trio.lowlevel.checkpoint_if_cancelled()
        heard = group.hear()
        if news.decided(before, heard):
            _tell(before, heard, send)
            return heard
    return before


def _tell(before: Heard | None, now: Heard, send: Send) -> None:
    for event in news.between(before, now, trio.current_time()):
        send(event)


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


async def signals_to(
    fd: int, shared: Callable[[], bool], send: Send, meaning: Callable[[int, float], events.Event | None] = news.ending
) -> None:
    """Signals to memrun -> events. `shared`: whether the command is in our process group, so that what the terminal sends has
    reached it already."""
    while True:
        await trio.lowlevel.wait_readable(fd)
        number, from_kernel = news.next_signal(fd)
        event = None if from_kernel and shared() else meaning(number, trio.current_time())
        if event is not None:
            send(event)
