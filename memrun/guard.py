"""Somebody must hold a job at its limit in the 160 ms that importing trio takes: a forked copy of memrun that does only that.

It is there only for jobs that are to be paused, from just before their launch (a job can be at its limit 5 ms later) until somebody listens, and again while an
event loop is loaded for a job that runs. It dies with memrun (the end of its pipe). It takes no news away, and what it froze it says by its exit status: by then the figures that made it freeze may have changed.
"""

from __future__ import annotations

import os
import select

from memrun.priority import hurry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Group

HELD = 1  # exit status


class Guard:
    """The copy, and the pipe whose end is its end. `standing`: readable when it is there; until then who has watched goes on."""

    __slots__ = ("_group", "_pid", "_pipe", "standing")

    def __init__(self, group: Group) -> None:
        self._group = group
        theirs, self._pipe = os.pipe()
        self.standing, standing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            _stand(group, theirs, standing)
        os.close(theirs)
        os.close(standing)

    def stand(self) -> None:
        """Wait until it does: launched before that, a job could be past its wire before the scheduler has come to the guard."""
        fd, self.standing = self.standing, -1
        if fd >= 0:
            os.read(fd, 1)
            os.close(fd)

    def relieve(self) -> bool:
        """Somebody else listens now. Whether the job is held by the guard."""
        self.stand()
        os.close(self._pipe)
        status = os.waitpid(self._pid, 0)[1]
        if status & 0x7F:  # it was killed, perhaps while it froze the job: whoever listens now looks for himself
            self._group.thaw()
        return status == HELD << 8


def _stand(group: Group, pipe: int, standing: int) -> None:
    """Never returns, never raises. `standing`: closed when it stands."""
    held = False
    try:
        hurry()
        news = select.epoll()
        news.register(pipe, select.EPOLLIN)
        news.register(group.notice_fd(), select.EPOLLIN | select.EPOLLET)  # edges: what is news stays unread here
        group.need()  # once for nothing: what a forked copy does for the first time takes it ten times as long
        held = group.reflex()
        os.close(standing)
        while not held and pipe not in dict(news.poll()):
            held = group.reflex()
    finally:
        os._exit(HELD if held else 0)
