"""Somebody must hold a job at its limit in the 160 ms that importing trio takes: a forked copy of memrun that does only that.

It is there only for jobs that are to be paused, from just before their launch (a job can be at its limit 5 ms later) until the event loop listens, and it dies with memrun (the end
of its pipe). It takes no news away, and what it froze it says by its exit status: by then the figures that made it freeze may have changed.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Group

HELD = 1  # exit status


class Guard:
    """The copy, and the pipe whose end is its end."""

    __slots__ = ("_group", "_pid", "_pipe")

    def __init__(self, group: Group) -> None:
        self._group = group
        theirs, self._pipe = os.pipe()
        news, standing = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            _stand(group, theirs, standing)
        os.close(theirs)
        os.close(standing)
        os.read(news, 1)  # launched before that, a job could be past its wire before the scheduler has come to the guard
        os.close(news)

    def relieve(self) -> bool:
        """The event loop listens now. Whether the job is held by the guard."""
        os.close(self._pipe)
        status = os.waitpid(self._pid, 0)[1]
        if status & 0x7F:  # it was killed, perhaps while it froze the job: whoever listens now looks for himself
            self._group.thaw()
        return status == HELD << 8


def _stand(group: Group, pipe: int, standing: int) -> None:
    """Never returns, never raises. `standing`: closed when it stands."""
    status = 0
    try:
        hurry()
        news = select.epoll()
        news.register(pipe, select.EPOLLIN)
        news.register(group.notice_fd(), select.EPOLLIN | select.EPOLLET)  # edges: what is news stays unread here
        os.close(standing)
        while pipe not in dict(news.poll()):
            if group.reflex():
                status = HELD
                break
    finally:
        os._exit(status)


def hurry() -> None:
    """Ahead of everybody else on the processor, where we may: between a trip wire and a limit there are milliseconds, and a busy
    machine's scheduler takes tens of them. Reset on fork: the job is nobody special. Measured under four busy processes
    per core, on an emulated v2 machine: no job of 10 was killed at a wire of 64 KiB, against 13 to 18 of 40 without it."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return
