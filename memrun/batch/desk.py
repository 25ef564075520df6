"""The desk of a batch: what may be asked of its jobs, also of those that have not been started or have ended already."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from memrun import events
from memrun.desk import Desk
from memrun.errors import JobNameError, RefusedError
from memrun.interference import removed
from memrun.job import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.batch.entries import Entry
    from memrun.batch.scheduler import Scheduler
    from memrun.desk import Words


class BatchDesk(Desk):
    """Answers for all jobs of one file."""

    def __init__(self, scheduler: Scheduler, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self._scheduler = scheduler
        self._changed: dict[str, str] = {}

    def hear_entry(self, entry: Entry, what: object) -> None:
        """One event of a job's, for those who follow."""
        self._changed[entry.name] = iso(time.time())
        if isinstance(what, events.Tell) or type(what).__module__ == events.__name__:
            if entry.run is not None:
                self.hear(entry.run, what)  # type: ignore[arg-type]
            else:  # it could not be launched yet
                self._say(f"{entry.name}: {getattr(what, 'text', '')}")

    def jobs(self) -> list[Words]:
        return [self._entry_row(entry) for entry in self._scheduler.entries.values()]

    def _entry_row(self, entry: Entry) -> Words:
        group = entry.run.attempt.group if entry.alive and entry.run is not None else None
        counted = None if group is None or removed(group) else group
        child = entry.run.attempt.child if entry.run is not None else None
        return {
            "name": entry.name,
            "file": self._scheduler.batch.path,
            "state": entry.word,
            "pid": None if child is None else child.pid,
            "cgroup": None if group is None else group.path,
            "limit": entry.limit_now,
            "usage": None if counted is None else counted.usage(),
            "peak": None if counted is None else counted.peak(),
            "attempt": entry.launches,
            "since": self._changed.get(entry.name),
            "result": entry.outcome.result if entry.outcome is not None else None,
            "log": entry.logs,
        }

    async def command(self, name: str, verb: str, words: Words) -> Words:
        entry = self._scheduler.entries.get(name)
        if entry is None:
            raise JobNameError(
                f"there is no job {name!r} in {self._scheduler.batch.path}", "memrun ps lists those that there are"
            )
        if verb == "wait":
            return await self._wait(entry)
        if entry.done:
            raise RefusedError(
                f"{name} has ended ({entry.outcome.result if entry.outcome else ''})", "memrun up runs the file again"
            )
        if verb in {"stop", "kill"}:
            self._scheduler.stop_one(entry, now=verb == "kill")
            return {}
        if entry.run is None:
            raise RefusedError(f"{name} has not been started yet")
        self.runs[name] = entry.run
        return await super().command(name, verb, words)

    async def _wait(self, entry: Entry) -> Words:
        await entry.over.wait()
        assert entry.outcome is not None
        record = entry.outcome.record or {}
        return {"result": entry.outcome.result, "status": record.get("status", 0 if entry.outcome.ok else 125)}
