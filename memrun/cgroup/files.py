"""The one door to the kernel's control files.

Everything is relative to a directory's own descriptor: a name may be reborn as another group, a descriptor may not
(oomd learned this the hard way). The groups of jobs are named below a run directory that is held: its names are ours alone
and used once, and a descriptor for each directory of thousands of jobs would be most of what a process may have. Each call is one open and one
read or write: the kernel takes a value in one piece. Errors name the operation, the path *and the data written*; an errno alone has sent
many people the wrong way.

Somebody else may have used up the last descriptor, and a job is to be frozen or killed all the same: some are kept back for that.
"""

from __future__ import annotations

import errno
import os

from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Opened = TypeVar("Opened")

_WRITE = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
LEAF = 2  # links
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
KEPT = 6  # descriptors: a control file, and the groups above it in a subtree that is being walked through
_wanted, _kept = [0], list[int]()


def keep_back() -> None:
    """From now on, for as long as this process lives: when all descriptors are in use, there are some for what is opened and closed here."""
    _wanted[0] = KEPT
    _fill()


def _fill() -> None:
    try:
        while len(_kept) < _wanted[0]:
            _kept.append(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError:
        return  # when the next one is closed


def _open(path: str, flags: int, above: int | None = None) -> int:
    return surely(lambda: os.open(path, flags, dir_fd=above))


def surely(act: Callable[[], Opened]) -> Opened:
    """What takes one descriptor, from those that were kept back if there is no other."""
    try:
        return act()
    except OSError as e:
        if e.errno != errno.EMFILE or not _kept:
            raise
        os.close(_kept.pop())
        return act()


def close(fd: int) -> None:
    """And there is one to be kept back again."""
    os.close(fd)
    if len(_kept) < _wanted[0]:
        _fill()


class Dir:
    """One directory of a cgroup hierarchy: held open, or named below one that is."""

    __slots__ = ("_above", "_at", "_fd", "path")

    def __init__(self, path: str, above: Dir | None = None) -> None:
        """`above`: what holds it, for as long as it does; it is not looked for then."""
        self.path, self._above = path, above
        self._at = "" if above is None else path.rpartition("/")[2] + "/"
        self._fd = -1
        if above is None:
            try:
                self._fd = _open(path, _DIRECTORY)
            except OSError as e:
                raise GroupError("open", path, e.errno or errno.EIO) from None

    @property
    def fd(self) -> int:
        """Of the directory that is held; -1 once it is not."""
        return self._fd if self._above is None else self._above.fd

    def close(self) -> None:
        """Let go of the directory; twice is once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            close(fd)

    def has(self, name: str) -> bool:
        """Whether the control file exists: what a kernel offers is asked for, never inferred from its version."""
        try:
            os.stat(self._at + name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def open(self, name: str, flags: int = _READ) -> int:
        """A descriptor of a control file."""
        try:
            return _open(self._at + name, flags, self.fd)
        except OSError as e:
            raise GroupError("open", f"{self.path}/{name}", e.errno or errno.EIO) from None

    def itself(self) -> int:
        """A descriptor of the directory, for who asked."""
        return self.open(".", _DIRECTORY)

    def read(self, name: str) -> str:
        """The whole file."""
        fd = self.open(name)
        try:
            return read_all(fd)
        except OSError as e:
            raise GroupError("read", f"{self.path}/{name}", e.errno or errno.EIO) from None
        finally:
            close(fd)

    def write(self, name: str, data: str, flags: int = 0) -> None:
        """One write(2) of the whole value."""
        fd = self.open(name, _WRITE | flags)
        try:
            os.write(fd, data.encode())
        except OSError as e:
            raise GroupError("write", f"{self.path}/{name}", e.errno or errno.EIO, data) from None
        finally:
            close(fd)

    def mkdir(self, name: str, *, held: bool = True) -> Dir:
        """Make a directory below this one, and open it unless it is not to be `held`: named, for as long as this one is."""
        try:
            os.mkdir(self._at + name, 0o755, dir_fd=self.fd)
        except OSError as e:
            raise GroupError("make", f"{self.path}/{name}", e.errno or errno.EIO) from None
        if not held:
            return Dir(f"{self.path}/{name}", self)
        try:
            return Dir(f"{self.path}/{name}")
        except GroupError:  # no descriptor was left: what nobody knows of, nobody would remove
            self.rmdir(name)
            raise

    def rmdir(self, name: str) -> None:
        """Remove an empty group below this one. One that is gone already is removed."""
        try:
            os.rmdir(self._at + name, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except OSError as e:
            raise GroupError("remove", f"{self.path}/{name}", e.errno or errno.EIO) from None

    def is_leaf(self) -> bool:
        """Whether it is known to have no groups below. Where links are not counted (1), that is never known."""
        try:
            return os.stat(self._at or ".", dir_fd=self.fd).st_nlink == LEAF
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
            fd = _open(self._at + ".", _DIRECTORY, self.fd)
        except OSError:
            return []
        try:
            with surely(lambda: os.scandir(fd)) as entries:  # it makes a copy
                return [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            return []
        finally:
            close(fd)


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
