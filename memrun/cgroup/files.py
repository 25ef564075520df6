"""The one door to the kernel's control files.

Everything is relative to a directory's own descriptor: a name may be reborn as another group, a descriptor may not
(oomd learned this the hard way). Each call is one open and one read or write: the kernel takes a value in one piece.
Errors name the operation, the path *and the data written*; an errno alone has sent many people the wrong way.
"""

from __future__ import annotations

import errno
import os

from memrun.errors import GroupError

_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
LEAF = 2  # links
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Dir:
    """One directory of a cgroup hierarchy, held open."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise GroupError("open", path, e.errno or errno.EIO) from None

    def close(self) -> None:
        """Let go of the directory; twice is once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def has(self, name: str) -> bool:
        """Whether the control file exists: what a kernel offers is asked for, never inferred from its version."""
        try:
            os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def open(self, name: str, flags: int = _READ) -> int:
        """A descriptor of a control file."""
        try:
            return os.open(name, flags, dir_fd=self.fd)
        except OSError as e:
            raise GroupError("open", f"{self.path}/{name}", e.errno or errno.EIO) from None

    def read(self, name: str) -> str:
        """The whole file."""
        fd = self.open(name)
        try:
            return read_all(fd)
        except OSError as e:
            raise GroupError("read", f"{self.path}/{name}", e.errno or errno.EIO) from None
        finally:
            os.close(fd)

    def write(self, name: str, data: str, flags: int = 0) -> None:
        """One write(2) of the whole value."""
        fd = self.open(name, _WRITE | flags)
        try:
            os.write(fd, data.encode())
        except OSError as e:
            raise GroupError("write", f"{self.path}/{name}", e.errno or errno.EIO, data) from None
        finally:
            os.close(fd)

    def mkdir(self, name: str) -> Dir:
        """Make and open a directory below this one."""
        try:
            os.mkdir(name, 0o755, dir_fd=self.fd)
        except OSError as e:
            raise GroupError("make", f"{self.path}/{name}", e.errno or errno.EIO) from None
        try:
            return Dir(f"{self.path}/{name}")
        except GroupError:  # no descriptor was left: what nobody knows of, nobody would remove
            self.rmdir(name)
            raise

    def rmdir(self, name: str) -> None:
        """Remove an empty group below this one. One that is gone already is removed."""
        try:
            os.rmdir(name, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except OSError as e:
            raise GroupError("remove", f"{self.path}/{name}", e.errno or errno.EIO) from None

    def is_leaf(self) -> bool:
        """Whether it is known to have no groups below. Where links are not counted (1), that is never known."""
        try:
            return os.fstat(self.fd).st_nlink == LEAF
        except OSError:
            return False

    def children(self) -> list[str]:
        """Names of the groups directly below; none where this one is gone.

        Reopened for each look: a listing through the held descriptor would move its shared offset. A directory with two links (its name
        and its '.') has none below: most groups are like that, and are looked at often.
        """
        if self.is_leaf():
            return []
        try:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return []
        try:
            with os.scandir(fd) as entries:
                return [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        finally:
            os.close(fd)


def read_all(fd: int) -> str:
    """Read a control file from its start, through a descriptor that stays open."""
    chunks = []
    offset = 0
    while chunk := os.pread(fd, 65536, offset):  # a short read is not the last: kernfs hands out whole records
        chunks.append(chunk)
        offset += len(chunk)
    return b"".join(chunks).decode(errors="replace")


def read_again(fd: int, path: str) -> str:
    """The same; GroupError names the path."""
    try:
        return read_all(fd)
    except OSError as e:
        raise GroupError("read", path, e.errno or errno.EIO) from None


def number(text: str) -> int | None:
    """One number as the kernel prints it; None for 'max'."""
    word = text.strip()
    return None if word == "max" else int(word)


def keyed(text: str) -> dict[str, int]:
    """A flat keyed file ('oom 3', a line each). Keys that a newer kernel adds are kept, lines of other shapes skipped."""
    pairs: dict[str, int] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.isdecimal():
            pairs[key] = int(value)
    return pairs


def pids_in(text: str) -> list[int]:
    """The numbers of a cgroup.procs file. 0 is a process outside of our pid namespace: nobody we can name."""
    return [pid for word in text.split() if word.isdecimal() and (pid := int(word))]
