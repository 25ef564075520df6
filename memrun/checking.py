"""`memrun check FILE`: what a job file comes to, without starting anything; `memrun check --schema`: what may stand in one."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from memrun import cgroup, errors, forecast, jobfile, launch
from memrun.errors import LaunchError, UsageError
from memrun.job import whole
from memrun.options import nearest
from memrun.report import clean
from memrun.units import Share, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memrun.forecast import Round
    from memrun.jobfile import Loaded
    from memrun.jobs import Batch, Job

FLAGS = ("--json", "--schema", "--help", "-h")
FEW = 3  # jobs of a table that are named one by one
MOST_ROUNDS = 40  # that are shown
USAGE = """\
memrun check FILE [JOB...]        what a job file comes to: in which order, what may run beside what, whether memory is short
memrun check FILE --json          the same for programs
memrun check --schema             the JSON Schema of job files, for editors

exit status: 0 if the file can be run, 125 with every problem on stderr if not. Nothing is started, nothing is made.
"""


def main(words: list[str]) -> int:
    """memrun check."""
    flags = {word for word in words if word.startswith("-") and word != "-"}
    for flag in sorted(flags - set(FLAGS)):
        raise UsageError(f"memrun check has no option {flag}", nearest(flag, FLAGS) or "See memrun check --help")
    plain = [word for word in words if word not in flags]
    said = _answer(flags, plain)
    known = sys.stdout.encoding or "ascii"
    sys.stdout.write(said.encode(known, "replace").decode(known))  # a name may hold what this terminal cannot show
    sys.stdout.flush()  # a reader that left is an error while somebody is there to hear of it
    return errors.SUCCESS


def _answer(flags: set[str], plain: list[str]) -> str:
    if flags & {"--help", "-h"}:
        return USAGE
    if "--schema" in flags:
        return _json(jobfile.schema())
    if not plain:
        raise UsageError("memrun check wants a job file", "Try: memrun check jobs.toml")
    loaded = jobfile.examine(plain[0], only=plain[1:], whole=whole_here())
    found = Findings(loaded)
    return _json(found.as_object()) if "--json" in flags else found.as_text(plain[0])


def _json(value: object) -> str:
    import json

    return json.dumps(value, indent=1) + "\n"


def whole_here() -> int:
    """Bytes that percentages are of, here; no group is made for that."""
    return whole(cgroup.enclosing())


class Findings:
    """A loaded file, and what is to be said of it."""

    def __init__(self, loaded: Loaded) -> None:
        self.batch = loaded.batch
        self.budget = loaded.budget
        self.sizes = {job.name: _bytes(job, loaded.whole) for job in self.batch.jobs}
        bounds = forecast.Bounds(loaded.budget, self.batch.parallel)
        self.rounds = forecast.rounds(self.batch.jobs, self.sizes, bounds)
        self.free = forecast.rounds(self.batch.jobs, self.sizes, forecast.Bounds(None, self.batch.parallel))
        self.chain = forecast.longest_chain(self.batch.jobs)
        self.notes = [*loaded.notes, *notes(self.batch)]

    def as_object(self) -> dict[str, object]:
        """For programs. Stable keys; more may be added."""
        turn = {job.name: number for number, this in enumerate(self.rounds, 1) for job in this.jobs}
        return {
            "schema": 1,
            "file": self.batch.path,
            "memory": self.budget,
            "parallel": self.batch.parallel,
            "on_failure": self.batch.on_failure,
            "order": [job.name for this in self.rounds for job in this.jobs],
            "rounds": [{"jobs": [j.name for j in r.jobs], "memory": r.memory, "short": r.short} for r in self.rounds],
            "rounds_with_memory_without_end": len(self.free),
            "longest_chain": self.chain,
            "jobs": [_as_object(job, self.sizes[job.name] or None, turn.get(job.name)) for job in self.batch.jobs],
            "notes": self.notes,
        }

    def as_text(self, name: str) -> str:
        """For people."""
        services = [job for job in self.batch.jobs if job.service]
        lines = [
            f"{clean(name)}: {_said(len(self.batch.jobs) - len(services), len(services))}; {_bounds(self.batch, self.budget)}",
            "",
        ]
        lines += _table_of(self.rounds, self.sizes)
        lines += ["", *self._conclusions()]
        if self.notes:
            lines += ["", "worth knowing:", *(f"  {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def _conclusions(self) -> list[str]:
        most = max(self.rounds, key=lambda this: len(this.jobs), default=forecast.Round())
        short = sum(bool(this.short) for this in self.rounds)
        found = [
            f"at once        up to {len(most.jobs)}, within {format_size(max((this.memory for this in self.rounds), default=0))}"
        ]
        chain = self.chain if len(self.chain) <= 6 else [*self.chain[:3], "...", *self.chain[-2:]]
        if chain:
            found.append(f"longest chain  {_number(len(self.chain), 'job')}: {' -> '.join(chain)}")
        if self.budget is None:
            found.append("memory         no budget: nothing waits for it")
        elif short:
            more = f"; {_number(len(self.free), 'round')} instead of {len(self.rounds)} with memory without end"
            found.append(f"memory         holds jobs back in {short} of {_number(len(self.rounds), 'round')}{more}")
        else:
            found.append("memory         holds nothing back")
        return found


def _bytes(job: Job, whole: int | None) -> int:
    limit = job.spec.limit
    return (limit.of(whole or 0) if isinstance(limit, Share) else limit) or 0


def _as_object(job: Job, limit: int | None, turn: int | None) -> dict[str, object]:
    return {
        "name": job.name,
        "table": job.table,
        "command": job.spec.command,
        "limit": limit,
        "depends_on": [{"job": need.job, "until": need.until} for need in job.needs],
        "service": job.service,
        "variables": dict(job.variables),
        "working_dir": job.spec.working_dir,
        "log": job.output.log or None,
        "round": turn,
        "digest": job.digest,
    }


def _said(jobs: int, services: int) -> str:
    return " and ".join(_number(count, what) for count, what in ((jobs, "job"), (services, "service")) if count) or "no job"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _bounds(batch: Batch, budget: int | None) -> str:
    share = f" ({batch.memory!r})" if isinstance(batch.memory, Share) else ""
    memory = "no memory budget" if batch.memory is None else f"memory {format_size(budget)}{share}"
    at_once = f"{batch.parallel} at a time" if batch.parallel else "as many at a time as fit"
    return f"{memory}, {at_once}, on failure {batch.on_failure}"


def _table_of(found: Sequence[Round], sizes: Mapping[str, int]) -> list[str]:
    """Who would be started in which round."""
    rows = [("round", "memory", "starts")]
    for number, this in enumerate(found[:MOST_ROUNDS], 1):
        waits = f"   ({this.short} more {'waits' if this.short == 1 else 'wait'} for memory)" if this.short else ""
        rows.append((str(number), format_size(this.memory), ", ".join(_grouped(this.jobs, sizes)) + waits))
    wide = max(len(memory) for _, memory, _ in rows)
    lines = [f"{number:>5}  {memory:>{wide}}  {starts}" for number, memory, starts in rows]
    if len(found) > MOST_ROUNDS:
        lines.append(f"{'...':>5}  {'':>{wide}}  and {len(found) - MOST_ROUNDS} more rounds")
    return lines


def _grouped(jobs: Iterable[Job], sizes: Mapping[str, int]) -> list[str]:
    tables: dict[str, list[Job]] = {}
    for job in jobs:
        tables.setdefault(job.table, []).append(job)
    found = []
    for name, some in tables.items():
        mark = " (service)" if some[0].service else ""
        size = format_size(sizes[some[0].name] or None) if sizes[some[0].name] else "no limit"
        if len(some) <= FEW:
            found += [f"{job.name} {size}{mark}" for job in some]
        else:
            found.append(f"{len(some)} of {name} {size} each{mark}")
    return found


def notes(batch: Batch) -> list[str]:
    """What may be meant, and may be not."""
    found = []
    batch_jobs = [job for job in batch.jobs if not job.service]
    if batch.memory is None and batch.parallel is None and len(batch_jobs) > 1:
        found.append("neither memory nor parallel bounds the batch: all that is ready runs at once")
    logs: dict[str, list[str]] = {}
    for job in batch.jobs:
        for path in {job.output.log, job.output.stdout, job.output.stderr, job.spec.report} - {""}:
            logs.setdefault(path, []).append(job.name)
    found += [
        f"{len(names)} jobs write to {clean(path)}: {names[0]}, {names[1]} ..." for path, names in logs.items() if len(names) > 1
    ]
    return found + _short_lived(batch.jobs) + _missing(batch.jobs)


def _short_lived(jobs: Iterable[Job]) -> list[str]:
    """Services whose attempts would be used up one day."""
    found = {
        job.table: job.spec.attempts
        for job in jobs
        if job.service and job.spec.interval is None and "attempts" not in job.spec.asked
    }
    said = "is a service that is started {} times at the most: with an interval, that many in that time (or say attempts)"
    return [f"jobs.{table}: {said.format(attempts)}" for table, attempts in found.items()]


def _missing(jobs: Iterable[Job]) -> list[str]:
    """Commands and files that are not there now; an earlier job may yet make them. Each is said once, for its first job."""
    found: dict[str, str] = {}
    looked: set[tuple[str, ...]] = set()
    for job in jobs:
        where = job.spec.working_dir if "/" in job.spec.command[0] else _path(job)
        if (job.spec.command[0], where) not in looked:
            looked.add((job.spec.command[0], where))
            found.setdefault(_not_there(job), job.name)
        for path in job.spec.env_file:
            if not path.startswith("-") and "{" not in path and not os.path.exists(path):
                found.setdefault(f"the env_file {path} is not there", job.name)
    return [f"jobs.{name}: {clean(what)}" for what, name in found.items() if what]


def _path(job: Job) -> str:
    return dict(job.spec.environment).get("PATH", os.environ.get("PATH", os.defpath))


def _not_there(job: Job) -> str:
    word = job.spec.command[0]
    if "{" in word or word.startswith("~"):
        return ""
    if "/" in word and job.spec.working_dir.startswith("~"):
        return ""
    named = os.path.normpath(os.path.join(job.spec.working_dir, word)) if "/" in word else word
    try:
        launch.find(named, _path(job))
    except LaunchError as e:
        return e.what
    return ""
