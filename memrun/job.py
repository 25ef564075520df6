"""One attempt at a command, from its group to its record; no event loop in here.

`Site` is the place (memrun's own run directory, and the dead man's hand over it), `Attempt` one group with one command in
it. The order is what makes it safe: hand, directory, group with its limit read back, listeners, launch; and at the end reap,
counters, removal, hand.
"""

from __future__ import annotations

import os
import time

from memrun import cgroup, hand, launch, signals
from memrun.errors import LimitError, MemrunError
from memrun.units import Share

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from memrun.cgroup import Group, Host
    from memrun.guard import Guard
    from memrun.oomlog import Log
    from memrun.options import Spec
    from memrun.record import Record
    from memrun.units import Size

    class Process(Protocol):
        """What an attempt is about: a command that memrun started, or processes that were there before it."""

        pid: int
        pidfd: int  # readable when there is reason to `reap`
        left: list[int]  # who was still there when it had ended
        status: int | None  # the raw wait status, once it has ended; 0 where nobody tells
        rusage: tuple[float, int] | None

        def reap(self) -> int | None:
            """The status, once it has ended; None while it runs."""

        def signal(self, number: int) -> None:
            """Send it a signal, if it is still there."""

        def close(self) -> None:
            """Let go of the descriptors."""

    class Stay(Protocol):
        """What a Run drives: processes in one group, from when they are in it until their record is taken."""

        site: Site
        spec: Spec
        group: Group
        child: Process
        logged: int  # where its part of the kernel's log begins; -1: it may not be read
        seen: list[dict[str, object]]
        began: float  # monotonic
        started: float  # since the epoch

        @property
        def borrowed(self) -> bool:
            """Whether the processes were there before memrun, and are to go on without it."""

        @property
        def holds(self) -> bool:
            """Whether they are to be held at the limit."""

        def relieve(self) -> bool:
            """Who listens from now on says so; whether somebody else has until now."""

        def finish(self, why: str) -> Record:
            """The record, once nobody is left in the group, which is removed."""

        def rid(self) -> bool:
            """Be rid of everybody in the group: kill them, or put back who is borrowed. True once nobody is left, else ask again."""

        def close(self) -> None:
            """Let go of every descriptor."""


KMSG = "/dev/kmsg"


class Site:
    """Where this memrun's groups are, and the hand over them."""

    __slots__ = ("_kmsg", "_log", "hand", "host")

    def __init__(self, locks: tuple[int, ...] = (), script: str = hand.SCRIPT, pid: int = 0, host: Host | None = None) -> None:
        """`locks`: locked descriptors that the hand holds on to until it has cleaned up; `script`: what it does then; `pid`: by which
        we are known, if not ours; `host`: not the kernel's groups, but these."""
        self._kmsg = -1  # the kernel's log
        self._log: Log | None = None
        self.host: Host = host or cgroup.open_host(pid or os.getpid())
        self.hand = hand.spread(self.host.places(), locks, script)
        try:
            self.host.begin()
        except BaseException:
            self.hand.clench()  # it removes whatever there is of it
            raise

    def close(self) -> None:
        """Remove what was made. What resists is left to the hand, which kills (or lets go), retries and waits."""
        kmsg, self._kmsg, self._log = self._kmsg, -1, None
        if kmsg >= 0:
            os.close(kmsg)
        if self._end():
            self.hand.dismiss()
        else:
            self.hand.clench()
            self._end()  # of what it has removed, we still hold the descriptors

    def _end(self) -> bool:
        try:
            return self.host.end()
        except MemrunError:
            return False

    def listen(self) -> int:
        """What the kernel logs from now on counts: where that begins, for `log().report`; -1 where it may not be read."""
        if self._kmsg >= 0:
            return self.log().end()
        self._kmsg = kernel_log()
        return min(self._kmsg, 0)

    def log(self) -> Log:
        """The kernel's log since somebody listened first: one reader for all."""
        if self._log is None:
            from memrun.oomlog import Log  # rarely before a command has ended

            self._log = Log(self._kmsg)
        return self._log

    def unprotected(self, spec: Spec) -> bool:
        """Whether its command, held at its limit, is at the OOM killer's mercy all the same. It is started when everything is loaded, then:
        who is to freeze it has no processor to share with who loads."""
        return spec.on_oom == "pause" and self.host.version == "v2" and not cgroup.detect.may_exempt()

    def whole(self) -> int:
        """What `50%` is of: the enclosing limit or the machine's memory, whichever is smaller. Bytes."""
        return whole(self.host.enclosing())

    def size(self, size: Size) -> int | None:
        """A size in bytes, shares worked out; None is infinity."""
        return size.of(self.whole()) if isinstance(size, Share) else size


def whole(enclosing: int | None) -> int:
    """The machine's memory, or the enclosing limit where that is smaller. Bytes."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    return machine if enclosing is None else min(machine, enclosing)


class Attempt:
    """One group with one command in it."""

    __slots__ = (
        "_closed", "_underway", "attempt", "began", "child", "group", "guard", "logged", "seen", "site", "spec", "started",
    )  # fmt: skip

    def __init__(self, site: Site, spec: Spec, attempt: int = 1, limit: Size = None, *, guarded: bool = False) -> None:
        """`limit`: of a further attempt; the first one's is the spec's. `guarded`: nobody watches yet, and it is to be held.

        One of many (spec.apart) is only forked: `arrive`, when `news` is readable, completes it.
        """
        self.site, self.spec, self.attempt = site, spec, attempt
        self.seen: list[dict[str, object]] = []  # largest processes, if somebody looked at the last limit event
        self.guard: Guard | None = None
        self._closed = False
        order = _order(spec)  # what is wrong with it is said before anything is made
        wish = wish_of(site, spec, spec.limit if attempt == 1 else limit)
        self.group: Group = site.host.create(f"{spec.name}.{attempt}", wish)
        try:
            self._check_abilities()
            self.logged = site.listen()
            if guarded and (guard := self.post()) is not None:
                guard.stand()
            self.started = time.time()
            self.began = time.monotonic()
            self._underway = launch.start(self._entering(order))
            self.child: Process = self._underway.child
            self._underway.child.counted = self.group.version == "v2" or order.birthplace >= 0
            if not spec.apart:
                self._underway.settle()
                self.group.shut()
        except BaseException:
            self._give_up()
            raise

    @property
    def news(self) -> int:
        """Readable when it has been launched, or has failed to be."""
        return self._underway.news

    def arrive(self) -> None:
        """Wait until the command runs; LaunchError, and nothing left, where it does not."""
        try:
            self._underway.settle()
            self.group.shut()
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        self.relieve()
        self.group.kill()
        self.group.remove()
        self.close()

    def _entering(self, order: launch.Order) -> launch.Order:
        order.procs_fds, order.birthplace = self.group.procs_fds(alone=True), self.group.birthplace()
        order.immune = self.holds and self.group.version == "v2"
        return order

    def _check_abilities(self) -> None:
        """A rule that pauses wants a freezer (at the limit the kernel alone can hold a job); one of pressure a kernel that tells of it."""
        actions = [mark.action.do for mark in self.spec.at] + [rule.action.do for rule in self.spec.pressure]
        if "pause" in actions and not self.group.can_freeze():
            raise LimitError(*cgroup.NO_FREEZER)
        if self.spec.pressure:
            from memrun.cgroup import gauge  # few want it, and they wait for it before their command starts

            for rule in self.spec.pressure:
                gauge.pressure(self.group.path, self.group.version, rule.level, rule.mode).close()

    def post(self) -> Guard | None:
        """A guard, for while nobody else watches who is to be held. It may not stand yet."""
        if self.holds:
            from memrun.guard import Guard

            self.guard = Guard(self.group)
        return self.guard

    def relieve(self) -> bool:
        """The guard may go: from now on somebody watches. Whether there was one."""
        guard, self.guard = self.guard, None
        if guard is not None and guard.relieve():
            self.group.found_held()
        return guard is not None

    borrowed = False

    @property
    def holds(self) -> bool:
        """Whether it is to be held at its limit."""
        return self.spec.on_oom == "pause" and self.group.limit is not None

    def finish(self, why: str) -> Record:
        """The record, once the command is reaped and the group empty; then the group is removed."""

        def own(record: Record) -> None:
            record.take_status(self.child.status)
            if record.cpu is None and self.child.rusage is not None:
                record.cpu = round(self.child.rusage[0], 6)

        return taken(self, why, own)

    def rid(self) -> bool:
        """Kill everything; True once the command is reaped and the group is empty."""
        if self.child.reap() is not None and not self.group.pids():
            return True
        self.group.kill()
        self.child.signal(signals.KILL)
        return False

    def abandon(self) -> None:
        """End it now, without a record: memrun itself has failed. The site's hand waits for the rest. Nothing where it is over."""
        if self._closed:
            return
        self.relieve()
        self.group.kill()
        if self.child.reap() is None:
            signals.send_pidfd(self.child.pidfd, signals.KILL)
            os.waitpid(self.child.pid, 0)
        self.group.remove()
        self.close()

    def close(self) -> None:
        """Let go of every descriptor."""
        self._closed = True
        self.group.close()
        child = getattr(self, "child", None)
        if child is not None:
            child.close()


def kernel_log() -> int:
    """A descriptor at the end of the kernel's log, of which oomlog.py reads what comes now; -1 where it may not be read."""
    try:
        fd = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        return -1
    return fd


def taken(stay: Stay, why: str, own: Callable[[Record], None]) -> Record:
    """The record of a stay, whose group is empty and then removed. `own` adds what the processes told, before it is judged."""
    from memrun import interference
    from memrun.record import judge

    elapsed = time.monotonic() - stay.began
    tally = interference.tally(stay.group)
    record = _record(stay, elapsed)
    record.interference = interference.found(stay.group)
    record.take_tally(tally)
    own(record)
    record.largest = stay.seen[:5]
    if tally.kills:
        _name_the_largest(stay, record, tally)
    judge(record, why, tally, oom_group=stay.spec.oom_group)
    if record.result == "patience":
        record.patience, record.awaited = stay.spec.patience, "raise" if stay.spec.on_oom == "pause" else "resume"
    stay.group.remove()  # False is no harm: the site removes the rest, or its hand does
    stay.close()
    return record


def _name_the_largest(stay: Stay, record: Record, tally: cgroup.Tally) -> None:
    from memrun import oomlog

    group = "/".join(stay.group.path.rsplit("/", 2)[1:])
    told = stay.site.log().report(stay.logged, group, tally.kills) if stay.logged >= 0 else oomlog.Report()
    told.largest = tally.largest or told.largest
    record.peak_anon = told.anon
    record.largest = [{"pid": pid, "name": name, "rss": rss} for pid, name, rss in told.largest[:5]] or stay.seen[:5]
    if not record.largest and stay.child.rusage is not None:
        name, most = os.path.basename(stay.spec.command[0]), stay.child.rusage[1]
        most = most if record.peak is None else min(most, record.peak)  # memrun's own size is in it, from before the exec
        record.largest = [{"pid": stay.child.pid, "name": name, "rss": most}]
    if record.largest and record.largest[0]["name"] == launch.UNBORN:
        record.largest, record.note = [], "before the program itself began: its arguments and environment need more"


def _record(attempt: Stay, elapsed: float) -> Record:
    from memrun.record import Record  # what comes after the command is loaded after its start

    spec = attempt.spec
    record = Record(spec.name, spec.command)
    record.cgroup = attempt.group.version
    record.enforcement = "sampled" if record.cgroup == "sampled" else "kernel"
    record.pids = [attempt.child.pid, *attempt.child.left]
    record.limit_asked = spec.asked.get("limit", "infinity")
    record.elapsed = elapsed
    record.started, record.ended = iso(attempt.started), iso(attempt.started + elapsed)
    return record


def unstarted(spec: Spec, status: int) -> Record:
    """The record of a command that was not started."""
    from memrun.record import Record

    record = Record(spec.name, spec.command)
    record.limit_asked = spec.asked.get("limit", "infinity")
    record.cgroup = cgroup.version()
    record.started = record.ended = iso(time.time())
    record.result, record.status = "launch", status
    return record


def iso(moment: float) -> str:
    """Seconds since the epoch -> ISO 8601, UTC, milliseconds."""
    whole = int(moment)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((moment - whole) * 1000):03d}Z"


def wish_of(site: Site, spec: Spec, size: Size) -> cgroup.Wish:
    """What the group of a spec is to be. `size`: the limit of this attempt; LimitError where it holds nothing."""
    limit, swap, soft = site.size(size), site.size(spec.swap), site.size(spec.soft)
    if limit is not None and limit < 4096:
        raise LimitError(f"a limit of {limit} bytes holds nothing")
    wish = cgroup.Wish(limit, swap, soft)
    wish.oom_group = spec.oom_group
    wish.hold = spec.on_oom == "pause" and limit is not None
    return wish


def _order(spec: Spec) -> launch.Order:
    if spec.surrounded:
        from memrun import surroundings  # a plain run starts without it

        order = surroundings.order(spec)
    else:
        order = launch.Order(spec.command)
    order.own_group = spec.apart or not _in_a_terminal()
    if spec.streams is not None:
        order.stdin, order.stdout, order.stderr = spec.streams
    order.mask, order.note = spec.mask, spec.note
    # nohup memrun ..., and memrun ... & in a script, mean it for the command, too
    order.keep = order.undo & {signals.HUP, signals.INT, signals.QUIT}
    return order


def _in_a_terminal() -> bool:
    """With a terminal the command shares our process group: the shell's job control (Ctrl-C, Ctrl-Z, fg, bg) and reads
    from the terminal then work as without memrun. Without one it gets a group of its own."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
