"""Where running processes are, and how they get there and back: for processes that memrun did not start.

A process is in one group of each hierarchy. Those that memrun's own groups are in (memory; on v1 the companions beside it,
too) are left for a while, and come back to: each process into the group that it came from. Whether a group would take a
process back is asked before it leaves, by writing its number where it already is: the kernel checks what it would check
later (permissions; on v2 that the group is no inner node, EBUSY) and moves nothing. Where a group has gone meanwhile, the nearest one
above that takes processes is next: on v2 that can be far up, because inner nodes take none.

Memory does not follow, except on v1 kernels that still have move_charge_at_immigrate: writing it is EINVAL since 6.13, and v2 never
had it. What a process has was charged where it was, and stays so.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import detect
from memrun.cgroup.files import Dir
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PROCS = "cgroup.procs"
CARRY = "memory.move_charge_at_immigrate"
ANON_AND_MAPPED = "3"


class Hierarchy:
    """One hierarchy in which memrun has a run directory, and the way to a process's group in it."""

    __slots__ = ("_key", "_mount", "run")

    def __init__(self, run: str, mount: detect.Mount, key: str) -> None:
        self.run, self._mount, self._key = run, mount, key

    def home(self, groups: dict[str, str]) -> str | None:
        """The directory of a process's group, from what `detect.own` says of it; None where it cannot be seen from here."""
        path = groups.get(self._key)
        return None if path is None else self._mount.place(path)

    def put(self, pid: int, home: str) -> bool:
        """Into this group, or the nearest one above that takes it. False where none does; who has ended is no failure."""
        place = home
        while place == self._mount.point or place.startswith(self._mount.point.rstrip("/") + "/"):
            for _ in range(2):  # what fails once is no reason to be elsewhere for good
                if _write(place, pid) in {0, errno.ESRCH}:
                    return True
            place = place.rpartition("/")[0]
        return False

    def holds(self, groups: dict[str, str]) -> bool:
        """Whether a process is in one of our groups."""
        return f"{self.home(groups) or ''}/".startswith(f"{self.run}/")


def hierarchies(runs: Iterable[str]) -> list[Hierarchy]:
    """The hierarchies of these run directories (which need not exist yet), in their order."""
    mounts = sorted(detect.mounts(), key=lambda mount: len(mount.point), reverse=True)  # the innermost first
    keys = detect.own()
    found = []
    for run in runs:
        mount = next(m for m in mounts if run.startswith(m.point.rstrip("/") + "/"))
        key = "" if mount.kind == "cgroup2" else next(k for k in keys if k and k in mount.options)
        found.append(Hierarchy(run, mount, key))
    return found


def refusal(pid: int, home: str) -> str:
    """Why a process could not come back to the group that it is in; '' where it could."""
    failed = _write(home, pid)
    if failed in {0, errno.ESRCH}:
        return ""
    if failed == errno.EBUSY:
        return (
            f"{home} would not take it back: controllers are enabled for the groups below it, and it takes no processes (EBUSY)"
        )
    if failed in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"it could not be put back: {home} may not be written to"
    return f"{home} would not take it back: {os.strerror(failed)}"


def _write(place: str, pid: int) -> int:
    """0, or the errno."""
    try:
        group = Dir(place)
    except GroupError as e:
        return e.errno
    try:
        group.write(PROCS, str(pid))
    except GroupError as e:
        return e.errno
    finally:
        group.close()
    return 0


def enter(procs_fds: Iterable[int], pid: int) -> int:
    """Move a process into the group that these descriptors are of; 0, or the errno of the first that failed."""
    for fd in procs_fds:
        try:
            os.write(fd, str(pid).encode())
        except OSError as e:
            return e.errno or errno.EIO
    return 0


def carries(path: str) -> bool:
    """Whether what processes have in memory comes with them into this group; asked for, where this kernel can do it."""
    group = Dir(path)
    try:
        if group.has(CARRY):
            group.write(CARRY, ANON_AND_MAPPED)
            return True
    except GroupError:
        return False
    finally:
        group.close()
    return False


def wake(path: str) -> None:
    """Whoever was parked at the limit of this group (v1) and has left it parked goes on."""
    group = Dir(path)
    try:
        if group.has("memory.oom_control"):
            group.write("memory.oom_control", "0")
    except GroupError:
        return
    finally:
        group.close()


def keepers(groups: dict[str, str], ours: dict[str, str]) -> set[int]:
    """The memruns that a process is under and we are not, from its groups and our own."""
    return _memruns(groups) - _memruns(ours)


def _memruns(groups: dict[str, str]) -> set[int]:
    found = set()
    for part in {part for path in groups.values() for part in path.split("/")}:
        match part.split("-"):
            case ["memrun", "self", pid] | ["memrun", pid, _] if pid.isdecimal():
                found.add(int(pid))
    return found
