"""Who belongs to a job that has no group: all that descends from who was started in it, also what has been orphaned since.

An orphan's new parent is the nearest "subreaper" above it: memrun's own outer process (adoption.py), whose other children are
nobody else's. Where there is none, an orphan is known from an earlier look, or lost.

Stopping is repeated until a look finds nobody new: a stopped process does not fork, so that every round leaves fewer who can.
"""

from __future__ import annotations

import os
import time

from memrun import kin, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.board import Board

SHARE = 9  # pauses between looks at all processes are at least so many times as long as such a look
ROUNDS = 50  # of stopping, before it is said that it is not done yet
UNBORN = "memrun-launch"  # a child of memrun's that has not become the command yet (launch.UNBORN): what it has is memrun's
LOADAVG = "/proc/loadavg"  # its last field is the latest pid: the same one again means that nobody was born


class Members:
    """One process's view of them. `adopter`: whose orphans are the job's (0: nobody's); `keeper`: its one child that is not."""

    __slots__ = ("_again", "_board", "_latest", "_mark", "adopter", "keeper", "known")

    def __init__(self, board: Board, adopter: int = 0, keeper: int = 0, mark: str = "") -> None:
        self._board, self._mark = board, mark
        self.adopter, self.keeper = adopter, keeper
        self.known: dict[int, int] = {}  # pid -> when it was born
        self._latest = b""
        self._again = 0.0

    def look(self, *, thrifty: bool = False) -> list[int]:
        """All of them that are alive, parents before children. `thrifty`: who was there before, unless somebody was born since; and
        no more than a tenth of a processor for that."""
        began = time.monotonic()
        if thrifty and (began < self._again or not self._anybody_new()):
            return [pid for pid in self.known if self._lives(pid)]
        table = kin.look()
        below: dict[int, list[int]] = {}
        for one in table.values():
            below.setdefault(one.parent, []).append(one.pid)
        mine = table.get(self.keeper)
        adopts = (
            bool(self.adopter) and mine is not None and mine.parent == self.adopter
        )  # else it is dead, and its pid may be anybody's
        adopted = [pid for pid in below.get(self.adopter, []) if pid != self.keeper] if adopts else []
        queue = [pid for pid, born in (self._board.roots() | self.known).items() if pid in table and table[pid].born == born]
        queue += adopted
        found: dict[int, int] = {}
        while queue:
            pid = queue.pop(0)
            if pid not in found:
                found[pid] = table[pid].born
                queue += below.get(pid, [])
        self.known = {pid: born for pid, born in found.items() if not table[pid].ended}
        now = time.monotonic()
        self._again = now + (now - began) * SHARE
        return list(self.known)

    def find_strays(self) -> None:
        """Who was orphaned since the latest look, and has come to nobody of ours: known by a variable that only the job's have."""
        since = min(self._board.roots().values(), default=0)
        for one in kin.look().values() if self._mark and since else ():
            if one.born >= since and f"\0{self._mark}\0" in f"\0{kin.slurp(one.pid, 'environ')}":
                self.known[one.pid] = one.born

    def _anybody_new(self) -> bool:
        with open(LOADAVG, "rb", buffering=0) as f:
            latest = f.read().rpartition(b" ")[2]
        before, self._latest = self._latest, latest
        return before != latest

    def _lives(self, pid: int) -> bool:
        one = kin.read(pid)
        return one is not None and one.born == self.known[pid] and not one.ended

    def memory(self, pids: list[int]) -> dict[int, int]:
        """Bytes of each: its share of what it has in common with others, no page cache, swap included."""
        unborn = {pid for pid in self._board.roots() if kin.slurp(pid, "comm").strip() == UNBORN}
        return {pid: kin.memory(pid) for pid in pids if pid not in unborn}

    def stop(self) -> bool:
        """SIGSTOP to all; True when none runs."""
        seen: set[int] = set()
        for _ in range(ROUNDS):
            found = self.look()
            running = [pid for pid in found if not _is_stopped(pid)]
            for pid in running:
                send(pid, signals.STOP)
            if seen.issuperset(found):
                return not running
            seen.update(found)
        return False

    def go_on(self) -> None:
        """SIGCONT to all."""
        for pid in self.look():
            send(pid, signals.CONT)

    def kill(self) -> int:
        """SIGKILL to all, who cannot fork meanwhile; how many there were."""
        self.stop()
        seen: set[int] = set()
        for _ in range(ROUNDS):
            fresh = set(self.look()) - seen
            if not fresh:
                break
            for pid in fresh:
                send(pid, signals.KILL)
            seen |= fresh
        return len(seen)


def send(pid: int, number: int) -> None:
    """Who is gone is gone; and who has become somebody else is out of our reach, as a kernel's group would not be."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _is_stopped(pid: int) -> bool:
    one = kin.read(pid)
    return one is None or one.state in "TtZX"
