"""The control socket itself: where it is, who comes in. What may be asked there, and how it is answered: control.py.

CPython's C module `_socket`, for the reason that signals.py gives: `socket` turns all constants into enums, and takes 1.3 MB.
"""

from __future__ import annotations

import _socket
import os

from memrun import names
from memrun.names import SOCKET, UNBORN, directory

SILENCE = 10.0  # seconds that a client may take to say something

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Wire(Protocol):
        """A socket of any make."""

        def getsockopt(self, level: int, name: int, most: int, /) -> bytes: ...


class Door:
    """Listens."""

    __slots__ = ("_file", "path", "wire")

    def __init__(self, path: str) -> None:
        """Private before anybody can connect, and listening before anybody can find it: whoever finds one that refuses him takes it for a dead
        memrun's, and away. OSError where that cannot be."""
        self.path = path
        unborn = path.removesuffix(SOCKET) + UNBORN
        _unlink(unborn)  # of a memrun with our pid, which is therefore dead
        self.wire = wire = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        before = os.umask(0o177)
        try:
            wire.bind(unborn)
            os.chmod(unborn, 0o600)
            wire.listen(128)
            self._file = os.lstat(unborn)
            os.rename(unborn, path)
        except OSError:
            wire.close()
            _unlink(unborn)
            raise
        finally:
            os.umask(before)

    def guest(self) -> _socket.socket:
        """Who is waiting outside. OSError where nobody is (any more)."""
        fd, _ = self.wire._accept()  # type: ignore[attr-defined]  # noqa: SLF001  (what socket.accept itself calls; the descriptor closes on exec)
        found = _socket.socket(fileno=fd)
        found.settimeout(0)
        return found

    def handed_over(self) -> int:
        """The descriptor, which is somebody else's from now on."""
        return self.wire.detach()

    def close(self) -> None:
        """Nobody comes in any more."""
        self.wire.close()
        names.unlink(self.path, self._file)


def open_door(pid: int = 0) -> tuple[Door | None, str]:
    """The door under the pid by which we are known (ours); None and why where there is no place for one: a job runs all the same."""
    place = directory(make=True)
    if place is None:
        return None, "no directory for a control socket: this job cannot be raised, paused or listed from outside"
    try:
        return Door(f"{place}/{pid or os.getpid()}{SOCKET}"), ""
    except OSError as e:
        return None, f"no control socket: {e.strerror or e}"


def who(wire: Wire) -> tuple[int, int]:
    """(pid, user id) of the other side, as the kernel tells them."""
    said = memoryview(wire.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)).cast("i")
    return said[0], said[1]


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
