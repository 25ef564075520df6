"""One job's group on v2: memory.max, memory.events, cgroup.kill.

Holding a job at its limit (nobody else does that on v2): memory.high is a trip wire a little below memory.max (see bare_gap).
The kernel slows the job there and wakes us; if what is charged is need and not page cache, the group is frozen, with its
work intact. A job that only fills the page cache also touches memory.high, all the time: it is left to the kernel's reclaim. So is one
that may swap, as long as there is swap for it and the kernel keeps it at the wire.
What a wire cannot stop is one system call that charges more than the gap before it comes back (MAP_POPULATE, mlock, one big
write to a tmpfs): where we may (CAP_SYS_RESOURCE), launch.py makes such a job immune to the OOM killer, so that the call
fails with ENOMEM or comes back short at memory.max instead of dying, and the 'oom' event freezes it all the same: it sees
its error, or goes on with the rest, when it is given more (mlock: EAGAIN, MAP_POPULATE: faults the rest in later, write: a
short count; a read(2) is slow enough to be held, and gets all its bytes). Without that right such a call is killed and
reported as oom-kill.

Measured at 20 MiB, raised to 40 and 80 by rule, through the command line. As root, on a User-Mode Linux 6.1: 1000 of 1000 held, none killed
(200 each of one thread, four, eight processes, 160 forks, one big mapping); on a 7.2, 360 of 360 (60 each of these and of one write to a
tmpfs); earlier, 20 each of tmpfs by 4 KiB, read(2), two threads beside a busy process, and 24 of 24 in an emulated machine with 2 CPUs.
As uid 1000, on 7.2: eight processes 200 of 200, 160 forks 120 of 120 where the group may divide the processor (ground.divide) and everything is
loaded before the launch; where it may not, jobs that fork so much may still be killed. dd of five times the limit, written and read
twice, on 6.1: 20 of 20 never paused, 1.27 times as long as in a group with nothing but memory.max (1.20 s, 0.94 s; from 0.3 to 2.9 s
on that busy machine).

Counting: memory.events is the subtree's (kills, wherever they happened), memory.events.local is this group's: its 'oom' counts
the times that *our* limit left no way out. A kill without any of those was decided above us.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import Heard, Tally, bare_gap, detect, grace, tree
from memrun.cgroup.ears import CHANGED, Ears
from memrun.cgroup.files import Dir, keyed, number, read_again
from memrun.errors import GroupError, LimitError
from memrun.units import whole_pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Order, Wish
    from memrun.cgroup.ears import Ear
    from memrun.cgroup.v2 import Host

MAX, HIGH, SWAP, FREEZE = "memory.max", "memory.high", "memory.swap.max", "cgroup.freeze"
LOCAL = "memory.events.local"  # since 5.2
SWAPPED_AT_ONCE = 1 << 20  # less than that is no room worth waiting for
WRITE = os.O_WRONLY | os.O_CLOEXEC


class Group:
    """One job's leaf."""

    version = "v2"

    def __init__(self, host: Host, leaf: Dir) -> None:
        self.path = leaf.path
        self.limit: int | None = None
        self._host = host
        self._leaf = leaf
        self.swap: int | None = 0
        self._hold = False
        self.wire: int | None = None
        self._touched = (0, 0)  # 'high' and 'oom' events that were looked into already
        self._bare = False  # nothing protects it from the OOM killer
        self._near = True  # at the last look it needed half of what it may, or more
        self._held = False
        self._news = False  # held by a look of ours, and not told yet
        self._unasked = False  # held by a look of ours, and nobody has asked for it since
        self._lent = False
        self._order: Order | None = None
        self._fds: list[int] = []
        self._ears = Ears()
        self._local = leaf.has(LOCAL)
        self._events = self._states = -1
        self._outer_before = host.outer()

    def begin(self, wish: Wish) -> None:
        """Set everything up, swap first: a limit without it would mean something else for a moment."""
        self._events = self._ears.add(self._leaf.open("memory.events"), CHANGED)
        self._states = self._ears.add(self._leaf.open("cgroup.events"), CHANGED)
        self.swap, self._hold = wish.swap, wish.hold
        self._bare = wish.hold and not detect.may_exempt()
        if wish.hold and not self.can_freeze():
            raise LimitError("this kernel cannot freeze a group, so a job cannot be held at its limit", "It takes Linux 5.2")
        if self._leaf.has(SWAP):  # absent where the kernel counts no swap
            self._leaf.write(SWAP, "max" if wish.swap is None else str(wish.swap))
        if wish.soft is not None:
            self._leaf.write("memory.low", str(wish.soft))
        if wish.oom_group and self._leaf.has("memory.oom.group"):
            self._leaf.write("memory.oom.group", "1")
        self.set_limit(wish.limit)

    def procs_fds(self, *, alone: bool = False) -> tuple[int, ...]:  # noqa: ARG002  (there is one file for both)
        self._fds = self._fds or [self._leaf.open("cgroup.procs", WRITE)]
        return tuple(self._fds)

    def shut(self) -> None:
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def birthplace(self) -> int:
        return -1  # what a copy of memrun touches before it executes the command would be charged to the job

    def set_limit(self, limit: int | None) -> int | None:
        lower = limit is not None and (self.limit is None or limit < self.limit)
        if lower:
            self._string(limit)
        self._write_max(limit)
        if not lower:
            self._string(limit)
        self._lent, self._order = False, None
        self.limit = None if limit is None else whole_pages(limit)
        if self._unasked:
            self._news = False
            self.thaw()
        return self.limit

    def _write_max(self, limit: int | None) -> None:
        self._leaf.write(MAX, "max" if limit is None else str(limit))
        got = number(self._leaf.read(MAX))
        if got != (None if limit is None else whole_pages(limit)):
            raise LimitError(f"the kernel made {got} of a limit of {limit} bytes in {self.path}")

    def _string(self, limit: int | None) -> None:
        """The trip wire for a limit, where there is to be one."""
        if not self._hold:
            return
        self.wire = None if limit is None else limit - bare_gap(limit)
        self._leaf.write(HIGH, "max" if self.wire is None else str(self.wire))

    def _read(self, fd: int) -> str:
        return read_again(fd, f"the events of {self.path}")

    def usage(self) -> int:
        return int(self._leaf.read("memory.current"))

    def swapped(self) -> int:
        return self._number("memory.swap.current") or 0

    def need(self) -> int:
        stat = keyed(self._leaf.read("memory.stat"))
        cache = stat.get("active_file", 0) + stat.get("inactive_file", 0) + stat.get("slab_reclaimable", 0)
        return max(0, self.usage() - cache)

    def peak(self) -> int | None:
        return self._number("memory.peak")  # since 5.19

    def tally(self) -> Tally:
        t = Tally()
        events = keyed(self._read(self._events))
        local = keyed(self._leaf.read(LOCAL)) if self._local else events
        stat = keyed(self._leaf.read("memory.stat"))
        t.limit = self.limit
        t.usage = self.usage()
        t.peak = self.peak()
        t.swap_peak = self._number("memory.swap.peak")
        t.anon, t.file = stat.get("anon"), stat.get("file")
        t.kills = events.get("oom_kill", 0)
        t.own = local.get("oom", 0)
        t.may_have_failed = self._hold and t.own > 0  # a fault in user mode is tried again, a system call's charge is not
        t.nested = events.get("oom", 0) > t.own
        t.outer = self._host.outer() - self._outer_before
        t.hits = events.get("max", 0)
        t.events = events
        usec = keyed(self._leaf.read("cpu.stat")).get("usage_usec")
        t.cpu = None if usec is None else usec / 1e6
        return t

    def _number(self, file: str) -> int | None:
        return number(self._leaf.read(file)) if self._leaf.has(file) else None

    def beats(self) -> int:
        return -1

    def notice_fd(self) -> int:
        """Quiet again once the files are read through these very descriptors."""
        return self._ears.fileno()

    def tell(self, ear: Ear) -> None:
        self._ears.tell(ear)

    def hear(self) -> Heard:
        heard = Heard()
        heard.raised = self._look(keyed(self._read(self._events)), self._order)
        heard.at_limit, self._news = self._news, False
        events, states = keyed(self._read(self._events)), keyed(self._read(self._states))
        heard.kills, heard.own = self._kills(events), events.get("oom", 0)
        heard.populated, heard.frozen = states.get("populated") == 1, states.get("frozen") == 1
        return heard

    def _kills(self, events: dict[str, int]) -> int:
        """But those at limits that the job gave to groups of its own: they are the job's affair, and no reason to end it."""
        kills = events.get("oom_kill", 0)
        if kills and self._local and events.get("oom", 0) and not keyed(self._leaf.read(LOCAL)).get("oom", 0):
            return 0
        return kills

    def reflex(self) -> bool:
        self._look(keyed(self._leaf.read("memory.events")), None)
        return self._held

    def arm(self, order: Order | None) -> None:
        self._order = order

    def _look(self, events: dict[str, int], order: Order | None) -> tuple[int, int] | None:
        """At its limit? Then it is given more here and now, or frozen: every millisecond later is memory charged beyond the wire."""
        if not self._hold or self._held or self._lent:
            return None
        touched = (events.get("high", 0), events.get("oom", 0))
        before, self._touched = self._touched, touched
        if touched == before or self.wire is None:
            return None
        raised = None
        if self._bare and self._near:
            self._held = self._looked_into_frozen(failed=touched[1] > before[1])
            raised = self._obey(order) if self._held else None
            if raised is not None:
                self.thaw()
        elif touched[1] > before[1] or self._is_need():
            raised = self._obey(order)
            if raised is None:
                self.freeze()
        self._unasked = self._held
        self._news = self._news or self._held
        return raised

    def _obey(self, order: Order | None) -> tuple[int, int] | None:
        before = self.limit
        if order is None or before is None or not order.may():
            return None
        after = self.set_limit(order.limit)
        self._forgive()
        return None if after is None else (before, after)

    def _forgive(self) -> None:
        """What failed until now, failed at the limit of then (and a guard's count of it was not ours)."""
        self._touched = (self._touched[0], keyed(self._leaf.read("memory.events")).get("oom", 0))

    def _is_need(self) -> bool:
        """Whether what has passed the wire is memory that it needs, and not page cache, nor what the kernel is about to swap out, as it may."""
        wire = self.wire or 0
        need, slack = self.need(), ((self.limit or 0) - wire) // 2
        self._near = need >= wire // 2
        return need >= wire - slack and (need >= wire + slack or not self._can_swap())

    def _can_swap(self) -> bool:
        if self.swap == 0:
            return False
        left = detect.swap_free()
        return (left if self.swap is None else min(left, self.swap - self.swapped())) >= SWAPPED_AT_ONCE

    def _looked_into_frozen(self, *, failed: bool) -> bool:
        """The same, where to look takes longer than it may: whoever is woken by the wire has the processor for a moment, and when he has to
        wait for it again, behind two hundred processes, all of them have charged something. So that moment is for the freeze."""
        self._leaf.write(FREEZE, "1")
        held = True
        try:
            held = self._is_need() or failed
        finally:
            if not held:
                self._leaf.write(FREEZE, "0")
        return held

    def foresee(self, limits: tuple[int, ...]) -> None: ...  # nothing would hold up a raise

    def found_held(self) -> None:
        self._held = self._news = self._unasked = True

    def can_freeze(self) -> bool:
        return self._leaf.has(FREEZE)  # since 5.2

    def freeze(self) -> bool:
        self._unasked = False
        if self._lent:
            self._lent = False
            if self.limit is not None and self.usage() <= self.limit:
                self._write_max(self.limit)  # lowered below what is used it would kill
            self._string(self.limit)
        self._held = True
        self._leaf.write(FREEZE, "1")
        return keyed(self._leaf.read("cgroup.events")).get("frozen") == 1

    def thaw(self) -> None:
        self._unasked = False
        if not self._leaf.has(FREEZE):  # a group that is gone holds nobody
            self._held = False
            return
        if self._held:
            self._forgive()
        self._held = False
        self._leaf.write(FREEZE, "0")

    def lend(self) -> None:
        if self.limit is not None and not self._lent:
            self._lent = True
            self._leaf.write(MAX, str(self.limit + grace(self.limit)))
            self._leaf.write(HIGH, "max")

    def reclaim(self, size: int | None) -> None:
        """Squeeze out what can be had: page cache and, with swap, idle pages. Blocks: to be called aside."""
        wanted = self.usage() if size is None else size
        try:
            self._leaf.write("memory.reclaim", str(wanted))  # since 5.19
        except GroupError as e:
            if e.errno != errno.EAGAIN:  # less than that could be had
                raise

    def tune(self, key: str, value: int | None) -> None:
        """soft, swap (bytes) or swappiness, while it runs."""
        if key == "swappiness":
            raise LimitError("cgroup v2 has no swappiness of a group's own", "Use swap=SIZE")
        if key == "soft":
            self._leaf.write("memory.low", "max" if value is None else str(value))
        else:
            self.swap = value
            self._leaf.write(SWAP, "max" if value is None else str(value))

    def kill(self) -> None:
        if self._leaf.has("cgroup.kill"):  # since 5.14
            try:
                self._leaf.write("cgroup.kill", "1")
            except GroupError as e:
                if e.errno != errno.EOPNOTSUPP:  # a threaded group
                    raise
            else:
                return
        tree.kill_each(self.pids())

    def pids(self) -> list[int]:
        return sorted(set(tree.pids(self._leaf)))

    def remove(self) -> bool:
        return tree.remove(self._host.run(), self._leaf)

    def close(self) -> None:
        self._ears.close()
        self._events = self._states = -1
        self.shut()
