"""Who descends from whom, as /proc tells it: one look at all processes at a time.

A look is no snapshot: processes fork and end while it is taken. So whoever needs all descendants looks again until there is nobody
new; and a child whose parent ended between two looks belongs to somebody else by then (init, or a subreaper). It is known by
what it keeps: its process group, and that it was born after the first look.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KERNEL_THREAD, EXITING = 0x00200000, 0x4  # PF_KTHREAD, PF_EXITING
SCORE = "oom_score_adj"
TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """What one line of /proc/PID/stat says. `born`: clock ticks since the machine was started."""

    __slots__ = ("born", "flags", "group", "name", "parent", "pid", "state")

    def __init__(self, line: str) -> None:
        head, _, tail = line.rpartition(")")
        pid, _, self.name = head.partition(" (")
        words = tail.split()
        self.pid = int(pid)
        self.state, self.parent, self.group = words[0], int(words[1]), int(words[2])
        self.flags, self.born = int(words[6]), int(words[19])

    @property
    def ended(self) -> bool:
        """Whether it is on its way out; the first thread of a process may end before the others, which looks the same."""
        return self.exiting and another_thread(self.pid) == self.pid

    @property
    def exiting(self) -> bool:
        """Whether its first thread is."""
        return bool(self.flags & EXITING) or self.state in "ZX"


def another_thread(pid: int) -> int:
    """One of its threads that is not the first; `pid` where there is no other."""
    try:
        return next((int(word) for word in os.listdir(f"/proc/{pid}/task") if word != str(pid)), pid)
    except OSError:
        return pid


def read(pid: int) -> Process | None:
    """One process (or thread); None where there is none."""
    line = slurp(pid, "stat")
    return Process(line) if line else None


def slurp(pid: int, file: str) -> str:
    """A file of a process, '' where it is gone or may not be read."""
    try:
        with open(f"/proc/{pid}/{file}", "rb", buffering=0) as f:
            return f.read().decode(errors="replace")
    except OSError:
        return ""


def look() -> dict[int, Process]:
    """All processes that there are now."""
    found = (read(int(word)) for word in os.listdir("/proc") if word.isdecimal())
    return {one.pid: one for one in found if one is not None}


def ancestors(table: dict[int, Process], pid: int) -> list[int]:
    """A process's parent, its parent, and so on."""
    found: list[int] = []
    while (one := table.get(pid)) is not None and one.parent and one.parent not in found:
        pid = one.parent
        found.append(pid)
    return found


class Family:
    """Some processes and all that descend from them, over several looks."""

    def __init__(self, named: Iterable[int], table: dict[int, Process]) -> None:
        self.known = {pid: table[pid].born for pid in named if pid in table}
        self._since = now()
        self._groups: set[int] = set()
        above = {above for pid in self.known for above in ancestors(table, pid)}
        self._adopters = above - {table[pid].parent for pid in self.known} | {1}  # a parent's other children are none of ours

    def look(self, table: dict[int, Process]) -> list[int]:
        """Every member that is there, parents before their children."""
        below: dict[int, list[int]] = {}
        for one in table.values():
            below.setdefault(one.parent, []).append(one.pid)
        orphans = [one.pid for one in table.values() if self._is_orphan(one)]
        queue = [
            pid for pid in [*self.known, *orphans] if pid in table and self.known.get(pid, table[pid].born) == table[pid].born
        ]
        found: dict[int, None] = {}
        while queue:
            pid = queue.pop(0)
            if pid not in found:
                found[pid] = None
                queue += below.get(pid, [])
        self.known |= {pid: table[pid].born for pid in found}
        self._groups |= {table[pid].group for pid in found}
        return [pid for pid in found if not table[pid].ended]

    def _is_orphan(self, one: Process) -> bool:
        return one.parent in self._adopters and one.group in self._groups and one.born >= self._since


def now() -> int:
    """The moment, in ticks as `Process.born` has them."""
    import time

    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICK)


def memory(pid: int) -> int:
    """Bytes that a process needs (no page cache): its share of what it has in common with others; swap counts."""
    shares = _fields(pid, "smaps_rollup", ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))
    return shares if shares is not None else _fields(pid, "status", ("RssAnon:", "RssShmem:", "VmSwap:")) or 0


def _fields(pid: int, file: str, keys: tuple[str, ...]) -> int | None:
    found = [int(line.split()[1]) << 10 for line in slurp(pid, file).splitlines() if line.startswith(keys)]
    return sum(found) if found else None


def command(pid: int) -> list[str]:
    """Its command line; the name in brackets where it has none."""
    words = slurp(pid, "cmdline").rstrip("\0").split("\0")
    return words if words != [""] else [f"[{slurp(pid, 'comm').strip()}]"]


def score(pid: int) -> int | None:
    """Its oom_score_adj."""
    text = slurp(pid, SCORE).strip()
    return int(text) if text else None


def set_score(pid: int, value: int) -> bool:
    """Change its oom_score_adj; False where it is gone, or we may not."""
    try:
        fd = os.open(f"/proc/{pid}/{SCORE}", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, str(value).encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
