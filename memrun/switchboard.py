"""The news of many groups through one descriptor: an epoll that they all share, in which it is looked up whom they concern.

Of its own (Group.notice_fd) each group has a descriptor more and the event loop a registration more, which is nothing for one job, and
half of what there is for thousands. Whoever waits for his group's news is not woken to look at it: that would be one more turn of the event
loop (16 us in the median on two busy processors, of 30), so his look is taken here, and he is woken to go on from there.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable


class Switchboard:
    """`serve` has to run for as long as somebody waits."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._lines: dict[int, Line] = {}

    async def serve(self) -> None:
        """Ring whoever is meant, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0, max(1, len(self._lines))):
                if fd in self._lines:  # not hung up by the look of one before it
                    self._lines[fd].ring()

    def connect(self, fd: int, mask: int, line: Line) -> None:
        """Edges only: whoever is rung looks at all there is, and what comes after that rings again."""
        self._epoll.register(fd, mask | select.EPOLLET)
        self._lines[fd] = line

    def disconnect(self, fd: int) -> None:
        """The descriptor is about to be closed."""
        del self._lines[fd]
        self._epoll.unregister(fd)

    def close(self) -> None:
        """Nobody waits any more."""
        self._epoll.close()


class Line:
    """Of one group: what its `tell` is given. One task at a time may `wait`."""

    __slots__ = ("_board", "_look", "_rung", "_task")

    def __init__(self, board: Switchboard, look: Callable[[], None]) -> None:
        self._board, self._look = board, look
        self._rung = False
        self._task: trio.lowlevel.Task | None = None

    def register(self, fd: int, mask: int, /) -> None:
        """As of an epoll."""
        self._board.connect(fd, mask, self)

    def unregister(self, fd: int, /) -> None:
        """As of an epoll."""
        self._board.disconnect(fd)

    def ring(self) -> None:
        """There is news: looked at now, if anybody waits for it. What the look raises is raised where it is waited for."""
        if self._task is None:
            self._rung = True
            return
        seen = outcome.capture(self._look)
        task, self._task = self._task, None
        if task is not None:  # else it was cancelled by what was seen
            trio.lowlevel.reschedule(task, seen)

    async def wait(self) -> None:
        """Until there was news since this was last waited for, and it was looked at."""
        if self._rung:
            self._rung = False
            await trio.lowlevel.checkpoint_if_cancelled()
            self._look()
            return
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._hang_up)

    def _hang_up(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
