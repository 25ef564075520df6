"""Processes that memrun did not start, under a limit for a while: found, moved with all that descends from them, and put back.

The order is what makes it safe. Nothing is moved before everybody was looked at; before a process leaves its group, that group has
been asked whether it would take it back, and the hand knows where it came from; what fails halfway puts everybody back. A
process that is moved takes its future children along, so parents go first, and the looks are repeated until one finds nobody who
is still outside.

They are not our children: that they have ended is seen through pidfds and by the group being empty, and how they ended nobody tells
us. Being let go is not an end: limits are taken away first (that wakes who is parked), then each goes back. Only what a person or a
rule commands (stop, kill, a timeout, patience, the limit itself) ends them.
"""

from __future__ import annotations

import errno
import time

from memrun import kin, signals, strangers
from memrun.cgroup import homes
from memrun.errors import GroupError, MemrunError, RefusedError, UsageError, died_of
from memrun.job import taken, wish_of
from memrun.options import Spec
from memrun.options import parse as parse_options
from memrun.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.cgroup import Group
    from memrun.job import Process, Site
    from memrun.record import Record
    from memrun.strangers import Strangers

SENSIBLE = {
    "limit", "swap", "soft", "on_oom", "grow", "ceiling", "patience", "oom_group", "at", "on_event", "pressure", "timeout", "stop_signal",
    "stop_timeout", "wait_all", "name", "report", "events", "log_target", "quiet", "verbose",
}  # fmt: skip
ROUNDS = 100  # looks, before we say that we cannot keep up
IMMUNE = -1000
USAGE = """\
memrun attach --limit SIZE [OPTIONS] PID...

Put running processes, and all that descend from them, under a memory limit, until they end. Ctrl-C (or TERM to memrun) lets
them go: each goes back to the group that it came from. `memrun stop NAME` and `memrun kill NAME` end them.

What they use already stays charged to where it was (only old kernels with cgroup v1 can move it): the limit is for what they
take from then on. How they ended nobody tells memrun: its own exit status is 0 when they ended by themselves, and 137 when
they were killed at the limit.

options: --limit, --swap, --soft, --on-oom kill|pause, --grow, --ceiling, --patience, --oom-group, --at, --on-event, --pressure, --timeout,
  --stop-signal, --stop-timeout, --name, --report, --events, --log-target, --quiet, --verbose, as in memrun --help. Options come before the PIDs.
"""


def parse(words: Sequence[str]) -> tuple[Spec, list[int]]:
    """A command line without `attach` -> what they are to be held to, and who."""
    spec = parse_options(words)
    for key in spec.asked:
        if key not in SENSIBLE:
            raise UsageError(f"--{key.replace('_', '-')} makes no sense with attach: memrun did not start these processes")
    actions = {mark.action.do for mark in spec.at} | {rule.action.do for rule in spec.pressure}
    if "restart" in {spec.on_oom} | actions:
        raise UsageError("attach cannot restart what memrun did not start", "At the limit it can kill or pause")
    if "limit" not in spec.asked:
        raise UsageError("attach wants a --limit", "Try: memrun attach --limit 1G PID")
    if not spec.command:
        raise UsageError("no PID was given", "Try: memrun attach --limit 1G PID")
    spec.wait_all = True
    return spec, list(dict.fromkeys(_pid(word) for word in spec.command))


def _pid(word: str) -> int:
    if not (word.isdecimal() and word.isascii()) or len(word) > 9:
        raise UsageError(f"{word!r} is not a PID", "Options come before the PIDs" if word.startswith("-") else "")
    return int(word)


def introduce(spec: Spec, found: Strangers) -> None:
    """What they are called, as far as nobody said so: after the first one's command."""
    spec.command = kin.command(found.pid)
    if "name" not in spec.asked:
        spec.name = Spec(spec.command).name


class Attachment:
    """Those processes in a group of ours, as `job.Stay` has it."""

    borrowed = True

    def relieve(self) -> bool:
        """Nobody watches but the event loop."""
        return False

    def __init__(self, site: Site, spec: Spec, child: Strangers) -> None:
        self.site, self.spec = site, spec
        self.child: Process = child
        self._named = child
        self.seen: list[dict[str, object]] = []
        self.account = ""  # what was moved and what was not, for people
        self._immune = spec.on_oom == "pause" and spec.limit is not None and site.host.version == "v2"
        self._ways = homes.hierarchies(site.host.places())
        self._homes: dict[int, tuple[str, ...]] = {}  # where each came from, in step with _ways
        self._scores: dict[int, int] = {}
        self._doubted: set[int] = set()
        self._loose = False
        self._limit: int | None = None  # before they were let go
        self.logged = -1
        self.started, self.began = time.time(), time.monotonic()
        self.group: Group = site.host.create(f"{spec.name}.1", wish_of(site, spec, spec.limit))
        try:
            self.logged = site.listen()
            self._move_all()
        except BaseException:
            self.rid()
            self.group.remove()
            self.close()
            raise

    @property
    def holds(self) -> bool:
        """Whether they are to be held at the limit."""
        return self.spec.on_oom == "pause" and self.group.limit is not None

    # In

    def _move_all(self) -> None:
        carried = homes.carries(self.group.path)
        table = kin.look()
        family = kin.Family(self._named.named(), table)  # who is alive now is who was looked at
        members = family.look(table)
        if not members:
            raise RefusedError("they have ended meanwhile")
        held = sum(kin.memory(pid) for pid in members)
        limit = self.group.limit
        if carried and limit is not None and held > limit:
            said = f"they hold {format_size(held)}, which would be moved with them: more than the limit of {format_size(limit)}"
            raise RefusedError(said, "Give them a larger --limit")
        for _ in range(ROUNDS):
            if not [pid for pid in members if self._take(pid)]:
                self.account = self._told(held, carried=carried)
                return
            members = family.look(kin.look())
        raise RefusedError("they start new processes faster than these can be moved", "Hold them still first: kill -STOP")

    def _take(self, pid: int) -> bool:
        """Move one process; False where there is nothing to do: it was born inside, or has ended."""
        groups = strangers.groups_of(pid)
        if not groups or all(way.holds(groups) for way in self._ways):
            return False
        if self._is_newborn(pid):
            return True
        if pid not in self._homes:
            self._remember(pid, groups)
        if self._immune:
            kin.set_score(pid, IMMUNE)
        failed = homes.enter(self.group.procs_fds(), pid)
        if failed not in {0, errno.ESRCH}:
            raise self._failure(pid, failed)
        return True

    def _is_newborn(self, pid: int) -> bool:
        """While it is being forked a process is seen in the root group for a moment, and only then where its parent is. So a child
        of somebody who was moved is believed to be elsewhere only when a second look says so."""
        one = kin.read(pid)
        if one is None or one.parent not in self._homes or pid in self._doubted:
            return False
        self._doubted.add(pid)
        return True

    def _remember(self, pid: int, groups: dict[str, str]) -> None:
        """Where it came from, for us and for the hand; RefusedError where it could not go back there."""
        strangers.refuse_anybody(pid, groups)
        found = [way.home(groups) for way in self._ways]
        for home in found:
            why = (
                f"its group cannot be seen from here ({sorted(set(groups.values()))})"
                if home is None
                else homes.refusal(pid, home)
            )
            if why:
                raise RefusedError(f"process {pid} ({strangers.name_of(pid)}) cannot be attached: {why}")
        places = tuple(home for home in found if home is not None)
        usual, score = next(iter(self._homes.values()), None), kin.score(pid)
        for number, home in enumerate(places, 1):
            if usual is None or usual[number - 1] != home:
                self.site.hand.tell(f"{pid if usual else '*'} {number} {home}")
        if self._immune and score is not None:
            self.site.hand.tell(f"{pid if usual else '*'} score {score}")
            self._scores[pid] = score
        self._homes[pid] = places

    def _failure(self, pid: int, number: int) -> MemrunError:
        who = f"process {pid} ({strangers.name_of(pid)})"
        if number == errno.ENOMEM:
            has = format_size(kin.memory(pid))
            said = f"{who} cannot be moved: the {has} that it has do not fit below the limit of {format_size(self.group.limit)}"
            return RefusedError(said, "Give them a larger --limit")
        if number in {errno.EACCES, errno.EPERM}:
            return RefusedError(f"{who} cannot be moved: that is not permitted")
        return GroupError("move", self.group.path, number, str(pid))

    def _told(self, held: int, *, carried: bool) -> str:
        count, limit = len(self._homes), self.group.limit
        said = f"{self.spec.name}: attached: {count} process{'es' if count > 1 else ''} under a limit of {format_size(limit)}; "
        if carried:
            return said + f"{format_size(self.group.usage())} moved with them"
        more = ", more than the limit" if limit is not None and held > limit else ""
        said += (
            f"what they have ({format_size(held)}{more}) stays charged where it was, the limit is for what they take from now on"
        )
        exempt = [pid for pid in self._homes if not self._immune and kin.score(pid) == IMMUNE]
        return said + (f"; the kernel may not kill {', '.join(map(str, exempt))} (oom_score_adj {IMMUNE})" if exempt else "")

    # Out

    def rid(self) -> bool:
        """Let them go: no limit, nobody held, each back to where it came from. True once nobody is left in the group."""
        if not self._loose:
            self._loosen()
        for _ in range(ROUNDS):
            left = self.group.pids()
            if not left:
                break
            for pid in left:
                self._put_back(pid)
        homes.wake(self.group.path)
        return not self.group.pids()

    def _loosen(self) -> None:
        """Without a limit first: whoever is parked there would stay so, also in another group."""
        self._loose, self._limit = True, self.group.limit
        for act in (self._unlimit, self.group.thaw):
            try:
                act()
            except MemrunError:
                continue  # no freezer, nobody frozen

    def _unlimit(self) -> None:
        self.group.set_limit(None)

    def _put_back(self, pid: int) -> None:
        groups = strangers.groups_of(pid)
        kept = self._lineage(pid)
        if self._immune and kin.score(pid) == IMMUNE and kept in self._scores:
            kin.set_score(pid, self._scores[kept])
        for way, home in zip(self._ways, self._homes.get(kept, ()), strict=False):
            if way.holds(groups):  # somebody else may have moved it
                way.put(pid, home)

    def _lineage(self, pid: int) -> int:
        """The process itself if it was moved, else the nearest one above it that was, else the first."""
        seen = pid
        while seen not in self._homes and (one := kin.read(seen)) is not None and one.parent:
            seen = one.parent
        return seen if seen in self._homes else next(iter(self._homes), 0)

    def finish(self, why: str) -> Record:
        """The record; who had been let go is not in the group any more."""
        left = self.group.pids()

        def own(record: Record) -> None:
            record.pids = list(self._homes)
            record.status = self._status(why)
            record.limit = self._limit if self._loose else record.limit
            if left:
                record.note = f"{len(left)} could not be put back: they are in {self.group.path}, without a limit"

        record = taken(self, why, own)
        if record.result in {"oom-kill", "host-oom"}:
            record.status = died_of(signals.KILL)
        return record

    def _status(self, why: str) -> int:
        """Nobody tells how they ended; but what memrun did is known."""
        if why in {"", "detached"}:
            return 0
        return died_of(signals.KILL if self._named.killed else self.spec.stop_signal)

    def close(self) -> None:
        """Let go of every descriptor."""
        self.group.close()
        self.child.close()
