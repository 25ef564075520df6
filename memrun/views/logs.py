"""`memrun logs [-f] NAME`: what a job has written, and what it goes on to write.

`tail -F --pid` would do half of it: it knows one file and one process. A job that is started again writes to another file with another pid,
and what a dead process has written may still be in the pipe that memrun reads. So the memrun that runs the job is asked: `wait`
is answered when the job is over and its log complete, `events` tells of the next attempt. In between the kernel tells of every write
(inotify), of files that are rotated, and of a stdout that nobody reads any more; nothing is polled.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat

from memrun import clients, errors
from memrun.report import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Sequence

    from memrun.clients import Words

PIECE = 1 << 16
MODIFY, ATTRIB, MOVED_TO, CREATE, MOVE_SELF = 0x2, 0x4, 0x80, 0x100, 0x800  # linux/inotify.h
WITHOUT_INOTIFY = 500  # ms between looks where the kernel has no inotify to give


def show(name: str, *, follow: bool) -> int:
    """Print the current attempt's log; with `follow` until the job is over."""
    socket_path, row = clients.row(name)
    paths = _paths(row)
    if follow:
        Follower(socket_path, str(row["name"])).run(paths)
        _rest()
        return errors.SUCCESS
    found = [tail for tail in map(Tail, paths) if tail.open()]
    if not found:
        raise errors.MemrunError(f"{clean(name)} has not written a log: there is no {clean(paths[-1])}")
    for tail in found:
        for piece in tail.read():
            _out(piece)
        tail.close()
    _rest()
    return errors.SUCCESS


def _paths(row: Words) -> list[str]:
    """The log files of the current attempt, the one that is being written last. MemrunError says where the output goes if there is none."""
    log = row.get("log")
    paths = [path for path in (log if isinstance(log, list) else []) if _is_path(path)]
    if paths:
        return paths
    name, pid = clean(str(row["name"])), row.get("pid")
    if row.get("usage") is None or not isinstance(pid, int):
        raise errors.MemrunError(f"{name} keeps no log, and is not running at the moment")
    where = {word: _link(f"/proc/{pid}/fd/{fd}") for word, fd in (("stdout", 1), ("stderr", 2))}
    files = sorted({path for path in where.values() if os.path.isfile(path)})
    said = ", ".join(f"its {word} is {clean(path)}" for word, path in where.items())
    raise errors.MemrunError(f"{name} keeps no log: {said}", f"Try: tail -F {clean(' '.join(files))}" if files else "")


def _is_path(said: object) -> bool:
    """What answers need not be a memrun."""
    try:
        return isinstance(said, str) and "\0" not in said and bool(os.fsencode(said))
    except UnicodeError:
        return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return "memrun's own"


class Tamed:
    """What a job has written, for a terminal that is not to obey it: of escape sequences colours are left, of control characters tabs
    and line ends. `os.write`s of a job may tear a sequence in two, so a part of one at the end is kept back."""

    def __init__(self) -> None:
        self._held = b""

    def take(self, data: bytes, *, last: bool = False) -> bytes:
        """What may be shown of it by now."""
        import re

        data = self._held + data
        torn = None if last else re.search(rb"(?:\x1b(?:\[[0-9;:]{0,32})?|\xc2)\Z", data)
        self._held = data[torn.start() :] if torn else b""
        data = data[: torn.start()] if torn else data
        # \xc2\x80 to \xc2\x9f: in UTF-8, eight-bit control characters
        return re.sub(
            rb"(\x1b\[[0-9;:]*m)|[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]", lambda found: found[1] or b"?", data
        )


TAMED = Tamed()


def _out(data: bytes) -> None:
    _write(TAMED.take(data) if os.isatty(1) else data)


def _rest() -> None:
    if os.isatty(1):
        _write(TAMED.take(b"", last=True))


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


class Tail:
    """One log file: read as far as it goes, through rotation, truncation and being made anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1
        self._place = (0, 0)

    def open(self) -> bool:
        """Whether there is such a file. MemrunError: there is something else, or we may not read it."""
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as e:
            raise errors.MemrunError(f"cannot read the log {clean(self.path)}: {os.strerror(e.errno or 0)}") from None
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            raise errors.MemrunError(f"cannot read the log {clean(self.path)}: it is not a file")
        self._place = (found.st_dev, found.st_ino)
        return True

    def read(self) -> Iterator[bytes]:
        """What is new, in pieces: a log may be larger than memory."""
        while self.fd >= 0 and (piece := os.read(self.fd, PIECE)):
            yield piece

    def shrunk(self) -> bool:
        """Whether it was cut off below what we have read; then it is read from its start."""
        if self.fd < 0 or os.fstat(self.fd).st_size >= os.lseek(self.fd, 0, os.SEEK_CUR):
            return False
        os.lseek(self.fd, 0, os.SEEK_SET)
        return True

    def replaced(self) -> bool:
        """Whether the path leads to another file by now."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self._place

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


class Bell:
    """The kernel's word that a file is written to, or that a directory has a new one. `fd` -1: it has none to give."""

    def __init__(self) -> None:
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self.deaf = self.fd < 0  # some change may go unheard

    def watch(self, tail: Tail) -> None:
        """Hear of writes to the file that is open, and of its successor."""
        folder = os.path.dirname(tail.path)
        for path, mask in ((f"/proc/self/fd/{tail.fd}", MODIFY | ATTRIB | MOVE_SELF), (folder, CREATE | MOVED_TO)):
            if (path == folder or tail.fd >= 0) and self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask) < 0:
                self.deaf = True  # too many watches, no such directory yet

    def hush(self) -> None:
        """Take what it has said; that it rang is all that counts."""
        with contextlib.suppress(OSError):
            os.read(self.fd, PIECE)


class Follower:
    """Several tails, and the memrun that says when they are complete."""

    def __init__(self, socket_path: str, name: str) -> None:
        self._socket_path, self._name = socket_path, name
        self._bell = Bell()
        self._tails: dict[str, Tail] = {}
        self._last = ""  # whose text was printed last
        self._said = b""

    def run(self, paths: list[str]) -> None:
        """Until the job is over, or nobody reads us any more."""
        # Asked before anything is read: what comes after the answer is in the log by then.
        with self._ask("wait") as over, self._ask("events") as news:
            self._follow(paths, over, news)

    def _follow(self, paths: list[str], over: socket.socket, news: socket.socket) -> None:
        poll = select.poll()
        for fd in (over.fileno(), news.fileno(), self._bell.fd):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        poll.register(1, 0)  # that is: errors only
        self._add(paths)
        while True:
            self._print()
            ready = dict(poll.poll(WITHOUT_INOTIFY if self._bell.deaf else None))
            if ready.get(1, 0) & (select.POLLERR | select.POLLNVAL):
                return
            self._bell.hush()
            if news.fileno() in ready and not self._hear(news):
                poll.unregister(news.fileno())
                news.close()
            if over.fileno() in ready:
                self._print()
                self._check(over)
                return

    def _ask(self, verb: str) -> socket.socket:
        try:
            wire = clients.connect(self._socket_path)
            wire.sendall(clients.said({"verb": verb, "name": self._name, "follow": True}))
        except OSError:
            raise errors.MemrunError("that memrun has just ended") from None
        wire.setblocking(False)
        return wire

    def _hear(self, news: socket.socket) -> bool:
        """Another attempt may have another log; False when there is no more news."""
        try:
            data = news.recv(PIECE)
        except OSError:
            data = b""
        *lines, self._said = (self._said + data).split(b"\n")
        if any(b'"launched"' in line for line in lines):
            with contextlib.suppress(errors.MemrunError):
                self._add(_paths(clients.row_of(self._socket_path, self._name)))
        return bool(data)

    def _check(self, over: socket.socket) -> None:
        """The answer to `wait`; silence is a memrun that was killed, and then the log is as complete as it gets."""
        try:
            answer = clients.heard(over.recv(PIECE))
        except (OSError, ValueError):
            return
        if answer.get("ok") is False:
            raise errors.RefusedError(str(answer.get("error")), str(answer.get("remedy", "")))

    def _add(self, paths: list[str]) -> None:
        for path in paths:
            if path in self._tails:
                continue
            tail = Tail(path)
            there = tail.open()
            if _is_rotated(path, paths):
                self._copy(tail)
                tail.close()
                continue
            self._bell.watch(tail)
            if not there and tail.open():  # made while we were about to watch
                self._bell.watch(tail)
            self._tails[path] = tail

    def _print(self) -> None:
        for tail in self._tails.values():
            self._copy(tail)
            if tail.shrunk():
                self._copy(tail)
            while tail.replaced():
                self._copy(tail)  # what was written before it was
                tail.close()
                if not tail.open():
                    break
                self._bell.watch(tail)
                self._copy(tail)

    def _copy(self, tail: Tail) -> None:
        for piece in tail.read():
            if self._last not in {"", tail.path}:
                _out(f"\n==> {clean(tail.path)} <==\n".encode(errors="replace"))
            self._last = tail.path
            _out(piece)


def _is_rotated(path: str, paths: Sequence[str]) -> bool:
    """`x.log.1` beside `x.log`: it is complete."""
    stem, _, number = path.rpartition(".")
    return number.isdigit() and stem in paths
