"""Where a batch stands, in figures: a Scheduler -> jobs.Progress, and a row for `ps` of each job. Reads, never changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun.jobs import Progress, Row

if TYPE_CHECKING:
    from memrun.batch.entries import Entry
    from memrun.batch.scheduler import Scheduler


def progress(scheduler: Scheduler, began: float) -> Progress:
    """As of now. `began`: when the run did (trio's clock)."""
    batch = [entry for entry in scheduler.entries.values() if not entry.job.service]
    ended = [entry.outcome for entry in batch if entry.outcome is not None]
    under_way = [entry for entry in scheduler.entries.values() if entry.run is not None and not entry.done]
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
        rows=tuple(_row(entry) for entry in under_way),
        services=sum(entry.job.service for entry in under_way),
        ending=scheduler.ending,
    )


def _left(batch: list[Entry], elapsed: float) -> float | None:
    """Seconds, if the rest goes as quickly as what was done in this run; None before the first is."""
    done = sum(entry.outcome is not None and not entry.outcome.before for entry in batch)
    left = sum(not entry.done for entry in batch)
    return elapsed / done * left if done else None


def _row(entry: Entry) -> Row:
    usage = entry.run.attempt.group.usage() if entry.alive and entry.run is not None else None
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
