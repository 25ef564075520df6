"""What became of a batch: the table at the end, a line for each job in GNU parallel's --joblog, all records as one JSON object.

The table says first what went well, then services, then what was never started, and last what failed, where the eye is when the prompt comes back.
Nothing here knows a terminal: a width is a number.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from memrun.errors import MemrunError
from memrun.record import SCHEMA, Record
from memrun.report import clean, verdict, what
from memrun.units import format_duration, format_size
from memrun.views import cells

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from memrun.jobs import Batch, Job, Outcome

HEAD = ("JOB", "RESULT", "ATTEMPTS", "LIMIT", "PEAK", "ELAPSED", "")
LOG_HEAD = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tLimit\tPeak\tJob\tResult"
MOST = 100  # successes that are listed one by one


def table(outcomes: Sequence[Outcome], batch: Batch, elapsed: float, *, width: int | None = None) -> str:
    """The table and one line of counts, with a line end. `width`: cells of a line, None for no bound."""
    place = {job.name: job.order for job in batch.jobs}
    services = _services(batch)
    ranked = sorted(outcomes, key=lambda outcome: (_rank(outcome, services), place.get(outcome.job, len(place))))
    fine = [outcome for outcome in ranked if outcome.ok]
    shown = [*fine[:MOST], *ranked[len(fine) :]]
    lines = cells.table(HEAD, [_cells(outcome) for outcome in shown], width, right=(2, 3, 4, 5)) if shown else []
    if len(fine) > MOST:
        lines.insert(MOST + 1, f"... and {len(fine) - MOST} more that succeeded")
    return "".join(line + "\n" for line in (*lines, counts(outcomes, batch, elapsed)))


def _services(batch: Batch) -> set[str]:
    return {job.name for job in batch.jobs if job.service}


def _rank(outcome: Outcome, services: Container[str]) -> int:
    """0 well, 1 a service that was there until it was not needed any more, 2 never started, 3 stopped by somebody, 4 failed."""
    if outcome.ok:
        return 0
    if outcome.job in services and outcome.result in {"stopped", "skipped"}:
        return 1
    return {"skipped": 2, "stopped": 3}.get(outcome.result, 4)


def _cells(outcome: Outcome) -> list[str]:
    record = outcome.record
    if record is None:
        return [outcome.job, outcome.result, str(outcome.attempts or "-"), "-", "-", "-", outcome.why]
    why = outcome.why or ("" if outcome.ok or outcome.result == "stopped" else what(Record.of(record)))
    if outcome.before:
        why = f"in an earlier run: {why}" if why else "in an earlier run"
    peak, elapsed = _number(record, "peak"), _number(record, "elapsed")
    return [
        outcome.job,
        outcome.result,
        str(outcome.attempts),
        "-" if _is_unknown(record) else format_size(_bytes(record, "limit")),
        "-" if peak is None else format_size(int(peak)),
        "-" if elapsed is None else format_duration(elapsed),
        why,
    ]


def _is_unknown(record: Mapping[str, object]) -> bool:
    """Of a job that was never in a group, or that nobody could ask, no limit is known: that is not none."""
    return record.get("limit") is None and not record.get("cgroup")


def _number(record: Mapping[str, object], key: str) -> float | None:
    value = record.get(key)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _bytes(record: Mapping[str, object], key: str) -> int | None:
    value = _number(record, key)
    return None if value is None else int(value)


def counts(outcomes: Sequence[Outcome], batch: Batch, elapsed: float) -> str:
    """'97 succeeded (40 of them earlier), 2 failed, 1 skipped, in 12 min 30 s'."""
    count = tally(outcomes, batch)
    earlier = f" ({count['before']} of them earlier)" if count["before"] else ""
    parts = [f"{count['succeeded']} succeeded{earlier}"]
    parts += [f"{count[word]} {word}" for word in ("failed", "stopped", "skipped") if count[word]]
    parts += [f"{count['services']} service{'s' if count['services'] > 1 else ''}"] * bool(count["services"])
    return f"{', '.join(parts)}, in {format_duration(elapsed)}"


def tally(outcomes: Sequence[Outcome], batch: Batch) -> dict[str, int]:
    """How many of each; `before`: of those that succeeded, in an earlier run of memrun; `services`: those that did not fail."""
    services = _services(batch)
    ranks = [_rank(outcome, services) for outcome in outcomes]
    return {
        "total": len(ranks),
        "succeeded": ranks.count(0),
        "failed": ranks.count(4),
        "stopped": ranks.count(3),
        "skipped": ranks.count(2),
        "services": ranks.count(1),
        "before": sum(outcome.ok and outcome.before for outcome in outcomes),
    }


def sentence(outcome: Outcome) -> str:
    """One line for a job that has come to its end, also for one that succeeded."""
    if outcome.record is None:
        return clean(f"{outcome.job}: {outcome.result}" + (f": {outcome.why}" if outcome.why else ""))
    record = Record.of(outcome.record)
    record.name, record.result = outcome.job, outcome.result
    peak = "" if record.peak is None else f", peak {format_size(record.peak)}"
    said = verdict(record, 'limit = "{}"') or f"{clean(record.name)}: success after {format_duration(record.elapsed)}{peak}"
    counted = outcome.attempts > 1 and record.result != "exhausted"  # of that, `why` says how many
    more = [f"{outcome.attempts} attempts"] * counted + [clean(outcome.why)] * bool(outcome.why)
    return f"{said} ({'; '.join(more)})" if more else said


def report(batch: Batch, outcomes: Sequence[Outcome], facts: Mapping[str, object]) -> dict[str, object]:
    """All of it, for JSON. `facts` of the run: memory (the budget in bytes, None where there is none), elapsed (seconds), started
    and ended (ISO 8601, UTC), and whatever else is to be said of the batch."""
    jobs = {job.name: job for job in batch.jobs}
    whole = {
        "file": batch.path,
        "memory_asked": None if batch.memory is None else str(batch.memory),
        "parallel": batch.parallel,
        "on_failure": batch.on_failure,
        **tally(outcomes, batch),
        **facts,
    }
    return {"schema": SCHEMA, "jobs": [_whole(outcome, jobs.get(outcome.job)) for outcome in outcomes], "batch": whole}


def _whole(outcome: Outcome, job: Job | None) -> dict[str, object]:
    """A job's record: every stable key also for one that has never been started."""
    if outcome.record is None:
        empty = Record(outcome.job, list(job.spec.command) if job else [])
        found = {**empty.as_dict(), "limit_asked": job.spec.asked.get("limit", "") if job else "", "status": None}
    else:
        found = dict(outcome.record)
    return {**found, "name": outcome.job, "result": outcome.result, "why": outcome.why, "earlier": outcome.before}


class JobLog:
    """One line for each job as it ends, in GNU parallel's columns, and Limit, Peak (bytes), Job and Result after them.

    Exitval and Signal as there: a job that died of a signal has Exitval 0. Lines are appended, one write each; the file of a batch
    that goes on has its header once. `failed`: why it could not be written, '' if it could.
    """

    def __init__(self, path: str) -> None:
        """Open it, or MemrunError: before anything is started."""
        self.failed = ""
        try:
            # O_NONBLOCK: a named pipe that nobody reads is an error, not a wait.
            # O_NOFOLLOW: the directory may be anybody's. The links of /dev (stdout, fd/3) are the machine's own.
            own = 0 if os.path.abspath(path).startswith(("/dev/", "/proc/")) else os.O_NOFOLLOW
            self._fd = os.open(
                path, own | os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o666
            )
        except OSError as e:
            raise MemrunError(f"cannot write the job log {path}: {os.strerror(e.errno or 0)}") from None
        if not os.fstat(self._fd).st_size:
            self._write(LOG_HEAD)
        elif _cut_short(path):
            self._write("")

    def add(self, outcome: Outcome, job: Job) -> None:
        """Nothing for a job that was not started, or ended in an earlier run."""
        if outcome.record is not None and not outcome.before:
            self._write(_line(outcome, outcome.record, job))

    def _write(self, line: str) -> None:
        try:
            os.write(self._fd, f"{line}\n".encode(errors="backslashreplace"))
        except OSError as e:
            self.failed = os.strerror(e.errno or 0)

    def close(self) -> None:
        """No more lines."""
        os.close(self._fd)


def _cut_short(path: str) -> bool:
    """Whether the last line lacks its end: a memrun that was killed while it wrote."""
    try:
        with open(path, "rb") as f:
            f.seek(-1, os.SEEK_END)
            return f.read() != b"\n"
    except OSError:
        return False


def joblog(path: str) -> JobLog:
    """A job log that lines may be added to."""
    return JobLog(path)


def _line(outcome: Outcome, record: Mapping[str, object], job: Job) -> str:
    import shlex
    from datetime import datetime

    try:
        started = datetime.fromisoformat(str(record.get("started")).replace("Z", "+00:00")).timestamp()
    except ValueError:
        started = 0.0
    signal = _bytes(record, "signal") or 0
    code = _bytes(record, "exit_code") or 0
    if not outcome.ok and not signal and not code:
        code = _bytes(record, "status") or 1  # a time-out, a kill of a child: 0 would say that all was well
    command = record.get("command")
    words = shlex.join(map(str, command if isinstance(command, list) else job.spec.command))
    limit, peak = _bytes(record, "limit"), _bytes(record, "peak")
    fields = [
        str(job.order + 1), ":", f"{started:.3f}", f"{_number(record, 'elapsed') or 0.0:10.3f}", "0", "0", str(code), str(signal),
        clean(words), "-" if _is_unknown(record) else "infinity" if limit is None else str(limit), "-" if peak is None else str(peak), clean(outcome.job), outcome.result,
    ]  # fmt: skip
    return "\t".join(fields)
