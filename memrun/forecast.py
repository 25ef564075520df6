"""How a batch would go if every job took equally long: in which rounds, and whether memory is what holds it back. Pure.

Nobody knows how long jobs take before they have run. Rounds of equal length still tell what people ask of a plan: what comes
first, what may run beside what, how long the longest chain is, and how many rounds less it were with memory without end.
The rule is the admission's: oldest first, whoever fits.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memrun.jobs import Job


@dataclass(slots=True)
class Round:
    """Who is started in it; `memory`: the limits of all that run (bytes), `places`: how many that are; `short`: who was ready, and had to
    wait for memory."""

    jobs: list[Job] = field(default_factory=list)
    memory: int = 0
    places: int = 0
    short: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`budget`: bytes, `slots`: jobs at a time; None is no bound."""

    budget: int | None
    slots: int | None


@dataclass(slots=True)
class _Course:
    """Where the forecast stands. `ready`: a heap by the order in the file, `waiting`: how many in it have which size; `held`,
    `places`: what services have for good."""

    sizes: Mapping[str, int]
    bounds: Bounds
    left: dict[str, int]
    after: Mapping[str, list[tuple[str, str]]]
    jobs: Mapping[str, Job]
    ready: list[tuple[int, str]] = field(default_factory=list)
    waiting: Counter[int] = field(default_factory=Counter)
    held: int = 0
    places: int = 0


def rounds(jobs: Sequence[Job], sizes: Mapping[str, int], bounds: Bounds) -> list[Round]:
    """Until every job had its turn. `sizes`: bytes of each job's limit, 0 for one without."""
    course = _course(jobs, sizes, bounds)
    found: list[Round] = []
    while course.ready:
        this = _round(course)
        if not this.jobs:
            return found  # what is left can never fit: not ours to say
        found.append(this)
        for job in this.jobs:
            if not job.service:
                _passed(course, job.name, {"succeeded", "finished"})
    return found


def _course(jobs: Sequence[Job], sizes: Mapping[str, int], bounds: Bounds) -> _Course:
    known = {job.name: job for job in jobs}
    after: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for job in jobs:
        for need in job.needs:
            after[need.job].append((job.name, need.until))
    left = {job.name: len(job.needs) for job in jobs}
    course = _Course(sizes, bounds, left, after, known)
    for job in jobs:
        if not job.needs:
            _ready(course, job)
    return course


def _ready(course: _Course, job: Job) -> None:
    heapq.heappush(course.ready, (job.order, job.name))
    course.waiting[course.sizes[job.name]] += 1


def _passed(course: _Course, name: str, until: set[str]) -> None:
    """That job got so far: who waited for nothing else is ready."""
    for other, wanted in course.after.get(name, ()):
        if wanted in until:
            course.left[other] -= 1
            if not course.left[other]:
                _ready(course, course.jobs[other])


def _round(course: _Course) -> Round:
    """Who waits only for the start of another joins in the same round."""
    this = Round(memory=course.held, places=course.places)
    skipped: list[Job] = []
    while course.ready and (course.bounds.slots is None or this.places < course.bounds.slots):
        if not _fits(course, this, min(size for size, count in course.waiting.items() if count)):
            this.short = len(course.ready)
            break
        job = course.jobs[heapq.heappop(course.ready)[1]]
        course.waiting[course.sizes[job.name]] -= 1
        if _fits(course, this, course.sizes[job.name]):
            _start(course, this, job)
        else:
            skipped.append(job)
    this.short += len(skipped)
    for job in skipped:
        _ready(course, job)
    return this


def _start(course: _Course, this: Round, job: Job) -> None:
    this.jobs.append(job)
    this.memory += course.sizes[job.name]
    this.places += 1
    if job.service:
        course.held += course.sizes[job.name]
        course.places += 1
    _passed(course, job.name, {"started"})


def _fits(course: _Course, this: Round, size: int) -> bool:
    return course.bounds.budget is None or this.memory + size <= course.bounds.budget


def ordered(jobs: Sequence[Job]) -> list[Job]:
    """So that everybody comes after those it waits for; as in the file where there is a choice."""
    return [
        job for this in rounds(jobs, dict.fromkeys((job.name for job in jobs), 0), Bounds(None, 1 << 60)) for job in this.jobs
    ]


def longest_chain(jobs: Sequence[Job]) -> list[str]:
    """Names of jobs that must run one after the other: no batch is quicker than that. Services do not count."""
    length: dict[str, int] = {}
    before: dict[str, str] = {}
    for job in ordered(jobs):
        best = max((need.job for need in job.needs), key=lambda name: length[name], default="")
        before[job.name] = best
        length[job.name] = (length[best] if best else 0) + (not job.service)
    at = max(length, key=lambda name: length[name], default="")
    services = {job.name for job in jobs if job.service}
    chain = []
    while at:
        chain.append(at)
        at = before[at]
    return [name for name in reversed(chain) if name not in services]
