"""What runs of a batch's jobs want and tell, on its way to the one who decides (scheduler.py).

Whatever a run wants (more memory, a further attempt) becomes a claim in the books of the budget; whatever it tells becomes a line in
the ledger. Nothing is granted in here but what the scheduler's plan says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import events
from memrun.jobs import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.batch.berth import Berths
    from memrun.batch.claims import Claims
    from memrun.batch.entries import Entry
    from memrun.batch.ledger import Ledger
    from memrun.supervisor import Run


class BatchUsher:
    """The Usher (memrun/usher.py) of all runs of one batch. `heard` is told (entry, event or Tell; an Outcome, just before it is final;
    None: something may be possible that was not)."""

    def __init__(self, claims: Claims, ledger: Ledger, berths: Berths, heard: Callable[[Entry, object], None]) -> None:
        self._claims, self._ledger, self._berths, self._heard = claims, ledger, berths, heard
        self.launched: dict[Run, Entry] = {}  # in this order
        self.unasked = False  # what runs is killed without having been asked to stop

    # What runs tell

    def hear(self, entry: Entry, what: events.Event | events.Tell) -> None:
        """One event of a job's, before it is acted upon."""
        self._claims.touch(entry)
        match what:
            case events.Launched():
                entry.started = True
                entry.since = trio.current_time()
                self._ledger.note(entry.name, entry.launches, "launched")
            case events.Settled(_, result):
                self._berths.clear(entry)
                self._ledger.note(entry.name, entry.launches, "settled", result)
                if result != "success":
                    self._berths.will.note(f"- {entry.name.encode('unicode_escape').decode()}")
            case events.Reached() | events.RaiseAsked() | events.PauseAsked() | events.ResumeAsked() | events.Granted():
                entry.since = trio.current_time()
                self._ledger.note(entry.name, entry.launches, type(what).__name__.lower(), str(getattr(what, "limit", "")))
        self._heard(entry, what)

    def asked(self, run: Run) -> None:
        """It is about to be signalled. Not where it is killed without having been asked: then an exit with 0 was its own."""
        if not self.unasked:
            self._berths.will.note(f"! {run.attempt.child.pid}")

    def finished(self, run: Run) -> None:
        """Success is written down with the exit that told of it: in one commit, or neither."""
        entry, record = self.launched[run], run.record
        assert record is not None
        if self.unasked and record.result == "stopped" and record.exit_code == 0:
            record.result = "success"  # nobody has asked it to end: it did so before the kill came
        self._heard(entry, Outcome(entry.name, record.result))
        if record.result == "success":
            self._ledger.ended(entry.name, record.result, entry.why, record.as_dict())

    # What they want

    def launch(self, run: Run, limit: int | None) -> None:
        """It wants another attempt: queued, as old as it is."""
        entry = self.launched[run]
        limit, entry.new_limit = (limit, None) if entry.new_limit is None else (entry.new_limit, None)
        entry.limit = self._claims.clipped(entry, limit)
        self._claims.queue(entry)
        self._ledger.grown(entry.name, entry.limit)
        self._heard(entry, None)

    def ask(self, run: Run, limit: int) -> None:
        """It is held at its limit: what it wants is claimed, as far as the budget goes at all."""
        entry = self.launched[run]
        if self._claims.ask(entry, limit):
            self._heard(entry, None)
        else:
            run.send(events.Denied(trio.current_time()))

    def may_lend(self, run: Run) -> bool:
        """Only what nobody else was promised."""
        return self._claims.may_lend(run.attempt.group.limit)

    def allow(self, run: Run, limit: int | None) -> None:
        """RefusedError where the budget has not got it."""
        self._claims.allow(self.launched[run], limit)

    # What they get

    def grant(self, entry: Entry, limit: int) -> None:
        """It goes on with this limit."""
        entry.asks = None
        if entry.run is not None and entry.paused is not None:
            entry.run.command(events.Granted(trio.current_time(), limit))

    def let_give_way(self, entry: Entry, why: str) -> None:
        """Of those who wait for each other, this one begins again."""
        entry.asks, entry.why = None, ""
        if entry.run is not None:
            self._ledger.note(entry.name, entry.launches, "gives-way", why)
            entry.run.remark = why
            self._heard(entry, events.Tell("gives-way", why))
            entry.run.command(events.GiveWayAsked(trio.current_time()))
