"""The way in: descriptors -> events in a mailbox. Watchers only wait and send; they decide nothing. What news means: news.py."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from memrun import events, interference, news
from memrun.cgroup import Heard
from memrun.switchboard import Line

HAND_AGAIN = 0.5  # seconds between two that are spread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memrun.cgroup import Group
    from memrun.job import Process, Site
    from memrun.switchboard import Switchboard

    Send = Callable[[events.Event], None]
    Wait = Callable[[], Awaitable[None]]


async def exit_of(child: Process, group: Group, send: Send) -> None:
    """Exited, when the command has ended."""
    while (status := child.reap()) is None:
        await trio.lowlevel.wait_readable(child.pidfd)
        await trio.lowlevel.checkpoint_if_cancelled()  # woken and cancelled at once: the hand has closed everything
    if news.may_be_ours_too(status):
        await trio.sleep(news.TOGETHER)
    send(news.exited(child, group, status, trio.current_time()))


async def group(group: Group, send: Send, known: Heard | None = None, board: Switchboard | None = None) -> None:
    """OomKilled, Reached and Emptied, as the kernel tells of them. `known`: what had been heard already; `board`: it is one of many groups."""
    watched = _Watched(group, send, known)
    wait = watched.begin(board)
    watched.look()
    while not watched.is_removed:
        if watched.undecided:
            await _look_again(watched, wait)
        elif watched.is_told_of_the_end:
            await wait()
        elif not await _news_or_death(wait, group):
            send(events.Emptied(trio.current_time()))
            return


class _Watched:
    """A group and what was heard of it last. `undecided`: see news.undecided."""

    __slots__ = ("_before", "_group", "_send", "is_removed", "undecided")

    def __init__(self, group: Group, send: Send, known: Heard | None) -> None:
        self._group, self._send = group, send
        self._before, self.undecided = known, False
        self.is_removed = False  # by somebody else: there is no more news

    def begin(self, board: Switchboard | None) -> Wait:
        """Listen: what waits for news, and has looked at it."""
        if board is None:
            return partial(self._wait, self._group.notice_fd())
        line = Line(board, self.look)
        self._group.tell(line)
        return line.wait

    async def _wait(self, fd: int) -> None:
        await trio.lowlevel.wait_readable(fd)
        await trio.lowlevel.checkpoint_if_cancelled()
        self.look()

    def look(self) -> None:
        """Hear what there is, and tell it. Once more where it is undecided: most kills come 50 us after their notice."""
        heard = interference.hear(self._group)
        if heard is None:
            self.is_removed, self.undecided = True, False
            self._send(events.Emptied(trio.current_time()))
            return
        self._take(heard)
        if self.undecided:
            self._take(news.glance_again(self._group))

    def _take(self, heard: Heard) -> None:
        before = self._before
        if self.undecided and before is not None and not news.decided(before, heard):
            return
        self.undecided = not self.undecided and news.undecided(before or Heard(), heard)
        self._before = heard
        for event in news.between(before, heard, trio.current_time()):
            self._send(event)

    @property
    def is_told_of_the_end(self) -> bool:
        """Whether the kernel says when the group is empty."""
        return self._before is None or self._before.populated is not None


async def _look_again(watched: _Watched, wait: Wait) -> None:
    """A held job may be raised meanwhile and be at its wire again: heard at once."""
    pauses = list(news.LOOKS)
    while pauses and watched.undecided:
        with trio.move_on_after(pauses[0]) as patience:
            await wait()
        if patience.cancelled_caught:
            del pauses[0]
            await trio.lowlevel.checkpoint_if_cancelled()
            watched.look()
    watched.undecided = False


async def _news_or_death(wait: Wait, group: Group) -> bool:
    """Where the kernel does not say that a group is empty (v1 with nothing beside it): as long as one of its processes lives, it is not, and when
    that one dies it is another's turn. False when there is none left."""
    found = group.pids()
    if not found:
        return False
    pidfd = _pidfd(found[0])
    if pidfd < 0:
        await trio.lowlevel.checkpoint()
        return True  # it was gone before we could hold it: look again at once
    try:
        async with trio.open_nursery() as nursery:

            async def first(one: Wait) -> None:
                await one()
                nursery.cancel_scope.cancel()

            nursery.start_soon(first, wait)
            nursery.start_soon(first, partial(trio.lowlevel.wait_readable, pidfd))
        return True
    finally:
        os.close(pidfd)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


async def hand(site: Site, remark: Callable[[str], object]) -> None:
    """Whoever kills the dead man's hand gets another one. `remark`: what there is to say of it."""
    before = ""
    while True:
        end = _pidfd(site.hand.pid)
        if end >= 0:
            try:
                await trio.lowlevel.wait_readable(end)
            finally:
                os.close(end)
        said = site.hand.mind()
        if said and said != before:
            remark(said)
        before = said if site.hand.is_broken() else ""
        await trio.sleep(HAND_AGAIN)  # there may be no process to be had


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
