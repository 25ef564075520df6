"""v1: follow processes that are in a job's memory group, but no longer in the companion group that says when it is empty.

A job of root's can leave one hierarchy's group and stay in the other's, and root can put a process into one of them only. Then the
companion's "populated 0" is not the end of the job, and the kernel tells nothing more. So one of the processes that are left is
followed through a pidfd, which polls readable when it ends; then the next one is, until nobody is left.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup.ears import READABLE
from memrun.cgroup.files import surely

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.ears import Ears


class Strays:
    """Of one group. The pidfd is registered with the group's own news."""

    __slots__ = ("_ears", "_fd", "_pid")

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._fd = self._pid = -1

    def follow(self, pids: list[int]) -> bool:
        """Follow one of these processes from now on; False where all of them have ended."""
        if self._pid in pids and not _has_ended(self._fd):
            return True
        self.drop()
        unknown = False
        for pid in pids:
            try:
                fd = surely(lambda pid=pid: os.pidfd_open(pid))  # type: ignore[misc]
            except OSError as e:
                unknown = unknown or e.errno != errno.ESRCH
                continue
            if _has_ended(fd):  # not reaped yet
                os.close(fd)
                continue
            self._fd, self._pid = self._ears.add(fd, READABLE), pid
            return True
        return unknown

    def drop(self) -> None:
        """Follow nobody."""
        fd, self._fd, self._pid = self._fd, -1, -1
        self._ears.drop(fd)


def _has_ended(pidfd: int) -> bool:
    import select

    look = select.poll()
    look.register(pidfd, select.POLLIN)
    return bool(look.poll(0))
