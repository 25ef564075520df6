"""Which descriptors tell of a group's news, and who hears them: an epoll of its own, or one that many groups share.

Some of them signal by POLLPRI (control files that change), which an event loop's "readable" does not see: an epoll does, and is itself readable
then. Of one's own it costs a descriptor, and thousands of jobs have none to spare.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select
    from typing import Protocol

    class Ear(Protocol):
        """As select.epoll, of which it takes the masks."""

        def register(self, fd: int, mask: int, /) -> None:
            """Hear this one from now on."""

        def unregister(self, fd: int, /) -> None:
            """No more."""


READABLE, CHANGED = 0x1, 0x2  # EPOLLIN and EPOLLPRI of select, which most runs load only when their command runs


class Ears:
    """Of one group. Descriptors that are added to it are its own: closed when they are dropped."""

    __slots__ = ("_ear", "_fds", "_own")

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}
        self._own: select.epoll | None = None
        self._ear: Ear | None = None

    def add(self, fd: int, mask: int) -> int:
        """It tells of news; the descriptor again (-1: there is none)."""
        if fd >= 0:
            self._fds[fd] = mask
            if self._ear is not None:
                self._ear.register(fd, mask)
        return fd

    def drop(self, fd: int) -> None:
        """No more. A forked copy of ours may have it open as well, and closed here it would go on telling."""
        if self._fds.pop(fd, None) is not None:
            if self._ear is not None:
                self._ear.unregister(fd)
            os.close(fd)

    def fileno(self) -> int:
        """One descriptor for all of them, readable while there is news."""
        if self._own is None:
            import select

            self._own = select.epoll()
            self.tell(self._own)
        return self._own.fileno()

    def tell(self, ear: Ear) -> None:
        """From now on, somebody else."""
        self._ear = ear
        for fd, mask in self._fds.items():
            ear.register(fd, mask)

    def close(self) -> None:
        """All of them."""
        for fd in list(self._fds):
            self.drop(fd)
        own, self._own, self._ear = self._own, None, None
        if own is not None:
            own.close()
