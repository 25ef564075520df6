"""The books of a batch's budget: who claims room, who has how much, what is still free. It reckons; plan.py decides, scheduler.py acts.

A limit in use is what the group has, as the kernel gave it back; what was promised counts from the promise on.

Of thousands of jobs that run each has news now and then, and each end makes room for another start: so the books are not made up anew for
each, but corrected where something has happened (`touch`), and where that has changed nothing, nothing is planned again.
"""

from __future__ import annotations

from bisect import insort
from itertools import count
from typing import TYPE_CHECKING

from memrun.batch.plan import Claim, Holding, Plan, order, plan
from memrun.cgroup import grace
from memrun.errors import RefusedError
from memrun.units import format_size

if TYPE_CHECKING:
    from memrun.batch.entries import Entry
    from memrun.job import Site


class Claims:
    """`budget`: bytes, None where there is no bound; `parallel`: jobs at a time, services not counted; `files`: jobs at a time for which
    there are descriptors, counted with them."""

    def __init__(self, site: Site, budget: int | None, parallel: int | None) -> None:
        self.budget, self.parallel = budget, parallel
        self.files: int | None = None
        self._site = site
        self._ranks = count()
        self._queue: dict[str, Entry] = {}
        self._sorted: list[Claim] = []  # of the same, in the plan's order
        self._busy: dict[str, Entry] = {}
        self._holdings: dict[str, Holding] = {}  # of the same, when they were last looked at
        self._services = 0  # among them
        self._touched: dict[str, Entry] = {}  # and something has happened to them since
        self._futile: tuple[int | None, int | None] | None = None  # budget and slots with which nobody could be started
        self._asking: dict[str, Entry] = {}  # and some that did
        self._most: int | None = None  # jobs at a time, while there is no room for more processes

    def queue(self, entry: Entry) -> None:
        """It claims room for an attempt, as old as it is."""
        if entry.rank < 0:
            entry.rank = next(self._ranks)
        entry.queued = True
        self._futile = None
        self._queue[entry.name] = entry
        insort(self._sorted, Claim(entry.name, entry.limit or 0, entry.rank, self._full(entry)), key=order)

    def leave(self, entries: list[Entry]) -> None:
        """They claim no more."""
        names = {entry.name for entry in entries if entry.queued}
        for entry in entries:
            entry.queued = False
            self._queue.pop(entry.name, None)
        if names:
            self._futile = None
            self._sorted = [claim for claim in self._sorted if claim.name not in names]

    def ask(self, entry: Entry, limit: int) -> bool:
        """Held at its limit, it wants this one, as far as the budget goes at all; False where that is no more than it has."""
        wanted = self.clipped(entry, limit) or 0
        if wanted <= entry.held:
            return False
        entry.asks, entry.asked = wanted, next(self._ranks)
        self._asking[entry.name] = entry
        return True

    def clipped(self, entry: Entry, limit: int | None) -> int | None:
        """As much of a limit as the budget can ever give it: all but what services have."""
        if limit is None or self.budget is None:
            return limit
        services = sum(other.held for other in self._busy.values() if other.job.service and other is not entry)
        return min(limit, self.budget - services)

    def promise(self, entries: list[Entry]) -> None:
        """These are about to be started."""
        self.leave(entries)
        for entry in entries:
            entry.reserved = entry.limit or 0
            self._busy[entry.name] = entry
            self.touch(entry)

    def touch(self, entry: Entry) -> None:
        """What it holds may be another by the next plan."""
        self._touched[entry.name] = entry

    def plan(self, now: float, *, starts: bool) -> Plan:
        """What may be done at once; `starts`: whether anything may be started at all."""
        if not self._asking and not (starts and self._sorted):
            return Plan()
        self._correct(now)
        slots = self._slots()
        if not self._asking and ((slots is not None and len(self._busy) >= slots) or self._futile == (self.budget, slots)):
            return Plan()
        if self._asking:  # what they lose by ending is told by the clock
            self._holdings = {name: self._holding(entry, now) for name, entry in self._busy.items()}
        self._asking = {name: entry for name, entry in self._asking.items() if entry.asks is not None}
        found = plan(self._sorted if starts else [], list(self._holdings.values()), self.budget, slots)
        self._futile = None if found != Plan() or self._asking else (self.budget, slots)
        return found

    def _correct(self, now: float) -> None:
        for name, entry in self._touched.items():
            before, after = self._holdings.pop(name, None), None
            if entry.busy:
                after = self._holdings[name] = self._holding(entry, now)
                self._busy[name] = entry
            else:
                self._busy.pop(name, None)
            self._services += (after is not None and after.firm) - (before is not None and before.firm)
            if (
                before is None
                or after is None
                or (before.size, before.most, before.fixed) != (after.size, after.most, after.fixed)
            ):
                self._futile = None
        self._touched.clear()

    def crowd(self, entry: Entry) -> bool:
        """There was no room for one more process: no more jobs at a time than there are, until one has ended. False: there are none."""
        entry.reserved = None
        self.touch(entry)
        busy = [other for other in self._busy.values() if other.busy]
        if all(other.job.service for other in busy):
            return False
        self.queue(entry)
        self._most = len(busy)
        return True

    @property
    def crowded(self) -> bool:
        """Whether that has ever been so."""
        return self._most is not None

    def end(self, entry: Entry) -> None:
        """It has ended: perhaps there is room for one more process again."""
        self.leave([entry])
        self.touch(entry)
        if self._most is not None:
            self._most += 1

    def _slots(self) -> int | None:
        bounds = [self._most] if self._most is not None else []
        bounds += [self.parallel + self._services] if self.parallel is not None else []
        return min([*bounds, *([self.files] if self.files is not None else [])], default=None)

    def _full(self, entry: Entry) -> int:
        """Bytes that it may come to ask for, held at its limit."""
        spec = entry.job.spec
        if spec.on_oom != "pause" or spec.grow <= 1 or self.budget is None:
            return 0
        ceiling = self._site.size(spec.ceiling)
        return self.budget if ceiling is None else min(ceiling, self.budget)

    def _holding(self, entry: Entry, now: float) -> Holding:
        paused = entry.paused
        if paused is None or paused.by != "limit":
            entry.asks = None
        began = entry.run.attempt.began if entry.alive and entry.run is not None else now
        return Holding(
            entry.name,
            entry.held,
            asks=entry.asks,
            since=entry.asked,
            loss=now - began,
            fixed=entry.job.service or (paused is not None and paused.until is None and entry.asks is None),
            firm=entry.job.service,
            most=self._full(entry),
        )

    @property
    def committed(self) -> int:
        """Bytes of the budget that are taken."""
        return sum(entry.held for entry in self._busy.values())

    def may_lend(self, limit: int | None) -> bool:
        """Whether a job with this limit may have a little more for a moment: only what nobody else was promised."""
        return limit is None or self.budget is None or self.committed + grace(limit) <= self.budget

    def allow(self, entry: Entry, limit: int | None) -> None:
        """A person wants to give it this limit: RefusedError where the budget has not got that."""
        if self.budget is None or (limit is not None and limit <= entry.held):
            return
        free = self.budget - self.committed + entry.held
        if limit is None or limit > free:
            raise RefusedError(
                f"the budget of {format_size(self.budget)} has {format_size(free)} for {entry.name} at the most",
                "Stop, pause or lower something else first",
            )
