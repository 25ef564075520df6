"""The job file was read again while it runs: new jobs are added, removed ones stopped, changed ones restarted, the rest is untouched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memrun.batch.up import CHANGED
from memrun.units import format_size

if TYPE_CHECKING:
    from memrun.batch.entries import Entry
    from memrun.batch.scheduler import Scheduler
    from memrun.jobs import Batch, Job


def apply(scheduler: Scheduler, batch: Batch) -> list[str]:
    """Make it so; what is to be said of it."""
    wanted = {job.name: job for job in batch.jobs}
    mask = next((entry.job.spec.mask for entry in scheduler.entries.values()), frozenset[int]())
    said = [
        f"{name} removed"
        for name, entry in list(scheduler.entries.items())
        if name not in wanted and not entry.dropped and _drop(scheduler, entry)
    ]
    for name, job in wanted.items():
        job.spec.mask = mask
        word = _take(scheduler, scheduler.entries.get(name), job)
        if word:
            said.append(f"{name} {word}")
    said += _rebudget(scheduler, batch)
    scheduler.obey(batch)
    return said


def _drop(scheduler: Scheduler, entry: Entry) -> bool:
    """What has ended has ended, and is told of as before."""
    if entry.done:
        return False
    entry.dropped, entry.why = True, "it is not in the file any more"
    if entry.waiting:
        scheduler.forget(entry)
    else:
        scheduler.stop_one(entry)
    return True


def _take(scheduler: Scheduler, entry: Entry | None, job: Job) -> str:
    """One job of the new file; what has changed with it, '' for nothing."""
    if entry is None or (entry.dropped and entry.done):
        scheduler.add(job).launches = 0 if entry is None else entry.launches
        return "added"
    if entry.dropped:
        return "is still being stopped: it is taken in when the file is read once more"
    if not entry.job.differs(job) and entry.job.needs == job.needs:
        return ""
    if entry.done:
        return f"changed: {CHANGED}"
    scheduler.redefine(entry, job)
    return "changed"


def _rebudget(scheduler: Scheduler, batch: Batch) -> list[str]:
    """Of a smaller budget nothing is taken away: nothing is started until it is kept."""
    claims, budget, said = scheduler.claims, scheduler.site.size(batch.memory), []
    if budget != claims.budget:
        said.append(f"memory is {format_size(budget)}")
    if batch.parallel != claims.parallel:
        said.append("parallel is " + ("unbounded" if batch.parallel is None else str(batch.parallel)))
    claims.budget, claims.parallel = budget, batch.parallel
    return said
