"""Writes to a terminal or a pipe that may not take it: without holding up the loop, without a thread, and without O_NONBLOCK on what
others share.

Ctrl-S, a pager that nobody scrolls, or an ssh that hangs stop a write for as long as they like, and a supervisor that sits in
such a write raises nothing and ends nothing. O_NONBLOCK belongs to the open file description, which the shell and the jobs
have, too: set there, it would break *their* writes. So a terminal or pipe is opened once more through /proc: the same thing, a
description of our own. Where that is not allowed (the terminal of another user after `su`, a socket), small pieces are
written when the kernel says that there is room. A file takes everything at once, and must not be opened anew: its place is in the
description.

Who has gone (EPIPE, EIO, EBADF) is nobody to tell: what is written then is dropped.
"""

from __future__ import annotations

import os
import stat

import trio

PIECE = 512  # bytes that a blocking descriptor is trusted to take when it says that there is room


class Outlet:
    """One descriptor. `deaf`: nobody listens any more."""

    def __init__(self, fd: int) -> None:
        self.deaf = False
        self._fd, self._own, self._waits = fd, False, True
        try:
            kind = os.fstat(fd).st_mode
        except OSError:
            self.deaf = True
            return
        if stat.S_ISREG(kind):
            self._waits = False
        elif stat.S_ISCHR(kind) or stat.S_ISFIFO(kind):
            self._reopen(fd)

    def _reopen(self, fd: int) -> None:
        try:
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return
        self._own = True

    async def write(self, data: bytes) -> None:
        """All of it, however long that takes; nothing if nobody listens."""
        while data and not self.deaf:
            await self._room()
            data = data[self._put(data) :]

    async def _room(self) -> None:
        if not self._waits:
            await trio.lowlevel.checkpoint()
            return
        try:
            await trio.lowlevel.wait_writable(self._fd)
        except PermissionError:  # epoll's word for what is always ready: a file, /dev/null
            self._waits = False
        except OSError:
            self.deaf = True

    def _put(self, data: bytes) -> int:
        if self.deaf:
            return 0
        try:
            return os.write(self._fd, data if self._own or not self._waits else data[:PIECE])
        except BlockingIOError:
            return 0
        except OSError:
            self.deaf = True
            return 0

    def last(self, data: bytes) -> None:
        """A few bytes when there is no time left to wait: written where they can be without waiting, else dropped."""
        if self._own and not self.deaf:
            self._put(data)

    def close(self) -> None:
        """Give back what is ours."""
        if self._own:
            os.close(self._fd)
            self._own, self.deaf = False, True
