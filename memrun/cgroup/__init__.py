"""Memory groups of either kernel behind one interface: the one place that chooses v1 or v2.

Each verb acts once and returns: nothing in here waits, sleeps, retries or exits. `False` means "not yet, ask again".
An ability that the kernel lacks is an error with a remedy, never a silent no-op.
"""

from __future__ import annotations

import os

from memrun.cgroup import detect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from memrun.cgroup.ears import Ear

    class Group(Protocol):
        """One job's memory group. Sizes are bytes, None is infinity; every call may raise GroupError."""

        version: str  # 'v1' | 'v2' | 'sampled'
        path: str  # the memory group's directory
        limit: int | None  # as the kernel has it, read back
        swap: int | None  # allowed on top of it

        @property
        def wire(self) -> int | None:
            """Where a job that is to be held is stopped, a little below the limit."""

        def procs_fds(self, *, alone: bool = False) -> tuple[int, ...]:
            """Open cgroup.procs files; who writes '0' into each, in order, is in the group. `alone`: who has one thread is, which is
            all the same sooner (v1: `tasks`)."""

        def birthplace(self) -> int:
            """A directory: who is born in it (clone3) need not write into the first of these files. -1: there is none."""

        def shut(self) -> None:
            """Nobody else is to be put into it: lets go of what `procs_fds` has opened."""

        def set_limit(self, limit: int | None) -> int | None:
            """Set the limit (swap follows); returns what the kernel made of it. Who is held at the limit of before without anybody's having asked for
            it (`freeze`), whether that was heard of or not, goes on: it is at its limit when a look finds it at this one."""

        def usage(self) -> int:
            """Bytes charged now."""

        def swapped(self) -> int:
            """Bytes in swap now (0 where the kernel does not count them)."""

        def need(self) -> int:
            """Bytes charged now that cannot be had back by dropping page cache."""

        def peak(self) -> int | None:
            """Most bytes ever charged; None where this kernel does not tell."""

        def tally(self) -> Tally:
            """The kernel's counters. Exact after the last process is gone and before removal; it takes in all news, so nobody may
            be listening any more."""

        def beats(self) -> int:
            """A descriptor that becomes readable each time that its use has been looked at; -1 where the kernel keeps the books."""

        def notice_fd(self) -> int:
            """A descriptor that polls readable whenever `hear` has news."""

        def tell(self, ear: Ear) -> None:
            """The same for whoever hears many groups: each descriptor that tells of news is registered there, and none is left when it is closed."""

        def hear(self) -> Heard:
            """Take in all news; `notice_fd` is quiet again until there is more."""

        def can_freeze(self) -> bool:
            """Whether it can be held still anywhere. Where not (v1 without a freezer beside it), only at its limit, by the kernel."""

        def freeze(self) -> bool:
            """Ask that no process of the group runs; True when none does. What was lent is taken back."""

        def thaw(self) -> None:
            """Let them run again."""

        def lend(self) -> None:
            """A little more than the limit, until the next freeze or set_limit: room for a held job to hear a signal."""

        def reflex(self) -> bool:
            """Whether a group that is to be held is at its limit; if so it is being frozen. Takes no news away from `hear`."""

        def arm(self, order: Order | None) -> None:
            """What `hear` is to do when it finds the job at its limit; None: hold it there. Obeyed once, and void after any other set_limit.
            Where no kernel keeps the books it has been stopped by then, and stays so."""

        def reclaim(self, size: int | None) -> None:
            """Squeeze out what can be had, or `size` bytes of it. Takes its time: to be called aside."""

        def tune(self, key: str, value: int | None) -> None:
            """Change 'soft', 'swap' (bytes) or 'swappiness' while it runs."""

        def foresee(self, limits: tuple[int, ...]) -> tuple[Callable[[], None], Callable[[], None]] | None:
            """What would hold up raises to these limits, one after the other, for a forked copy of ours to do beforehand, and what to call
            when it has done it, after which there may be more; None: nothing would, as yet."""

        def found_held(self) -> None:
            """Somebody else's reflex (a forked copy of ours) holds it: news for `hear`."""

        def kill(self) -> None:
            """SIGKILL to every process of the group, frozen and parked ones too."""

        def pids(self) -> list[int]:
            """Every process in the group or below it."""

        def remove(self) -> bool:
            """Take the group down with all below it; False while something is in it."""

        def close(self) -> None:
            """Let go of all descriptors; the group itself is not touched."""

    class Host(Protocol):
        """Where groups can be made: one directory of ours, below the group that memrun itself is in."""

        version: str
        way: str  # where that is, and by which right: a phrase

        def places(self) -> tuple[str, ...]:
            """Directories that hold everything made here: what is to be emptied if memrun dies."""

        def begin(self) -> None:
            """Make those directories; NoCgroupError with a remedy where that is not allowed."""

        def create(self, name: str, wish: Wish) -> Group:
            """A new group with its limits set and read back, or an error and nothing left."""

        def enclosing(self) -> int | None:
            """The tightest limit above us (our own group's included), None where there is none."""

        def spare(self) -> int | None:
            """Bytes that the limits above us still allow, None where there is no limit."""

        def end(self) -> bool:
            """Remove the directories; False while something is in them."""


class Order:
    """A raise that was decided before the job needs it: to `limit`, if `may` says so when it does (has the machine got it?)."""

    __slots__ = ("limit", "may")

    def __init__(self, limit: int, may: Callable[[], bool]) -> None:
        self.limit, self.may = limit, may


class Wish:
    """What a new group is asked to be. Sizes in bytes, None is infinity (soft: None is unset)."""

    __slots__ = ("hold", "limit", "oom_group", "soft", "swap")

    def __init__(self, limit: int | None, swap: int | None = 0, soft: int | None = None) -> None:
        self.limit = limit
        self.swap = swap
        self.soft = soft
        self.oom_group = True  # one killed, all killed
        self.hold = False  # at the limit: hold the tasks instead of killing one


class Tally:
    """The kernel's counters of one group at one moment. None: this kernel does not tell."""

    __slots__ = (
        "anon",
        "cpu",
        "events",
        "file",
        "hits",
        "kills",
        "largest",
        "limit",
        "may_have_failed",
        "nested",
        "outer",
        "own",
        "peak",
        "swap_peak",
        "usage",
    )

    def __init__(self) -> None:
        self.limit: int | None = None
        self.usage = 0
        self.peak: int | None = None
        self.swap_peak: int | None = None
        self.anon: int | None = None  # memory.stat, now
        self.file: int | None = None
        self.kills = 0  # processes killed by any OOM killer, in the whole subtree
        self.own = 0  # times that this very group was out of memory (with no way out)
        self.outer = 0  # times that a group above was
        self.nested = False  # the kills were at limits that the job gave to groups of its own
        self.may_have_failed = False  # a system call of a job that is held at its limit, for lack of memory
        self.hits = 0  # times that the limit was touched (v1 failcnt, v2 'max' events)
        self.events: dict[str, int] = {}
        self.cpu: float | None = None  # seconds, whole subtree
        self.largest: list[tuple[int, str, int]] = []  # (pid, name, bytes) at the last limit event, where it was looked at


class Heard:
    """News of a group: counters and states as of now, so that a lost or a doubled wake-up changes nothing."""

    __slots__ = ("at_limit", "frozen", "kills", "own", "populated", "raised")

    def __init__(self) -> None:
        self.kills = 0
        self.own = 0
        self.at_limit = False  # it has reached its limit since the last look, and is held there
        self.raised: tuple[int, int] | None = None  # it has been at its limit, the first one, and was given the other one
        self.populated: bool | None = None  # None: this kernel does not say
        self.frozen: bool | None = None


SMALL = 16 << 20


def wire_gap(limit: int) -> int:
    """How far below its limit a v2 job that is to be held is stopped: the room for what it does until the freeze has landed.

    The kernel slows a job above memory.high by n * r^2 seconds per n pages (r: overage / high), so a wire at H is climbed
    past by a gap of about (12288 * N * T)^(1/3) * H^(2/3) bytes in T seconds by N threads. T = 50 ms and N = 8 give
    17 * H^(2/3); never below 1/64 (under 1.25 % nothing is slowed at all), nor above 1/20 of a small limit, which must
    not be stopped long before it.
    """
    return min(limit // 20, max(2 << 20, int(17 * limit ** (2 / 3)), limit // 64)) // 4096 * 4096


def bare_gap(limit: int) -> int:
    """The same, where nothing protects the job from the OOM killer while it climbs on (without CAP_SYS_RESOURCE), and where the one who
    freezes it waits for the processor behind it (see priority.hurry): T = 0.5 s, but no more than an eighth. Each process charges 256 KiB
    before it is slowed for the first time, so eight of them fill a tenth of 20 MiB while nobody looks. Of a small limit it is a tenth: two such
    charges at 5 MiB. What passes the wire by less than 1.25 % is not slowed at all, and with a twentieth the next charge was a kill: 5 of 120
    on a busy User-Mode Linux 6.1, one process that allocates a MiB at a time; with a tenth, none of 200.
    """
    if detect.may_exempt():
        return wire_gap(limit)
    share = limit // (10 if limit < SMALL else 8)
    return min(share, max(5 << 19, int(37 * limit ** (2 / 3)), limit // 64)) // 4096 * 4096


def steep_gap(limit: int) -> int:
    """The same for v1, which slows nothing: what is charged between the event and the freeze. The kernel looks at thresholds every
    512 KiB on each CPU, and eight processes on two CPUs charge 4 MB a millisecond (measured). At the limit itself user faults
    are parked, exactly, but what fails there in kernel mode can be a SIGSEGV (a forked child's restartable sequence is
    enough) or a write that ends with ENOMEM. So 1 MiB, and half of one for each CPU, but no more than a tenth.

    Measured on 6.18 with 2 CPUs, under the load of other tests, at 20 MiB (raised to 40 and 80): 1 MiB lost nothing in 150 runs
    (four threads, eight processes, many forks, tmpfs by 4 KiB and by 1 MiB, read), 2 MiB nothing in 180. Who starts late loses far
    more: 5 of 30 runs of eight processes with a guard that came after the launch, 2 of 30 tmpfs writers even with 4 MiB, as long
    as the freeze waited for a lock (see v1group.py). A small limit's wire must stay close to it, or the charge batches of the CPUs (256 KiB each) would
    trip it long before.
    """
    if limit < SMALL:
        return wire_gap(limit)
    return min(limit // 10, max((1 << 20) + (os.cpu_count() or 1) * (1 << 19), wire_gap(limit))) // 4096 * 4096


NO_FREEZER = (
    "this machine has no freezer, so a job cannot be paused",
    "As root: 'mount -t cgroup2 none /sys/fs/cgroup/unified' (or '-t cgroup -o freezer')",
)


def grace(limit: int) -> int:
    """What `lend` lends."""
    return max(4 << 20, limit // 8)


def version() -> str:
    """Which kind of memory controller is here: 'v1' | 'v2' | ''."""
    return detect.look().version


def open_host(pid: int) -> Host:
    """Find where groups can be made (ladder.py: memrun itself may be in another group afterwards) and choose the kernel's kind. No
    group of ours is made yet; NoCgroupError says what is missing."""
    name = f"memrun-{pid}-{os.urandom(2).hex()}"
    setup = detect.look()
    setup.keeper = pid
    setup, way = _ground(setup, name)
    host = _host(setup, name)
    host.way = way
    return host


def _ground(setup: detect.Setup, name: str) -> tuple[detect.Setup, str]:
    if detect.is_ready(setup):
        return setup, detect.BELOW_OURS  # on the lowest rung: the others need not be loaded
    from memrun.cgroup import ladder

    return ladder.climb(setup, name)


def enclosing() -> int | None:
    """The tightest limit that memrun itself is under, wherever its groups would be made; no step is taken towards that."""
    setup = detect.look()
    return _host(setup, "").enclosing() if setup.version else None


def _host(setup: detect.Setup, name: str) -> Host:
    if setup.version == "v1":
        from memrun.cgroup import v1  # one of the two is never needed

        return v1.Host(setup, name)
    from memrun.cgroup import v2

    return v2.Host(setup, name)
