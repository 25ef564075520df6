"""Connections at the control socket: how many there may be, which one is closed for another, and which client has left.

Whoever comes is let in. Where MOST are connected already, the one that has been silent for longest is closed: a client that says nothing
must not keep out one that does. A client that waits for an end, or follows events, is silent because it was asked to be: it is counted
apart, bounded too (one more is refused with a sentence), and let go of as soon as its process has closed the socket. The kernel tells of
that through one epoll for all of them, so that nothing is read from the client meanwhile, and one that has only ended its own half
(a pipe into socat) still gets its answer.
"""

from __future__ import annotations

import select

import trio

from memrun.errors import RefusedError

MOST = 64  # clients at a time that may say something
MOST_WAITING = 256  # clients at a time that wait for an end, or follow events
HANGUP_ONLY = 0  # of epoll: EPOLLHUP and EPOLLERR are told of in any case


class Connections:
    """Of one control socket. `serve` has to run while somebody waits; `close` when nobody does any more."""

    def __init__(self) -> None:
        self._talking: dict[trio.CancelScope, None] = {}  # the one that has been silent for longest is the first
        self._waiting: dict[int, trio.CancelScope] = {}
        self._epoll = select.epoll()

    async def serve(self) -> None:
        """Notice who leaves while it waits, until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                self._epoll.unregister(fd)
                self._waiting.pop(fd).cancel()

    def close(self) -> None:
        """Nobody waits any more."""
        self._epoll.close()

    def enter(self, scope: trio.CancelScope) -> None:
        """One more client. Its conversation is cancelled when it is closed for another, or leaves while it waits."""
        while len(self._talking) >= MOST:
            self.drop()
        self._talking[scope] = None

    def leave(self, scope: trio.CancelScope) -> None:
        """It is not connected any more."""
        self._talking.pop(scope, None)

    def drop(self) -> None:
        """Close the client that has been silent for longest."""
        if self._talking:
            scope = next(iter(self._talking))
            del self._talking[scope]
            scope.cancel()

    def heard(self, scope: trio.CancelScope) -> None:
        """It has said something."""
        if scope in self._talking:
            self._talking[scope] = self._talking.pop(scope)

    def wait(self, scope: trio.CancelScope, fd: int) -> None:
        """The client (its conversation, its socket) says nothing from now on, and is right to. RefusedError where too many do that."""
        if len(self._waiting) >= MOST_WAITING:
            raise RefusedError(f"{MOST_WAITING} clients wait here already", "memrun ps shows how a job stands at any time")
        self._epoll.register(fd, HANGUP_ONLY)
        self._waiting[fd] = scope
        self._talking.pop(scope, None)

    def go_on(self, scope: trio.CancelScope, fd: int) -> None:
        """It has what it waited for."""
        if self._waiting.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        self._talking[scope] = None
