"""A log file with a bound: `x.log`, and the older `x.log.1` (the youngest), `x.log.2`, ...

No file ever has more than `most` bytes; a line is torn in two only if it is longer than that, or its beginning was written already. Every write looks first whether
the file is still there under its name (deleted, moved by logrotate, in a directory that is gone: it is made anew) and how long
it is, so that others may write to it, truncate or rotate it too.

What cannot be written (no space, quota, I/O, permission, whatever it is) is dropped and counted: the job must not wait. The next text
that can be written comes after one line that says how much is missing and why.

The last component of the path is never followed if it is a symbolic link, for the directory may be somebody else's. Of a job that
runs as another user (`who`) the files are that user's: made, opened and renamed with that user's rights.
"""

from __future__ import annotations

import errno
import os
import stat

from memrun.errors import MemrunError
from memrun.identity import acting_as, as_whom, opened_as

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.identity import Identity

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})  # may be over in a while: no reason not to start a job
GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})


def plain(path: str, who: Identity | None = None) -> int:
    """A descriptor of the file, for a job to write to; MemrunError where it cannot be opened."""
    try:
        fd = _open(path, who)
    except OSError as e:
        raise _complaint(path, e, who) from None
    os.set_blocking(fd, True)  # a pipe without a reader was not to be waited for; what the job does with it is its own affair
    return fd


def _open(path: str, who: Identity | None) -> int:
    try:
        return opened_as(who, path, APPEND, 0o644)
    except FileNotFoundError:
        acting_as(who, lambda: os.makedirs(os.path.dirname(path) or ".", 0o755, exist_ok=True))
        return opened_as(who, path, APPEND, 0o644)


def _complaint(path: str, e: OSError, who: Identity | None) -> MemrunError:
    remedies = {
        errno.ELOOP: "It is a symbolic link, and those are not written through: name the file itself",
        errno.ENXIO: "It is a named pipe that nobody reads",
        errno.EINVAL: "Leave out its largest size",
    }
    return MemrunError(f"cannot write the log {path}{as_whom(who)}: {e.strerror}", remedies.get(e.errno or 0, ""))


class Rotated:
    """The file and its bound. `lost`: bytes that could not be written, in all."""

    __slots__ = ("_fd", "_key", "_size", "_unsaid", "_who", "_whole", "_why", "keep", "lost", "most", "path")

    def __init__(self, path: str, most: int, keep: int, who: Identity | None = None) -> None:
        self._who = who
        self.path, self.most, self.keep, self.lost = path, max(1, most), keep, 0
        self._fd, self._key, self._size = -1, (0, 0), 0
        self._whole = True  # what was written last ended a line
        self._unsaid, self._why = 0, ""
        try:
            self._reopen()
        except OSError as e:
            if e.errno not in FULL:
                raise _complaint(path, e, who) from None

    def take(self, data: bytes) -> None:
        """Write it, or what can be written of it."""
        left = lasting = self._lasting(data)
        try:
            self._look()
            if self._unsaid:
                self._say()
            while left:
                left = left[self._write(left) :]
        except (OSError, MemrunError) as e:
            missing = len(left) + len(data) - len(lasting)
            self.lost += missing
            self._unsaid += missing
            self._why = (e.strerror if isinstance(e, OSError) else "") or str(e)

    def close(self) -> str:
        """Say what is missing: in the file, if that can be by now, else by what is returned."""
        if self._unsaid:
            self.take(b"")
        self._shut()
        return f"{self._unsaid} bytes of output are missing in {self.path}: {self._why}" if self._unsaid else ""

    def _lasting(self, data: bytes) -> bytes:
        """Without what the rest of it would rotate away at once: a rotation is a quarter of a millisecond of the file system's, and 64 KiB
        would be sixteen of them where a file holds 4 KiB."""
        span = (self.keep + 2) * self.most  # the oldest of that many files is gone; one more, because they may not get full
        if len(data) <= span:
            return data
        return data[data.find(b"\n", len(data) - span, len(data) - span + self.most) + 1 or len(data) - span :]

    def _write(self, data: bytes) -> int:
        """How many bytes of it were written; 0: a new file has been begun."""
        cut = self._fitting(data)
        if not cut:
            self._rotate()
            return 0
        done = os.write(self._fd, data[:cut])
        self._size += done
        self._whole = data[done - 1] == ord("\n")
        return done

    def _fitting(self, data: bytes) -> int:
        """Whole lines, if there is room for one; a part of one only where nothing else is in the file, or its beginning is."""
        room = self.most - self._size
        if len(data) <= room:
            return len(data)
        if room <= 0:
            return 0
        return data.rfind(b"\n", 0, room) + 1 or (0 if self._whole and self._size else room)

    def _say(self) -> None:
        """All of it or nothing."""
        text = ("" if self._whole else "\n") + f"memrun: {self._unsaid} bytes of output are missing here: {self._why}\n"
        if len(text) <= self.most:
            if len(text) > self.most - self._size:
                self._rotate()
            done = os.write(self._fd, text.encode())
            if done < len(text):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += done
        self._unsaid, self._whole = 0, True

    def _look(self) -> None:
        """Take the file that has its name now, as long as it is now."""
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except OSError as e:
            if e.errno not in GONE:
                raise
            self._reopen()
            return
        if self._fd < 0 or (found.st_dev, found.st_ino) != self._key:
            self._reopen()
        elif found.st_size < self._size:
            self._size, self._whole = found.st_size, True
        else:
            self._size = found.st_size

    def _reopen(self) -> None:
        self._shut()
        fd = _open(self.path, self._who)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a file that could be rotated")
        self._fd, self._key, self._size = fd, (found.st_dev, found.st_ino), found.st_size
        self._whole = self._whole or not found.st_size

    def _shut(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rotate(self) -> None:
        if self.keep < 1:
            os.ftruncate(self._fd, 0)
            self._size, self._whole = 0, True
            return
        acting_as(self._who, self._rename)
        self._reopen()

    def _rename(self) -> None:
        for n in range(self.keep - 1, 0, -1):
            _move(f"{self.path}.{n}", f"{self.path}.{n + 1}")
        _move(self.path, f"{self.path}.1")


def _move(old: str, new: str) -> None:
    try:
        os.replace(old, new)
    except FileNotFoundError:
        return
