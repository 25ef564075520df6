"""One job of a batch as its scheduler sees it: what it waits for, what it holds, what became of it. No kernel, no time of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import states

if TYPE_CHECKING:
    from memrun.jobs import Job, Outcome
    from memrun.output import Sink
    from memrun.supervisor import Run


class Entry:
    """`limit`: bytes that its next attempt is to get; `rank`: its age, once nothing but room is missing; `reserved`: bytes that it was promised and does not have yet; `asks`: bytes that it wants to go on with, held at its
    limit, since `asked` (a rank, too); `launches`: attempts of all runs of memrun; `since`: when its state last changed (monotonic)."""

    def __init__(self, job: Job, limit: int | None) -> None:
        self.job = job
        self.limit = limit
        self.new_limit: int | None = None  # of a new definition, for the next attempt
        self.launches = 0
        self.rank = -1
        self.queued = False  # it claims room for an attempt now
        self.reserved: int | None = None
        self.asks: int | None = None
        self.asked = 0
        self.run: Run | None = None
        self.sinks: list[Sink] = []
        self.pumps: list[trio.CancelScope] = []
        self.logs: list[str] = []
        self.started = False
        self.stopped = False  # somebody has asked for its end
        self.dropped = False  # it is not in the file any more
        self.changed = False  # it has another definition than the one that is being launched
        self.outcome: Outcome | None = None
        self.over = trio.Event()
        self.since = 0.0
        self.why = ""

    @property
    def name(self) -> str:
        """The job's."""
        return self.job.name

    @property
    def done(self) -> bool:
        """Nothing more will come of it."""
        return self.outcome is not None

    @property
    def alive(self) -> bool:
        """It has a group."""
        return self.run is not None and not self.done and self.run.alive

    @property
    def waiting(self) -> bool:
        """It has not been started, and may be yet."""
        return self.run is None and not self.done and self.reserved is None

    @property
    def limit_now(self) -> int | None:
        """Bytes: of its group, or of its next one."""
        return self.run.attempt.group.limit if self.alive and self.run is not None else self.limit

    @property
    def held(self) -> int:
        """Bytes of the budget that are its own: what its group has, or what it was promised if that is more."""
        limit = self.run.attempt.group.limit if self.run is not None and self.run.alive else 0
        return max(limit or 0, self.reserved or 0)

    @property
    def busy(self) -> bool:
        """It takes a slot."""
        return self.alive or self.reserved is not None

    @property
    def paused(self) -> states.Paused | None:
        """By whom, where it is."""
        if not self.alive or self.run is None:
            return None
        phase = self.run.state.phase
        held = phase.paused if isinstance(phase, states.Lent) else phase
        return held if isinstance(held, states.Paused) else None

    @property
    def word(self) -> str:
        """One of jobs.STATES."""
        if self.outcome is not None:
            return "EXITED" if self.outcome.ok or self.outcome.result in {"stopped", "skipped"} else "FATAL"
        if self.run is None:
            return "WAITING" if self.reserved is None else "STARTING"
        return "WAITING" if self.queued else states.WORDS[type(self.run.state.phase)]
