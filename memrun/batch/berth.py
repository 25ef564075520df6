"""Where an attempt of a job lives: its command with {attempt} and {limit} filled in, and the files that its output goes to.

Output goes through pipes that memrun copies (output.py), never straight into a file: so its size is bounded, and neither a full
disk nor a file that somebody deleted can hold up a job.
"""

from __future__ import annotations

import copy
import json
import os
import stat
from typing import TYPE_CHECKING

import trio

from memrun import identity, output, report, templates
from memrun.errors import MemrunError
from memrun.job import Attempt
from memrun.jobs import Outcome
from memrun.record import Record
from memrun.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.batch.entries import Entry
    from memrun.batch.will import Will
    from memrun.job import Site
    from memrun.options import Spec

UNBOUNDED = 1 << 62  # bytes of a log that is never rotated: through a pipe as well


class Berths:
    """Makes attempts. Output that goes nowhere else is memrun's own, but what would hit a live view (`shared`: descriptors of ours)
    goes to `write` in whole lines, each with its job's name in front."""

    def __init__(self, site: Site, shared: frozenset[int], write: Callable[[bytes], None], will: Will) -> None:
        self._site, self.will = site, will
        self._shared, self._write = shared, write
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def close(self) -> None:
        """No more attempts."""
        os.close(self._null)

    def make(self, entry: Entry, limit: int | None) -> Attempt:
        """The next attempt, launched; MemrunError, and nothing left, where that cannot be."""
        number = entry.launches + 1
        spec = filled(entry.job.spec, number, limit)
        sinks, paths = self._sinks(entry, number, limit)
        out, err = sinks.get(1), sinks.get(2)
        if not entry.job.service and not spec.wait_all:
            spec.note = self.will.fd, self.will.words(number, entry.job.digest, entry.name)
        spec.streams = (self._null, 1 if out is None else out.fd, 2 if err is None else err.fd)
        try:
            attempt = Attempt(self._site, spec, number, limit)
        except BaseException:
            for sink in set(sinks.values()):
                sink.close()
            raise
        for sink in set(sinks.values()):
            sink.handed()
        entry.launches = number
        entry.sinks = list(set(sinks.values()))
        entry.logs = paths
        return attempt

    async def launch(self, entry: Entry) -> Attempt:
        """The same, once its command runs. While the kernel takes its time with that, others are heard."""
        attempt = self.make(entry, entry.limit)
        try:
            await trio.lowlevel.wait_readable(attempt.news)
        except BaseException:
            attempt.abandon()
            raise
        attempt.arrive()
        return attempt

    def clear(self, entry: Entry) -> None:
        """Its group is empty: what it has written is taken, and whoever else holds its pipes is not waited for. What could not be written
        to its log by now never will be, and is told here."""
        for scope in entry.pumps:
            scope.cancel()
        sinks, entry.sinks, entry.pumps = entry.sinks, [], []
        for sink in sinks:
            sink.drain()
            missing = sink.close()
            if missing:
                self._write(f"memrun: {entry.name}: {missing}".encode())

    def _sinks(self, entry: Entry, number: int, limit: int | None) -> tuple[dict[int, output.Sink], list[str]]:
        """For stdout (1) and stderr (2), where they are not memrun's own; and the files that they go to."""
        to, words = entry.job.output, _words(number, limit)
        wanted = {1: to.stdout or to.log, 2: to.stderr or to.log}
        wanted = {fd: templates.fill(path, words) for fd, path in wanted.items() if path}
        who = identity.look_up(str(entry.job.spec.user), str(entry.job.spec.group))
        pipe = output.PIPE if limit is None else min(output.PIPE, limit // 16)  # what is in it is charged to the job
        sinks: dict[int, output.Sink] = {}
        try:
            for fd, path in wanted.items():
                same = fd == 2 and path == wanted.get(1)
                sinks[fd] = sinks[1] if same else output.open_sink(path, to.most or UNBOUNDED, to.keep, pipe, who)
            for fd in self._shared - wanted.keys():
                sinks[fd] = output.prefixed(entry.name, self._write, 0, pipe)
        except BaseException:
            for sink in set(sinks.values()):
                sink.close()
            raise
        return sinks, list(dict.fromkeys(wanted.values()))


def pump(entry: Entry, nursery: trio.Nursery) -> None:
    """Copy what the attempt writes, until `Berths.clear`."""
    for sink in entry.sinks:
        scope = trio.CancelScope()
        entry.pumps.append(scope)
        nursery.start_soon(_copy, sink, scope)


async def _copy(sink: output.Sink, scope: trio.CancelScope) -> None:
    with scope:
        if not scope.cancel_called:  # and closed
            await sink.pump()


def _words(number: int, limit: int | None) -> dict[str, str]:
    return {"attempt": str(number), "limit": "infinity" if limit is None else str(limit)}


def filled(spec: Spec, number: int, limit: int | None) -> Spec:
    """A copy of its own for one attempt."""
    words = _words(number, limit)
    made = copy.copy(spec)
    made.command = [templates.fill(word, words) for word in spec.command]
    made.environment = {name: templates.fill(value, words) for name, value in dict(spec.environment).items()}
    made.working_dir = templates.fill(spec.working_dir, words)
    made.env_file = tuple(templates.fill(path, words) for path in spec.env_file)
    made.asked = {**spec.asked, "limit": spec.asked.get("limit", format_size(limit))}
    made.limit = limit
    made.apart = True
    return made


def unstarted(entry: Entry, error: MemrunError) -> Outcome:
    """What becomes of a job whose attempt could not be launched."""
    record = Record(entry.name, entry.job.spec.command)
    record.result, record.status, record.note = "launch", error.status, str(error)
    return Outcome(entry.name, "launch", entry.launches, record.as_dict(), str(error))


def write_report(entry: Entry, outcome: Outcome) -> str:
    """The job's own report, with the rights of whom it ran as; why it could not be written, '' if it could, or if there is none."""
    spec = entry.job.spec
    if not spec.report or outcome.record is None:
        return ""
    path = templates.fill(spec.report, _words(entry.launches, entry.limit))
    text = json.dumps({**outcome.record, "result": outcome.result}, indent=2, ensure_ascii=False)
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            return f"cannot write the report {path}: a batch does not wait for who reads a named pipe"
    except OSError:
        pass  # there is none yet
    try:
        report.write(path, text + "\n", identity.look_up(str(spec.user), str(spec.group)))
    except MemrunError as e:
        return str(e)
    return ""


def raised(error: MemrunError) -> Attempt:
    """An attempt that could not be launched, to whoever wants to make one."""
    raise error
