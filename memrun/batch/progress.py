"""Where a batch stands, in figures: a Scheduler -> jobs.Progress, and a row for the live view of each job. Reads, never changes.

To read a group's use takes 20 us, and a view looks twice a second: of thousands of jobs those that it can show are read each time, of the rest some
in their turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun.jobs import FIRST, Progress, Row

if TYPE_CHECKING:
    from memrun.batch.entries import Entry
    from memrun.batch.scheduler import Scheduler


FRESH, IN_TURN = 120, 80  # rows


class Uses:
    """What live jobs used when they were looked at last."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}

    def look(self, entries: list[Entry]) -> dict[str, int | None]:
        """Bytes of each, by name; None: it has no group. At least those are read that a view shows first."""
        before, ranked = self._known, sorted(entries, key=lambda entry: _rank(entry.word))
        age = {name: place for place, name in enumerate(before)}  # who was read last is last
        rest = sorted(ranked[FRESH:], key=lambda entry: age.get(entry.name, -1))
        found = {entry.name: before[entry.name] for entry in rest[IN_TURN:] if entry.name in before}
        self._known = found | {entry.name: _usage(entry) for entry in ranked[:FRESH] + rest[:IN_TURN]}
        return self._known


def _rank(word: str) -> int:
    return FIRST.index(word) if word in FIRST else len(FIRST)


def progress(scheduler: Scheduler, began: float, uses: Uses) -> Progress:
    """As of now. `began`: when the run did (trio's clock)."""
    batch = [entry for entry in scheduler.entries.values() if not entry.job.service]
    ended = [entry.outcome for entry in batch if entry.outcome is not None]
    under_way = [entry for entry in scheduler.entries.values() if entry.run is not None and not entry.done]
    used = uses.look(under_way)
    return Progress(
        total=len(batch),
        succeeded=sum(outcome.ok for outcome in ended),
        failed=sum(not outcome.ok and outcome.result not in {"skipped", "stopped"} for outcome in ended),
        skipped=sum(outcome.result == "skipped" for outcome in ended),
        waiting=sum(entry.waiting for entry in batch),
        budget=scheduler.claims.budget,
        committed=scheduler.claims.committed,
        elapsed=trio.current_time() - began,
        left=_left(batch, trio.current_time() - began),
        rows=tuple(_row(entry, used.get(entry.name)) for entry in under_way),
        services=sum(entry.job.service for entry in under_way),
        ending=scheduler.ending,
    )


def _left(batch: list[Entry], elapsed: float) -> float | None:
    """Seconds, if the rest goes as quickly as what was done in this run; None before the first is."""
    done = sum(entry.outcome is not None and not entry.outcome.before for entry in batch)
    left = sum(not entry.done for entry in batch)
    return elapsed / done * left if done else None


def _usage(entry: Entry) -> int | None:
    return entry.run.attempt.group.usage() if entry.alive and entry.run is not None else None


def _row(entry: Entry, usage: int | None) -> Row:
    return Row(entry.name, entry.word, entry.limit_now, usage, entry.launches, trio.current_time() - entry.since, why(entry))


def why(entry: Entry) -> str:
    """What it waits for, in a few words; '' where it does not."""
    if entry.waiting:
        return "for room in the budget" if entry.queued else f"for {', '.join(need.job for need in entry.job.needs)}"
    paused = entry.paused
    if paused is None:
        return "for room in the budget" if entry.queued else ""
    if paused.by != "limit":
        return f"paused by {paused.by}"
    return "at its limit, waits for memory" if entry.asks is not None else "at its limit"
