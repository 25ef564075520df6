"""The latest of what was written, on disk and with a bound: two files that take turns, so that at least one file's worth is there.

They have no names: nothing of them is left behind, however memrun ends. In TMPDIR, or /var/tmp (which, unlike /tmp, is no memory). What cannot be
written (a full disk) is dropped and counted.
"""

from __future__ import annotations

import os

from memrun.errors import MemrunError

MOST = 1 << 20  # bytes of a file
SHOWN = 1 << 16  # bytes that are looked at for the last lines


class Ring:
    """As output.Target has it. `lines` and `size` are of all that ever came."""

    __slots__ = ("_at", "_files", "_most", "_used", "lines", "lost", "size")

    def __init__(self, most: int = MOST) -> None:
        self._files = (_nameless(), _nameless())
        self._at, self._most, self._used = 0, most, [0, 0]
        self.size = self.lines = self.lost = 0

    def take(self, data: bytes) -> None:
        """Keep it."""
        self.size += len(data)
        self.lines += data.count(b"\n")
        while data:
            if self._used[self._at] >= self._most:
                self._turn()
            used = self._used[self._at]
            try:
                done = os.pwrite(self._files[self._at], data[: self._most - used], used)
            except OSError:
                self.lost += len(data)
                return
            self._used[self._at] += done
            data = data[done:]

    def _turn(self) -> None:
        self._at ^= 1
        self._used[self._at] = 0
        os.ftruncate(self._files[self._at], 0)

    def tail(self, lines: int) -> list[bytes]:
        """The last lines, without their ends; the first of them may have lost its beginning."""
        data = self._last(self._at, SHOWN)
        if len(data) < SHOWN:
            data = self._last(self._at ^ 1, SHOWN - len(data)) + data
        return data.removesuffix(b"\n").split(b"\n")[-lines:] if data and lines else []

    def _last(self, which: int, most: int) -> bytes:
        used = self._used[which]
        return os.pread(self._files[which], min(used, most), max(0, used - most))

    def close(self) -> str:
        """Forget it all. Nothing of it is missing anywhere."""
        for fd in self._files:
            os.close(fd)
        return ""


def _nameless() -> int:
    for place in (os.environ.get("TMPDIR", ""), "/var/tmp", "/tmp", "."):  # noqa: S108  (a file without a name is nobody's target)
        if place:
            fd = _nameless_in(place)
            if fd >= 0:
                return fd
    raise MemrunError("there is no place for a temporary file", "Set TMPDIR to a directory that can be written to")


def _nameless_in(place: str) -> int:
    """-1 where there can be none."""
    try:
        return os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        pass  # not every file system has such files
    name = f"{place}/memrun-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.unlink(name)
    except OSError:
        return -1
    return fd
