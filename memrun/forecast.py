"""How a batch would go if every job took equally long: in which rounds, and whether memory is what holds it back. Pure.

Nobody knows how long jobs take before they have run. Rounds of equal length still tell what people ask of a plan: what comes
first, what may run beside what, how long the longest chain is, and how many rounds less it were with memory without end.
The rule is the admission's: oldest first, whoever fits.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memrun.jobs import Job


@dataclass(slots=True)
class Round:
    """Who is started in it; `memory`: the limits of all that run (bytes); `short`: who was ready, and had to wait for memory."""

    jobs: list[Job] = field(default_factory=list)
    memory: int = 0
    short: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """`budget`: bytes, `slots`: jobs at a time; None is no bound."""

    budget: int | None
    slots: int | None


@dataclass(slots=True)
class _Course:
    """Where the forecast stands. `ready`: by order in the file; `held`, `places`: what services have for good."""

    sizes: Mapping[str, int]
    bounds: Bounds
    left: dict[str, int]
    after: Mapping[str, list[tuple[str, str]]]
    jobs: Mapping[str, Job]
    ready: list[Job]
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
    return _Course(sizes, bounds, left, after, known, [job for job in jobs if not job.needs])


def _passed(course: _Course, name: str, until: set[str]) -> None:
    """That job got so far: who waited for nothing else is ready."""
    for other, wanted in course.after.get(name, ()):
        if wanted in until:
            course.left[other] -= 1
            if not course.left[other]:
                course.ready.append(course.jobs[other])


def _round(course: _Course) -> Round:
    this = Round(memory=course.held)
    course.ready.sort(key=lambda job: job.order)
    rest: list[Job] = []
    taken = course.places
    smallest = min((course.sizes[job.name] for job in course.ready), default=0)
    queue, course.ready = course.ready, []
    for number, job in enumerate(queue):  # jobs that wait only for a start may join meanwhile: they go to course.ready
        if course.bounds.slots is not None and taken >= course.bounds.slots:
            rest += queue[number:]
            break
        size = course.sizes[job.name]
        if not _fits(course.bounds, this.memory + size):
            rest.append(job)
            this.short += 1
            if not _fits(course.bounds, this.memory + smallest):
                this.short += len(queue) - number - 1
                rest += queue[number + 1 :]
                break
            continue
        _start(course, this, job)
        taken += 1
    course.ready += rest
    return this


def _start(course: _Course, this: Round, job: Job) -> None:
    this.jobs.append(job)
    this.memory += course.sizes[job.name]
    if job.service:
        course.held += course.sizes[job.name]
        course.places += 1
    _passed(course, job.name, {"started"})


def _fits(bounds: Bounds, memory: int) -> bool:
    return bounds.budget is None or memory <= bounds.budget


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
