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
        """It tells of news; the descriptor again (-1: there is none). OSError where the kernel has no more to give; it is closed then."""
        if fd >= 0:
            try:
                if self._ear is not None:
                    self._ear.register(fd, mask)
            except OSError:
                os.close(fd)
                raise
            self._fds[fd] = mask
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

            own = select.epoll()
            self.tell(own)
            self._own = own
        return self._own.fileno()

    def tell(self, ear: Ear) -> None:
        """From now on, somebody else: of all of them, or of none."""
        told: list[int] = []
        try:
            for fd, mask in self._fds.items():
                ear.register(fd, mask)
                told.append(fd)
        except OSError:
            for fd in told:
                ear.unregister(fd)
            raise
        self._ear = ear

    def close(self) -> None:
        """All of them."""
        for fd in list(self._fds):
            self.drop(fd)
        own, self._own, self._ear = self._own, None, None
        if own is not None:
            own.close()
