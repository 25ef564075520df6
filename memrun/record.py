"""What is known of a run when it is over, and how it is judged. Pure: figures in, a Record out.

The verdict is made of the kernel's counters, read after the reap and before the group is removed, never of the exit status
alone: OOM is not 137 and 137 is not OOM, and a notice that lost its race with the exit cannot change a counter.
Keys are an interface (schema 1); more may be added.
"""

from __future__ import annotations

from memrun import errors
from memrun.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.cgroup import Tally

SCHEMA = 1
SAID = 8  # limits that are listed one by one
RESULTS = (
    "success", "exit-code", "signal", "oom-kill", "host-oom", "timeout", "stopped", "patience", "exhausted", "launch",
    "detached",
)  # fmt: skip


class Record:
    """The result of one run, or of one attempt of it. Sizes are bytes, times seconds, None is unknown (limit: infinity)."""

    name: str
    command: list[str]
    cgroup: str  # "v1" | "v2" | "sampled"
    enforcement: str  # "kernel" | "sampled": whether the limit was kept by the kernel, or by looking (--best-effort)
    pids: list[int]  # the command's, then those it had left behind when it ended
    limit: int | None  # as the kernel has it
    limit_asked: str
    result: str  # one of RESULTS
    exit_code: int | None
    signal: int | None
    status: int  # what memrun exits with
    peak: int | None
    peak_anon: int | None  # anonymous memory (no page cache) at the last limit event, where the kernel told
    swap_peak: int | None
    oom_kills: int  # processes killed by an OOM killer, in the whole tree
    oom_events: int  # times that the job was out of memory at its own limit
    limit_hits: int  # times that the limit was touched (v1 failcnt, v2 "max" events)
    may_have_failed: bool  # at the limit, before it was held: a system call, with ENOMEM, EFAULT or a short count
    elapsed: float
    started: str  # ISO 8601, UTC
    ended: str
    cpu: float | None
    paused: float
    raises: list[dict[str, object]]
    largest: list[dict[str, object]]  # {pid, name, rss} at the last limit event
    patience: float | None  # seconds that somebody had to raise it, or to resume it, where that was not done
    awaited: str  # "raise" | "resume": what that was; "" where nothing was waited for
    attempts: list[Record]
    interference: str  # what somebody else did to its group, '' where nothing is known of that
    note: str  # what else the verdict should say

    def __init__(self, name: str, command: list[str]) -> None:
        self.name, self.command = name, command
        self.cgroup = self.limit_asked = self.result = self.started = self.ended = self.note = self.awaited = ""
        self.interference = ""
        self.enforcement = "kernel"
        self.pids, self.raises, self.largest, self.attempts = [], [], [], []
        self.limit = self.exit_code = self.signal = self.peak = self.peak_anon = self.swap_peak = self.cpu = self.patience = None
        self.status = errors.FAILED
        self.oom_kills = self.oom_events = self.limit_hits = 0
        self.may_have_failed = False
        self.elapsed = self.paused = 0.0

    @classmethod
    def of(cls, words: Mapping[str, object]) -> Record:
        """A record from its JSON object, without its attempts; what that does not have stays unknown."""
        made = cls("", [])
        vars(made).update({key: words[key] for key in cls.__annotations__ if key in words and key != "attempts"})
        return made

    @property
    def ok(self) -> bool:
        """Whether the command did what it was started for."""
        return self.result == "success"

    def as_dict(self) -> dict[str, object]:
        """For JSON, in the documented order; `attempts` only where there is more to say than this record does."""
        shown = {
            "schema": SCHEMA,
            **{key: getattr(self, key) for key in Record.__annotations__ if key not in {"attempts", "note"}},
            "why": self.note,
        }
        shown["elapsed"] = round(self.elapsed, 6)
        shown["attempts"] = [
            {k: v for k, v in attempt.as_dict().items() if k not in {"attempts", "schema"}} for attempt in self.attempts
        ]
        return shown

    def whole(self, attempts: list[Record]) -> Record:
        """The record of a run: its last attempt (this one), from the first one's start, and with all of them if there are more."""
        if len(attempts) == 1:
            return self
        run = Record(self.name, self.command)
        vars(run).update(vars(self))
        run.started = attempts[0].started
        run.elapsed = sum(attempt.elapsed for attempt in attempts)
        run.paused = sum(attempt.paused for attempt in attempts)
        run.attempts = attempts
        return run

    def take_status(self, raw: int | None) -> None:
        """A raw wait status (waitpid's) -> exit_code or signal."""
        if raw is None:
            return
        died_of = raw & 0x7F
        if died_of:
            self.signal = died_of
        else:
            self.exit_code = raw >> 8

    def take_tally(self, tally: Tally) -> None:
        """The kernel's counters, as they stood after the last process was gone."""
        self.limit, self.peak, self.swap_peak = tally.limit, tally.peak, tally.swap_peak
        self.oom_kills, self.oom_events, self.limit_hits = tally.kills, tally.own, tally.hits
        self.may_have_failed = tally.may_have_failed
        if tally.cpu is not None:
            self.cpu = round(tally.cpu, 6)


class Attempts(list[Record]):
    """Records of a run's attempts: the first and the latest ones, for a service may be restarted for years. `ended`: how many there were."""

    most = 1000

    def __init__(self) -> None:
        super().__init__()
        self.ended = 0
        self._out_of_memory = {"oom-kill": 0, "host-oom": 0}
        self._elapsed = self._paused = 0.0  # of those that are forgotten

    def take(self, record: Record) -> None:
        """One more."""
        self.append(record)
        self.ended += 1
        if record.result in self._out_of_memory:
            self._out_of_memory[record.result] += 1
        if len(self) > self.most:
            gone = self.pop(self.most // 2)
            self._elapsed += gone.elapsed
            self._paused += gone.paused

    def whole(self) -> Record:
        """The record of the run, of all its attempts."""
        run = self[-1].whole(self)
        run.elapsed += self._elapsed
        run.paused += self._paused
        return run

    def concluded(self, why: str) -> Record:
        """The same, when the policy has said that it is over, and why."""
        run = self.whole()
        if why == "exhausted":
            run.note = "; ".join(filter(None, [self.used_up(), run.note]))
        if why in {"exhausted", "launch"} or (why == "stopped" and not run.oom_kills):
            run.result = why
        return run

    def used_up(self) -> str:
        """How many there were, and how many of them ended for want of memory, at which limits."""
        parts = [f"{self.ended} attempt{'s' * (self.ended > 1)}"]
        at_limit, outside = self._out_of_memory["oom-kill"], self._out_of_memory["host-oom"]
        if at_limit:
            parts.append(f"{self._share(at_limit)}killed for memory at {_limits(self)}")
        if outside:
            parts.append(f"{self._share(outside)}killed because memory ran out outside of the limit")
        return ", ".join(parts)

    def _share(self, some: int) -> str:
        if self.ended == 1:
            return ""
        return "all " if some == self.ended else f"{some} of them "


def _limits(attempts: list[Record]) -> str:
    """The limits at which attempts were killed, in the order in which they were given."""
    said = list(dict.fromkeys(format_size(attempt.limit) for attempt in attempts if attempt.result == "oom-kill"))
    if len(said) > SAID:
        return f"{len(said)} limits from {said[0]} to {said[-1]}"
    return f"the limit{'s' * (len(said) > 1)} of {', '.join(said)}"


def judge(record: Record, why: str, tally: Tally, *, oom_group: bool) -> None:
    """Fill in `result`, `status` and `note`. `why`: what memrun itself did first ('' | a word of RESULTS)."""
    own = errors.died_of(record.signal) if record.signal is not None else record.exit_code
    if own is not None:
        record.status = own
    oom = out_of_memory(tally)
    if oom and (oom_group or why in {"", "oom-kill"}):
        record.result = oom
        if oom_group and why in {"", "oom-kill"}:
            record.status = errors.died_of(9)  # the job as a whole died of it, also if its first process was quicker
        if oom == "host-oom" and tally.outer:
            record.note = "the limit of an enclosing group was reached"
    elif why:
        record.result = why if why in RESULTS else "stopped"
        record.status = errors.TIMED_OUT if why == "timeout" else record.status
    elif record.signal is not None:
        record.result = "signal"
    else:
        record.result = "exit-code" if record.exit_code else "success"


def out_of_memory(tally: Tally) -> str:
    """'oom-kill' (its own limit), 'host-oom' (decided above it), '' (nobody was killed, or at a limit of the job's own making)."""
    if not tally.kills:
        return ""
    if tally.own:
        return "oom-kill"
    return "" if tally.nested else "host-oom"
