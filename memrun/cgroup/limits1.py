"""v1's two limits: memory alone, and memory with swap (memsw), where the kernel counts swap."""

from __future__ import annotations

from memrun.cgroup.files import number
from memrun.errors import LimitError
from memrun.units import whole_pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.files import Dir

UNLIMITED = whole_pages((1 << 63) - 1)  # what v1 prints for "no limit"
CLOSE = 64 << 10  # what the kernel charges for itself can fail some pages below the limit
MEMORY, MEMSW = "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"


def put(group: Dir, limit: int | None, memsw: tuple[int | None, ...], *, fresh: bool, up: bool) -> int | None:
    """Set both (`memsw` empty: there is none), and read the first one back: bytes, None is infinity. `fresh`: nothing was set yet; `up`: it is more
    than before. memory <= memsw at every moment, or EINVAL: up from the outer file, down from the inner one."""
    both = [(MEMORY, limit), *((MEMSW, value) for value in memsw)]
    if up:
        both.reverse()
    if not (fresh and limit is None):
        for file, value in both:
            group.write(file, str(-1 if value is None else value))
    return _read_back(group, limit)


def _read_back(group: Dir, asked: int | None) -> int | None:
    got = number(group.read(MEMORY))
    effective = None if got is None or got >= UNLIMITED else got
    wanted = None if asked is None or asked >= UNLIMITED else whole_pages(asked)
    if effective != wanted:
        raise LimitError(f"the kernel made {got} of a limit of {asked} bytes in {group.path}")
    return effective


class Touched:
    """Whether a group has ever used all of its limit. No event tells of a charge that fails inside a system call there, and failcnt counts nothing
    where no swap is allowed (6.18): the peak tells. A job whose page cache fills its limit has touched it, too."""

    __slots__ = ("_group", "_past", "_touched")

    def __init__(self, group: Dir) -> None:
        self._group, self._past, self._touched = group, 0, False

    def look(self, limit: int | None) -> bool:
        """At the limit until now. What was used at an earlier, larger limit does not count."""
        peak = int(self._group.read("memory.max_usage_in_bytes"))
        if limit is not None and peak > self._past and peak + CLOSE >= limit:
            self._touched = True
        self._past = peak
        return self._touched
