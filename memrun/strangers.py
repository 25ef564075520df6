"""Processes that memrun did not start: who may be attached, and how their end is seen.

They are named by number, which may be reborn: so each is held by a pidfd before it is looked at. Everybody who cannot be attached
is told so in one sentence, before anything is changed.
"""

from __future__ import annotations

import os
import select

from memrun import kin, signals
from memrun.cgroup import detect, homes
from memrun.errors import RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Strangers:
    """The processes that were named, as `job.Process` has it. `pidfd` is readable when one of them has ended."""

    __slots__ = ("_alive", "_ends", "killed", "left", "pid", "pidfd", "rusage", "status")

    def __init__(self, pids: Sequence[int]) -> None:
        self.pid = pids[0]
        self.left: list[int] = []
        self.status: int | None = None
        self.rusage: tuple[float, int] | None = None
        self.killed = False
        self._alive: dict[int, int] = {}  # pidfd -> pid
        self._ends = select.epoll()
        self.pidfd = self._ends.fileno()
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except OSError:
                self.close()
                raise RefusedError(f"there is no process {pid}") from None
            self._alive[fd] = pid
            self._ends.register(fd, select.EPOLLIN)

    def reap(self) -> int | None:
        """0 once all have ended; None while one runs."""
        for fd, _ in self._ends.poll(0) if self._alive else ():
            self._ends.unregister(fd)
            os.close(fd)
            del self._alive[fd]
        self.status = None if self._alive else 0
        return self.status

    def signal(self, number: int) -> None:
        """To each that is still there."""
        self.killed = self.killed or number == signals.KILL
        for fd in self._alive:
            try:
                signals.send_pidfd(fd, number)
            except (ProcessLookupError, PermissionError):
                continue

    def named(self) -> list[int]:
        """Those that are still there."""
        self.reap()
        return list(self._alive.values())

    def close(self) -> None:
        """Let go of the descriptors; twice is once."""
        for fd in self._alive:
            os.close(fd)
        self._alive.clear()
        self._ends.close()


def find(pids: Sequence[int]) -> Strangers:
    """The named processes, held by descriptors; RefusedError for the first that cannot be attached. Nothing is changed."""
    for pid in pids:
        _refuse_by_number(pid)
    found = Strangers(pids)
    try:
        table = kin.look()
        above = [os.getpid(), *kin.ancestors(table, os.getpid())]
        for pid in pids:
            _refuse_named(table.get(pid), pid, above)
        for pid in kin.Family(pids, table).look(table):
            refuse_anybody(pid, groups_of(pid))
    except BaseException:
        found.close()
        raise
    return found


def _refuse_by_number(pid: int) -> None:
    if pid == 1:
        raise RefusedError("process 1 is the init of this machine (or container): it stays where it is")
    status = kin.slurp(pid, "status").splitlines()
    leader = next((int(line.split()[1]) for line in status if line.startswith("Tgid:")), pid)
    if leader != pid:
        raise RefusedError(f"{pid} is a thread of process {leader}", f"Attach {leader}: a process has one memory")


def _refuse_named(one: kin.Process | None, pid: int, above: list[int]) -> None:
    if one is None:
        raise RefusedError(f"there is no process {pid}")
    if one.flags & kin.KERNEL_THREAD:
        raise RefusedError(f"{pid} ({one.name}) is a kernel thread: it cannot be limited")
    if pid == above[0]:
        raise RefusedError(f"{pid} is this memrun itself")
    if pid in above:
        raise RefusedError(f"{pid} ({one.name}) is an ancestor of this memrun, which would limit itself")
    if one.ended:
        raise RefusedError(f"process {pid} ({one.name}) has ended already")


def refuse_anybody(pid: int, groups: dict[str, str]) -> None:
    """RefusedError where this process, named or descended from one that is, cannot be limited by us."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        raise RefusedError(f"process {pid} ({name_of(pid)}) belongs to another user") from None
    except ProcessLookupError:
        return
    for keeper in homes.keepers(groups, detect.own()):
        said = f"process {pid} ({name_of(pid)}) is under another memrun already (pid {keeper})"
        raise RefusedError(said, "To change its limit: memrun ps, then memrun raise NAME SIZE")


def groups_of(pid: int) -> dict[str, str]:
    """Its group in each hierarchy, as `detect.own` has it; empty once it has ended.

    On v1 a thread that is exiting is shown in the root groups already, wherever it was: so it is looked at once more, and
    where only the first thread has ended, another one tells.
    """
    groups, one = detect.own(pid), kin.read(pid)
    if one is None or one.ended:
        return {}
    return detect.own(f"{pid}/task/{kin.another_thread(pid)}") if one.exiting else groups


def name_of(pid: int) -> str:
    """Its name, for people."""
    return kin.slurp(pid, "comm").strip()
