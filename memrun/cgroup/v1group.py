"""cgroup v1: memory.limit_in_bytes, eventfds, and a companion group for what v1 lacks.

A v1 memory group can neither freeze, nor kill at once, nor say that it is empty. The machine usually has a second
hierarchy that can: the cgroup2 tree that hybrid set-ups mount beside it (cgroup.freeze, cgroup.kill, cgroup.events,
cpu.stat), and v1's own freezer. So each job gets a *companion* group in each of the two, entered before exec like the
memory group: what it makes below them is then ours to thaw and remove. Measured on 6.18: making, entering and removing
a companion takes 55 to 80 us, against 1.4 ms for the fork and exec.

Holding a job at its limit: oom_kill_disable=1 makes the kernel park every task that faults at the limit, exactly there,
with no CPU used. But only user-mode faults: a charge inside a system call fails instead (read() comes back short or with EFAULT, a
tmpfs write with ENOMEM), and no event says so. So a trip wire stands in front of it, a usage threshold (see steep_gap), and what
trips it with need, not page cache, is frozen by the companion's freezer on its way back to user mode; a freeze also ends a
long read() early, as a signal would, which is what lets a program get all its bytes after a raise. The threshold is checked by
the kernel every 128 pages per CPU, so that a small limit's wire may be seen late; the parking behind it is exact.

Which freezer: a write to cgroup.freeze takes 14 us in the median, but 5 to 15 ms in one of 100 (cgroup_mutex, which is held
while any group of the machine is made or removed), and in 5 ms a job charges 10 MB and more. freezer.state takes 0.1 ms, and
never took more than 0.35 (1600 writes beside two processes that make and remove groups). But it lets nobody die by SIGKILL. So it
is written first, then the other, then undone. Beside those two processes, at 20 MiB: 0 of 40 tmpfs writers got through to 60
MiB with cgroup.freeze alone, 120 of 120 (tmpfs, memfd, read) like this. And in 200 runs each of one thread, four, eight
processes, 160 forks, one big mapping, tmpfs by 4 KiB and by 1 MiB, read(2), and one beside a busy process: 1800 of 1800
held twice and finished, no kill; 60 of 60 runs of dd with files five times the limit were never paused.

What is left: below 8 MiB a wire that is close enough not to stop a job long before its limit is nearer than the kernel looks. User
faults are parked exactly all the same (59 of 60 from 2M to 5M; one could not start a thread), but read(2) into fresh memory got
EFAULT in 7 of 10 at 5M, and in none of 10 at 8M.

Counting: `oom_kill` of memory.oom_control is exact but local to one group (v2's is the subtree's) and says nothing about
whose limit it was. The oom eventfd does: the kernel notifies the group that is out of memory *and those below it*, so the
run directory's own eventfd counts exactly the events from above, and ours less those are our own. An eventfd is a
counter in the kernel, so no event is lost to a late reader.

Kernel facts: since 4.19 charges inside system calls are killed for, too, as long as oom_kill_disable is 0; the notification
is sent *before* the kill, so that a look at the counter right after it may come too early (watch.py looks again).
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import NO_FREEZER, Heard, freezer1, grace, limits1, tally1, tree
from memrun.cgroup.ears import CHANGED, READABLE, Ears
from memrun.cgroup.eventfd import count, listen
from memrun.cgroup.files import Dir, keyed, read_again
from memrun.cgroup.wire1 import Wire
from memrun.errors import GroupError, LimitError
from memrun.units import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import Order, Tally, Wish
    from memrun.cgroup.ears import Ear
    from memrun.cgroup.strays1 import Strays
    from memrun.cgroup.together1 import Together
    from memrun.cgroup.v1 import Host

WRITE = os.O_WRONLY | os.O_CLOEXEC
NEAR = 512 << 10  # what is charged in one go can fail that far below the limit


class Group:
    """One job's memory group and its companions."""

    version = "v1"

    def __init__(self, host: Host, parts: list[Dir]) -> None:
        memory, *companions = parts
        self.path = memory.path
        self.limit: int | None = None
        self._host, self._memory, self._companions = host, memory, companions
        self._unified = next((c for c in companions if c.has("cgroup.events")), None)
        self._freezer = next((c for c in companions if c.has("freezer.state")), None)
        self.swap: int | None = 0
        self._memsw = memory.has(limits1.MEMSW)
        self._hold = self._held = self._lent = False
        self._news = False  # held by a look of ours, and not told yet
        self._unasked = False  # held by a look of ours, and nobody has asked for it since
        self._order: Order | None = None
        self._ears = Ears()
        self._wire = Wire(memory, self._ears)
        self._all = False  # are to be killed where one is
        self._together: Together | None = None
        self._strays: Strays | None = None
        self._fds: list[int] = []
        self._birthplace = -1
        self._oom = -1
        self._events = -1  # the companion's cgroup.events
        self._own, self._outer_before = 0, host.outer()
        self._touched = limits1.Touched(memory)

    def begin(self, wish: Wish) -> None:
        """Set everything up, read it back, start to listen."""
        self.swap, self._hold = wish.swap, wish.hold
        if wish.hold:
            self._memory.write("memory.oom_control", "1")
        self._set(wish.limit, fresh=True)
        if wish.soft is not None:
            self._memory.write("memory.soft_limit_in_bytes", str(wish.soft))
        if wish.swap == 0 and not self._memsw:
            self._memory.write("memory.swappiness", "0")
        self._oom = self._ears.add(listen(self._memory), READABLE)
        self._string()
        if self._unified is not None:
            self._events = self._ears.add(self._unified.open("cgroup.events"), CHANGED)
            self._all = wish.oom_group and not wish.hold and self._unified.has("cgroup.freeze")

    def procs_fds(self, *, alone: bool = False) -> tuple[int, ...]:
        parts = [*self._companions, self._memory]  # memory last: what the child does before that is not charged to it
        names = ["tasks" if alone and part is not self._unified else "cgroup.procs" for part in parts]
        self._fds = self._fds or [part.open(name, WRITE) for part, name in zip(parts, names, strict=True)]
        return tuple(self._fds)

    def shut(self) -> None:
        fds, self._fds, self._birthplace = [*self._fds, self._birthplace], [], -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def birthplace(self) -> int:
        if self._birthplace < 0 and self._unified is not None and self._unified is self._companions[0]:
            self._birthplace = self._unified.itself()
        return self._birthplace

    def set_limit(self, limit: int | None) -> int | None:
        self._touched.look(self.limit)
        self._set(limit, fresh=False)
        self._lent, self._order = False, None
        self._string()
        if self._unasked:
            self._news = False
            self.thaw()
        return self.limit

    def _string(self) -> None:
        self._wire.string(self.limit if self._hold and self.can_freeze() else None)

    @property
    def wire(self) -> int | None:
        return self._wire.at

    def foresee(self, limits: tuple[int, ...]) -> tuple[Callable[[], None], Callable[[], None]] | None:
        return self._wire.foresee(limits) if self._wire.fd >= 0 else None

    def _set(self, limit: int | None, *, fresh: bool, lower: bool = False) -> None:
        swap = None if limit is None or self.swap is None else limit + self.swap
        up = not fresh and not lower and (limit is None or (self.limit is not None and limit > self.limit))
        self.limit = limits1.put(self._memory, limit, (swap,) if self._memsw else (), fresh=fresh, up=up)

    def usage(self) -> int:
        return int(self._memory.read("memory.usage_in_bytes"))

    def swapped(self) -> int:
        return max(0, int(self._memory.read("memory.memsw.usage_in_bytes")) - self.usage()) if self._memsw else 0

    def need(self) -> int:
        stat = keyed(self._memory.read("memory.stat"))
        cache = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
        return max(0, self.usage() - cache)

    def peak(self) -> int | None:
        return int(self._memory.read("memory.max_usage_in_bytes"))

    def tally(self) -> Tally:
        self._own += count(self._oom)
        t = tally1.read(self._memory, self._unified, swap=self._memsw and self.swap != 0)
        t.limit = self.limit
        t.may_have_failed = self._hold and self._touched.look(self.limit)
        t.outer = self._host.outer() - self._outer_before
        t.own = max(0, self._own - t.outer) if self._oom >= 0 else t.hits
        t.hits = max(t.hits, t.own)  # 6.18 counts no hits on memsw, which is the one that is hit where no swap is allowed
        t.events = {"failcnt": t.hits, "oom": self._own, "oom_kill": t.kills}
        return t

    def beats(self) -> int:
        return -1

    def notice_fd(self) -> int:
        self._stand_together()
        return self._ears.fileno()

    def tell(self, ear: Ear) -> None:
        self._stand_together()
        self._ears.tell(ear)

    def _stand_together(self) -> None:
        if self._all and self._unified is not None and self._together is None:
            from memrun.cgroup.together1 import Together  # the job runs by now

            self._together = Together(self._unified)

    def hear(self) -> Heard:
        heard = Heard()
        self._own += count(self._oom)
        heard.raised = self._look(self._order)
        heard.at_limit, self._news = self._news, False
        heard.kills = keyed(self._memory.read("memory.oom_control")).get("oom_kill", 0)
        if self._together is not None and not self._held:
            self._together.look(heard.kills, self._own - self._host.outer())
        heard.own = self._own
        if self._events >= 0:
            states = keyed(read_again(self._events, f"{self.path}: cgroup.events beside it"))
            heard.frozen = states.get("frozen") == 1
            heard.populated = states.get("populated") == 1 or self._has_strays()
        return heard

    def _has_strays(self) -> bool:
        """Whether somebody is in the memory group who has left the companion that says when it is empty, or never was there."""
        pids = self.pids()
        if pids and self._strays is None:
            from memrun.cgroup.strays1 import Strays  # few jobs can do that

            self._strays = Strays(self._ears)
        return self._strays is not None and self._strays.follow(pids)

    def reflex(self) -> bool:
        self._look(None)
        return self._held

    def arm(self, order: Order | None) -> None:
        self._order = order

    def _look(self, order: Order | None) -> tuple[int, int] | None:
        """Frozen first and asked afterwards: the wire fires once, on its way up, and a job charges 4 MB in a millisecond. But where it is to
        be given more, that is as quickly done as a freeze (0.1 ms, 0.2 ms), and the job need not stop at all."""
        if not self._hold or self._held or self._lent:
            return None
        tripped, raised = self._wire.tripped(), None
        if order is not None and (self._parked() or self._needs_it()):
            raised = self._obey(order)
        if tripped and raised is None:
            self._hold_now()
        if self._parked() or self._needs_it():
            if not self._held:
                self._hold_now()
            self._news = self._unasked = True
        elif self._held:
            self.thaw()  # page cache: the kernel will have it back
        return raised

    def _obey(self, order: Order) -> tuple[int, int] | None:
        """Not where the job would run without a wire until it has one."""
        before = self.limit
        if before is None or not (self.wire is None or self._wire.foresees(order.limit)) or not order.may():
            return None
        after = self.set_limit(order.limit)
        return None if after is None else (before, after)

    def _parked(self) -> bool:
        """Whether somebody is parked at the limit as it is now. Who was parked when it was raised says so until he has run, which he
        cannot before we sleep where there is one processor (and we are ahead of everybody: see priority.hurry)."""
        return self._is_parked() and self.limit is not None and self.usage() + self.swapped() + NEAR >= self.limit

    def _needs_it(self) -> bool:
        if self.wire is None or self.limit is None:
            return False
        return self.need() >= self.wire - (self.limit - self.wire) // 4  # the kernel looks at thresholds every 128 pages

    def found_held(self) -> None:
        self._held = self._news = self._unasked = True

    def can_freeze(self) -> bool:
        return self._freezer is not None or (self._unified is not None and self._unified.has("cgroup.freeze"))

    def freeze(self) -> bool:
        """Without a freezer: what is parked stays so until the limit is raised, and what is not runs up to it."""
        unified, self._unasked = self._unified, False
        if self._lent:
            self._take_back()
        elif self._held and unified is not None and unified.has("cgroup.freeze"):  # our reflex was quicker
            return keyed(unified.read("cgroup.events")).get("frozen") == 1 or self._is_parked()
        return self._hold_now() or self._is_parked()

    def _is_parked(self) -> bool:
        """Who got as far as the limit before he was held sleeps in the kernel, where no freezer counts him."""
        return keyed(self._memory.read("memory.oom_control")).get("under_oom", 0) > 0

    def _hold_now(self) -> bool:
        self._held = True
        if self._together is not None:
            self._together.over()
        return self.can_freeze() and self._freeze_now()

    def _freeze_now(self) -> bool:
        """At once by v1's freezer, to stay by the other one (in which SIGKILL works): from the one they fall into the other without a
        look at user mode."""
        if self._freezer is None or self._unified is None or not self._unified.has("cgroup.freeze"):
            return self._hold_still(still=True)
        self._freezer.write("freezer.state", "FROZEN")
        try:
            return self._hold_still(still=True)
        finally:
            self._freezer.write("freezer.state", "THAWED")

    def thaw(self) -> None:
        self._held = self._unasked = False
        if self._together is not None:
            self._together.over()
        try:
            if self.can_freeze():
                self._hold_still(still=False)
            if self._freezer is not None:  # a guard that was killed in the middle of it may have left this one shut
                self._freezer.write("freezer.state", "THAWED")
        except GroupError:
            if self._is_held_by("cgroup.freeze", self._unified) or self._is_held_by("freezer.state", self._freezer):
                raise  # whatever the kernel says: it is there, and holds them

    def _is_held_by(self, file: str, group: Dir | None) -> bool:
        """A group that is gone holds nobody."""
        return group is not None and group.has(file)

    def lend(self) -> None:
        if self.limit is not None and not self._lent:
            limit = self.limit
            self._set(limit + grace(limit), fresh=False)
            self.limit, self._lent = limit, True

    def _take_back(self) -> None:
        """Back to the limit where that is possible: the kernel refuses (EBUSY) what it cannot squeeze out."""
        limit, self._lent = self.limit, False
        try:
            self._set(limit, fresh=False, lower=True)
        except GroupError as e:
            if e.errno != errno.EBUSY:
                raise
        self._string()

    def _hold_still(self, *, still: bool) -> bool:
        if self._unified is not None and self._unified.has("cgroup.freeze"):
            self._unified.write("cgroup.freeze", str(int(still)))
            return keyed(self._unified.read("cgroup.events")).get("frozen") == int(still)
        if self._freezer is not None:
            state = "FROZEN" if still else "THAWED"
            self._freezer.write("freezer.state", state)
            return self._freezer.read("freezer.state").strip() == state
        raise LimitError(*NO_FREEZER)

    def reclaim(self, size: int | None) -> None:
        """Squeeze out what can be had: page cache and, with swap, idle pages. Blocks: to be called aside."""
        if size is None:
            self._memory.write("memory.force_empty", "0")
            return
        if self.limit is None:
            raise LimitError(
                "v1 reclaims an amount by lowering the limit for a moment, and this job has none", "Leave the size away"
            )
        kept = self.limit
        try:
            self._set(max(PAGE, self.usage() - size), fresh=False, lower=True)
        except GroupError as e:
            if e.errno != errno.EBUSY:
                raise
        finally:
            self._set(kept, fresh=False)

    def tune(self, key: str, value: int | None) -> None:
        """soft, swap (bytes) or swappiness, while it runs."""
        if key == "soft":
            self._memory.write("memory.soft_limit_in_bytes", str(-1 if value is None else value))
        elif key == "swappiness":
            self._memory.write("memory.swappiness", str(value))
        else:
            self.swap = value
            self.set_limit(self.limit)

    def kill(self) -> None:
        if self._unified is not None and self._unified.has("cgroup.kill"):
            self._unified.write("cgroup.kill", "1")
        elif self._freezer is not None and self._freezer.has("freezer.state"):
            self._freezer.write("freezer.state", "FROZEN")  # held still, no fork gets away
        found = self.pids()
        tree.kill_each(found)
        freezer1.let_die(self._freezer, found)

    def pids(self) -> list[int]:
        found: set[int] = set()
        for part in (self._memory, *self._companions):
            found.update(tree.pids(part))
        return sorted(found)

    def remove(self) -> bool:
        from memrun.cgroup import cache1

        cache1.drop_small(self._memory)
        clean = True
        for run, part in zip(self._host.runs(), (self._memory, *self._companions), strict=True):
            clean = tree.remove(run, part) and clean
        return clean

    def close(self) -> None:
        self._wire.close()
        self._ears.close()
        self._oom = self._events = -1
        self.shut()
