"""A job file's jobs within one budget: who may start, who is given more, when it is over. One scheduler, one hand for all of it.

Each job that runs has a Run of its own (supervisor.py) with its own policy; what those want and tell comes through usher.py. One
loop looks at all of it (`_shuffle`) whenever something has changed, asks plan.py, and carries out what that says, so that starts,
grants and further attempts can never be decided from two sides.

    waiting for others -> queued (a claim on the budget) -> started (a Run) -> ... -> done (an Outcome)
                              ^                                |
                              +---- wants another attempt -----+

The sum of the limits of what runs, of what is being started, and of what was promised, is never above the budget. A limit in use is what
the group has, as the kernel gave it back.

The end: when all jobs that are no services are done, services are stopped, the last that was started first. Stopped by a signal:
nothing is started any more, what runs is stopped (and killed when that is said again), and counts as interrupted: the next
`up` runs it again.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import trio

from memrun import deeds, events
from memrun.batch.berth import pump, raised, unstarted
from memrun.batch.claims import Claims
from memrun.batch.entries import Entry
from memrun.batch.needs import hopeless, met
from memrun.batch.usher import BatchUsher
from memrun.errors import CrowdedError, MemrunError, refused
from memrun.hooks import Pool, tell_unstarted
from memrun.jobs import Outcome
from memrun.supervisor import Run
from memrun.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.batch.berth import Berths
    from memrun.batch.ledger import Ledger
    from memrun.job import Attempt, Site
    from memrun.jobs import Batch, Job

SILENT = (events.Crossed, events.Pressed, events.Rang, events.SignalAsked)  # events after which nobody has more or less memory
TOO_LATE = "the run was stopped before it could start"
AT_ONCE = 4  # launches that are under way at a time: more would keep the reaction of others waiting


class Scheduler:
    """The jobs of one file. `told` hears (entry, event or Tell or Outcome) of everything that happens."""

    def __init__(self, site: Site, batch: Batch, ledger: Ledger, berths: Berths) -> None:
        self.site, self.batch, self.ledger, self.berths = site, batch, ledger, berths
        self.claims = Claims(site, site.size(batch.memory), batch.parallel)
        self.entries: dict[str, Entry] = {}
        self.ending = ""  # '' | 'stopping' | 'killing'
        self.usher = BatchUsher(self.claims, ledger, berths, self._heard)
        self.told: Callable[[Entry, object], None] = lambda _entry, _what: None
        self.over = trio.Event()
        self._changed = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._hooks: Pool | None = None
        self._board = Switchboard()
        self._launching = trio.Semaphore(AT_ONCE)
        self._waiting: dict[str, Entry] = {}  # to be started
        self._unmet: dict[str, Entry] = {}  # those of them that wait for others
        self._look = True  # somebody's needs may have been met
        self._doubt = False  # somebody may not be started at all who has all that he needs
        self._unsynced, self._due = False, math.inf  # the ledger, and when it wants to be
        self._failure = ""  # the first job that has failed
        self._total = self._open = 0  # jobs that are no services: all, and those that are not done
        for job in batch.jobs:
            self.add(job)

    # Jobs come and go

    def add(self, job: Job) -> Entry:
        """One more."""
        entry = self.entries[job.name] = Entry(job, self.site.size(job.spec.limit))
        entry.since = trio.current_time()
        self._waiting[job.name] = self._unmet[job.name] = entry
        self._look = True
        self._total += not job.service
        self._open += not job.service
        return entry

    def remember(self, entry: Entry, outcome: Outcome) -> None:
        """It was done in an earlier run."""
        entry.outcome = outcome
        self._open -= not entry.job.service
        self._note_failure(entry, outcome)
        entry.over.set()
        self._wait_no_more(entry)

    def forget(self, entry: Entry) -> None:
        """It has not been started, and never was there."""
        del self.entries[entry.name]
        self._total -= not entry.job.service
        self._open -= not entry.job.service
        self._wait_no_more(entry)
        self.claims.leave([entry])

    def _wait_no_more(self, entry: Entry) -> None:
        self._waiting.pop(entry.name, None)
        self._unmet.pop(entry.name, None)

    def redefine(self, entry: Entry, job: Job) -> None:
        """It is something else now: what runs is restarted, what waits is as if it had always been so."""
        before, entry.job = entry.job, job
        self.claims.touch(entry)
        self._total += before.service - job.service
        self._open += before.service - job.service
        if entry.waiting:
            self.claims.leave([entry])
            entry.limit, entry.rank = self.site.size(job.spec.limit), -1
            self._unmet[entry.name] = entry
        elif job.differs(before):
            self._start_anew(entry)
        self._look = True

    def _start_anew(self, entry: Entry) -> None:
        """Restarted, if it runs; with its new limit, if it waits for another attempt; after its launch, if that is under way."""
        limit = self.site.size(entry.job.spec.limit)
        if entry.run is not None:
            entry.run.rule = deeds.rule_of(entry.job.spec, self.site)
        if entry.reserved is not None:
            entry.changed = True
        elif entry.queued:
            self.claims.leave([entry])
            entry.limit = limit
            self.claims.queue(entry)
        elif entry.run is not None:
            entry.new_limit = limit
            entry.run.command(events.RestartAsked(trio.current_time()))

    def obey(self, batch: Batch) -> None:
        """What the file says besides jobs is this now."""
        self.batch = batch
        self._look = self._doubt = True
        self.change()

    # The whole life of it

    async def live(self) -> list[Outcome]:
        """Until all is done; what became of each, in the file's order."""
        async with trio.open_nursery() as around:
            around.start_soon(self._board.serve)
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._hooks = Pool(nursery)
                await self._go_on()
                await self._stop_services()
                await self._hooks.settled()
            around.cancel_scope.cancel()
        self._board.close()
        self._sync()
        self.over.set()
        return [entry.outcome for entry in self.entries.values() if entry.outcome is not None]

    async def _go_on(self) -> None:
        self._changed.set()
        while not self._over():
            with trio.CancelScope(deadline=self._due):
                await self._changed.wait()
            self._changed = trio.Event()
            self._shuffle()

    def count(self) -> tuple[int, int]:
        """(done, all) of the jobs that are no services."""
        return self._total - self._open, self._total

    def change(self) -> None:
        """Something may be possible that was not."""
        self._changed.set()

    def _over(self) -> bool:
        return not self._open and (self._total > 0 or all(entry.done for entry in self.entries.values()))

    async def _stop_services(self) -> None:
        """In reverse order of their start, each before the next."""
        for entry in list(self.entries.values()):
            if entry.waiting:
                self._done(entry, Outcome(entry.name, "skipped", why="everything else was done before it could start"))
            elif entry.reserved is not None:
                entry.stopped = True  # it is being launched
        for entry in reversed(self.usher.launched.values()):
            if entry.run is not None and not entry.done:
                self.stop_one(entry)
                await entry.run.over.wait()

    def _shuffle(self) -> None:
        """Everything that can be done now."""
        if self._look:
            self._look = False
            self._skip_and_queue()
        assert self._nursery is not None
        found = self.claims.plan(time.monotonic(), starts=not self.ending)
        for name, limit in found.grants:
            self.usher.grant(self.entries[name], limit)
        for name in found.gives_way:
            self.usher.let_give_way(self.entries[name], found.why)
        starts = [self.entries[name] for name in found.starts]
        self.claims.promise(starts)
        for entry in starts:
            self._wait_no_more(entry)
            self._nursery.start_soon(self._start, entry)
        self._sync()

    def _sync(self) -> None:
        self._due = trio.current_time() + self.ledger.commit(durably=self._unsynced)
        self._unsynced = self._due < math.inf

    def _skip_and_queue(self) -> None:
        """Whose needs are met is queued; whose can never be is done with, and so may be those who need it."""
        again = True
        while again:
            again = False
            for entry in list((self._waiting if self._doubt else self._unmet).values()):
                why = self._why_not(entry)
                if why:
                    self._done(entry, Outcome(entry.name, "skipped", why=why))
                    again = True
                elif not entry.queued and all(met(need, self.entries) for need in entry.job.needs):
                    self._unmet.pop(entry.name, None)
                    self.claims.queue(entry)
        self._doubt = False

    def _why_not(self, entry: Entry) -> str:
        """Why it will never be started; '' where it may be."""
        if self.ending:
            return TOO_LATE
        if self.batch.on_failure == "stop" and self._failure and not entry.job.service:
            return f"{self._failure} has failed, and on_failure is stop"
        return hopeless(entry, self.entries)

    # Starting

    async def _start(self, entry: Entry) -> None:
        """Launch what was promised its memory. While the kernel takes its time with one, others are launched."""
        async with self._launching:
            if self.ending or entry.done or entry.stopped:
                self._unreserve(entry)
                if entry.waiting:
                    self._done(
                        entry, Outcome(entry.name, "skipped", why=TOO_LATE if self.ending else hopeless(entry, self.entries))
                    )
                return
            self.ledger.launched(entry.name, entry.job.digest, entry.launches + 1)
            try:
                attempt = await self.berths.launch(entry)
            except (MemrunError, OSError) as e:
                self._failed(entry, refused(e) if isinstance(e, OSError) else e)
                return
        self._arrived(entry, attempt)

    def _failed(self, entry: Entry, error: MemrunError) -> None:
        self.berths.clear(entry)
        first = not self.claims.crowded
        if isinstance(error, CrowdedError) and not (self.ending or entry.stopped or entry.done) and self.claims.crowd(entry):
            if entry.run is None:
                self._waiting[entry.name] = entry
            if first:
                self.told(
                    entry, events.Tell("waits", f"{error.what}; it is started when another job has ended, and so are others")
                )
            self.change()
        elif entry.run is None:
            if self._hooks is not None:
                tell_unstarted(self._hooks, entry.job.spec, error, lambda text: self.told(entry, events.Tell("hook", text)))
            self._done(entry, unstarted(entry, error))
        else:
            self._unreserve(entry)
            entry.run.enter(lambda: raised(error))

    def _arrived(self, entry: Entry, attempt: Attempt) -> None:
        """It runs: its own Run takes over, the new one or the one that wanted another attempt."""
        assert self._nursery is not None
        run = entry.run
        if run is not None and run.record is not None:  # it was stopped meanwhile, and is over
            attempt.abandon()
            self.berths.clear(entry)
            self._unreserve(entry)
            return
        pump(entry, self._nursery)
        if run is None:
            entry.run = run = Run(self.site, attempt)
            run.usher, run.board = self.usher, self._board
            run.hooks.pool = self._hooks
            run.hear = lambda what: self.usher.hear(entry, what)
            self.usher.launched[run] = entry
            run.begin()
            self._nursery.start_soon(self._attend, entry, run)
        else:
            run.enter(lambda: attempt)
        self._unreserve(entry)
        if self.ending or entry.stopped:
            self.stop_one(entry, now=self.ending == "killing")
        elif entry.changed:
            entry.changed = False
            self._start_anew(entry)

    def _unreserve(self, entry: Entry) -> None:
        """What it has from now on is what its group has."""
        entry.reserved = None
        self.claims.touch(entry)

    async def _attend(self, entry: Entry, run: Run) -> None:
        """From its start to its outcome."""
        try:
            record = await run.live()
        except MemrunError as e:
            self._done(entry, unstarted(entry, e))
            return
        finally:
            self.berths.clear(entry)
            run.over.set()
        interrupted = bool(self.ending) and record.result == "stopped"
        self._done(
            entry,
            Outcome(entry.name, record.result, run.records.ended, record.as_dict(), entry.why or record.note),
            again=interrupted,
        )

    def _done(self, entry: Entry, outcome: Outcome, *, again: bool = False) -> None:
        entry.outcome, entry.reserved = outcome, None
        self._open -= not entry.job.service
        self._note_failure(entry, outcome)
        entry.over.set()
        self._wait_no_more(entry)
        self._look = True
        self.claims.end(entry)
        again = again or outcome.result == "skipped" or entry.dropped
        self.ledger.ended(entry.name, outcome.result, outcome.why, outcome.record, again=again)
        self._unsynced = True
        entry.since = trio.current_time()
        self.told(entry, outcome)
        self.change()

    def _note_failure(self, entry: Entry, outcome: Outcome) -> None:
        if not outcome.ok and outcome.result != "skipped" and not entry.job.service:
            self._doubt = self._doubt or not self._failure
            self._failure, self._look = self._failure or entry.name, True

    def _heard(self, entry: Entry, what: object) -> None:
        """The usher has heard something of a job's; None: what it holds or wants is another."""
        if isinstance(what, Outcome):  # nothing is started between a failure and the end of its job
            self._note_failure(entry, what)
            return
        self._look = self._look or isinstance(what, events.Launched)  # who needs it to have been started
        if what is not None:
            self.told(entry, what)
        if not isinstance(what, SILENT):
            self.change()

    # Being ended

    def stop_one(self, entry: Entry, *, now: bool = False) -> None:
        """End one job; one that has not been started never will be."""
        entry.stopped = self._look = self._doubt = True
        if entry.run is not None and not entry.done:
            at = trio.current_time()
            entry.run.catch_up()
            entry.run.command(events.KillAsked(at) if now else events.StopAsked(at))
        self.change()

    def stop(self, *, now: bool = False) -> None:
        """Nothing is started any more, and what runs is asked to stop; said again, or `now`, it is killed."""
        self.usher.unasked = now and not self.ending
        self.ending = "killing" if self.ending or now else "stopping"
        if self.ending == "killing" and self._hooks is not None:
            self._hooks.cut()
        self._look = self._doubt = True
        for entry in [entry for entry in self.usher.launched.values() if not entry.done]:
            self.stop_one(entry, now=self.ending == "killing")
        self.change()
