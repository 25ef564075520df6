"""A v1 job's trip wire: a usage threshold a little below its limit, heard through an eventfd.

To register one waits for the kernel's RCU (36 ms in the median of 60 on two busy CPUs, 113 at most), and a job that was raised must not
run without one for so long. So where the next raise is foreseen its wire is strung beforehand, by a forked copy of ours that
may wait: an eventfd is the same one in both, and the registration lasts until the last of them is closed.
"""

from __future__ import annotations

import os

from memrun.cgroup import steep_gap
from memrun.cgroup.eventfd import count, listen, register

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from collections.abc import Callable

    from memrun.cgroup.files import Dir

FILE = "memory.usage_in_bytes"
PAGE = os.sysconf("SC_PAGESIZE")
EPOLLIN = 0x1  # select's, which most runs load only when their command runs


class Wire:
    """The wire as it is now, and the next one."""

    __slots__ = ("_coming", "_epoll", "_group", "_next", "at", "fd")

    def __init__(self, group: Dir) -> None:
        self._group = group
        self.at: int | None = None
        self.fd = -1
        self._next, self._coming = -1, 0  # eventfd of the next one, and its limit once it is strung
        self._epoll: select.epoll | None = None

    def string(self, limit: int | None) -> None:
        """A new one, before the old one is dropped; None: none any more."""
        before, self.fd, self.at = self.fd, -1, None
        if limit is not None:
            self.at = limit - steep_gap(limit)
            self.fd = self._taken(limit)
            if self.fd < 0:
                self.fd = listen(self._group, FILE, str(self.at))
            if self._epoll is not None and self.fd >= 0:
                self._epoll.register(self.fd, EPOLLIN)
        if before >= 0:  # a registration ends with its eventfd
            if self._epoll is not None:
                self._epoll.unregister(before)
            os.close(before)

    def _taken(self, limit: int) -> int:
        fd = self._next if limit == self._coming else -1
        if fd >= 0:
            self._next = -1
            count(fd)
        self._drop()
        return fd

    def foresee(self, limit: int) -> Callable[[], None]:
        """What a copy of ours is to do for a raise to this limit; `foreseen` when it has."""
        self._drop()
        fd = self._next = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        limit = limit // PAGE * PAGE
        return lambda: register(self._group, fd, FILE, str(limit - steep_gap(limit)))

    def foreseen(self, limit: int) -> None:
        if self._next >= 0:
            self._coming = limit // PAGE * PAGE

    def listen_by(self, epoll: select.epoll) -> None:
        """Who is to hear of it, of this wire and of those that follow."""
        self._epoll = epoll
        if self.fd >= 0:
            epoll.register(self.fd, EPOLLIN)

    def tripped(self) -> bool:
        """Whether it was since the last look."""
        return count(self.fd) > 0

    def _drop(self) -> None:
        fd, self._next, self._coming = self._next, -1, 0
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        self._epoll = None
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self._drop()
