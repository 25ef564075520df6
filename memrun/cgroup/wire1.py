"""A v1 job's trip wire: a usage threshold a little below its limit, heard through an eventfd.

To register one waits for the kernel's RCU (36 ms in the median of 60 on two busy CPUs, 113 at most), and a job that was raised must not
run without one for so long. So where raises are foreseen their wires are strung beforehand, by a forked copy of ours that
may wait: an eventfd is the same one in both, and the registration lasts until the last of them is closed. Several raises, because a job
that has doubled its limit once may do so again in less time than that.
"""

from __future__ import annotations

import os

from memrun.cgroup import steep_gap
from memrun.cgroup.ears import READABLE
from memrun.cgroup.eventfd import count, listen, register
from memrun.units import whole_pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup.ears import Ears
    from memrun.cgroup.files import Dir

FILE = "memory.usage_in_bytes"


class Wire:
    """The wire as it is now, and those that come next."""

    __slots__ = ("_begun", "_coming", "_ears", "_group", "at", "fd")

    def __init__(self, group: Dir, ears: Ears) -> None:
        """`ears`: by which the wire is heard, this one and those that follow."""
        self._group, self._ears = group, ears
        self.at: int | None = None
        self.fd = -1
        self._coming: dict[int, int] = {}  # limit: eventfd, of those that are strung
        self._begun: dict[int, int] = {}  # and of those that are being strung

    def string(self, limit: int | None) -> None:
        """A new one, before the old one is dropped; None: none any more."""
        before, self.fd, self.at = self.fd, -1, None
        if limit is not None:
            self.at = limit - steep_gap(limit)
            fd = self._taken(limit)
            self.fd = self._ears.add(fd if fd >= 0 else listen(self._group, FILE, str(self.at)), READABLE)
        self._ears.drop(before)  # a registration ends with its eventfd

    def _taken(self, limit: int) -> int:
        """Those for less are of no use any more, nor are those that were foreseen from another limit: `foresee` will drop them."""
        fd = self._coming.pop(limit, -1)
        count(fd)
        return fd

    def foresees(self, limit: int) -> bool:
        """Whether there would be a wire at once."""
        return whole_pages(limit) in self._coming

    def foresee(self, limits: tuple[int, ...]) -> tuple[Callable[[], None], Callable[[], None]] | None:
        """What a copy of ours is to do for raises to these limits, and what to call when it has. The next one first, alone; the others, whose
        turn comes later, when half of them are wanted: each copy is a fork."""
        wanted = [whole_pages(limit) for limit in limits]
        for limit in [limit for limit in self._coming if limit not in wanted]:
            os.close(self._coming.pop(limit))
        self._drop(self._begun)
        missing = [limit for limit in wanted if limit not in self._coming]
        if missing and missing[0] == wanted[0]:
            del missing[1:]
        elif 2 * len(missing) < len(wanted):
            return None
        if not missing:
            return None
        begun = self._begun = {limit: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for limit in missing}
        return lambda: self._register(begun), self._foreseen

    def _register(self, fds: dict[int, int]) -> None:
        for limit, fd in fds.items():
            register(self._group, fd, FILE, str(limit - steep_gap(limit)))

    def _foreseen(self) -> None:
        self._coming |= self._begun
        self._begun = {}

    def tripped(self) -> bool:
        """Whether it was since the last look."""
        return count(self.fd) > 0

    def _drop(self, fds: dict[int, int]) -> None:
        for fd in fds.values():
            os.close(fd)
        fds.clear()

    def close(self) -> None:
        self._ears.drop(self.fd)
        self.fd = -1
        self._drop(self._coming)
        self._drop(self._begun)
