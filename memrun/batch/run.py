"""A batch with everything around it: its view, its desk, its signals, its logs; from the first job to the exit status."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from memrun import errors, events, history, news, report, signals, watch
from memrun.batch import openfiles, reread, summary
from memrun.batch.berth import Berths, write_report
from memrun.batch.desk import BatchDesk
from memrun.batch.progress import Uses, progress
from memrun.batch.scheduler import Scheduler
from memrun.batch.up import CHANGED
from memrun.control import serve
from memrun.cron import letter
from memrun.cron.ring import Ring
from memrun.job import iso
from memrun.jobs import Outcome
from memrun.ownlog import ERROR, INFO, Log
from memrun.priority import be_brief
from memrun.record import Record
from memrun.units import format_size
from memrun.views import live as view
from memrun.views.cells import is_live

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.batch.entries import Entry
    from memrun.batch.ledger import Known, Ledger
    from memrun.batch.up import Ends, Wish
    from memrun.batch.will import Will
    from memrun.job import Site
    from memrun.jobs import Batch, Progress

UNWATCHED = 30  # seconds
ONE_REQUEST = 1.0  # seconds: one request to stop may arrive as several signals (to a process and to its group, through a shell that forwards)


class Show:
    """One `memrun up`."""

    def __init__(self, wish: Wish, batch: Batch, book: Ledger, site: Site, will: Will) -> None:
        self.wish, self.batch, self.book, self.site = wish, batch, book, site
        self.quiet = "--quiet" in wish.flags
        self.loud = "--verbose" in wish.flags
        self.ring = Ring() if wish.options.get("mail_style") else None  # what is said, until it is known whether it is a success
        self.live = is_live(2) and not self.quiet and self.ring is None and "--plain" not in wish.flags
        target = str(wish.options.get("log_target", ""))
        self.log = Log(target) if target else None
        self.joblog = summary.joblog(wish.values["--joblog"]) if "--joblog" in wish.values else None
        self._send, self._lines = trio.open_memory_channel[str](float("inf"))
        shared = frozenset(fd for fd in (1, 2) if self.live and os.isatty(fd))
        self.berths = (
            Berths(site, shared, lambda text: self.say(text.decode(errors="replace")), will)
            if self.ring is None
            else Berths(site, frozenset((1, 2)), self.ring.take, will)
        )
        self._all_said = trio.Event()
        self.signal = 0  # that ended it
        self._asked_at = math.inf  # when the first request to stop came
        self.began = 0.0
        self.uses = Uses()

    async def play(self, known: Mapping[str, Known], done: Mapping[str, Outcome], ends: Ends) -> int:
        """All of it; the exit status."""
        gc.freeze()  # what is loaded stays: no collection writes into pages that forked children share (a tenth of the CPU of a launch)
        be_brief()
        self.began, started = trio.current_time(), time.time()
        self.scheduler = Scheduler(self.site, self.batch, self.book, self.berths)
        self.scheduler.claims.files = openfiles.widen(self.batch.jobs, piped=self.live or self.ring is not None)
        self.desk = BatchDesk(self.scheduler, lambda line: self.say(f"memrun: {line}"))
        self.scheduler.told = self.hear
        self.book.remark = lambda line: self._send.send_nowait(f"memrun: {line}")  # also where little is to be said
        self._remember(known, done)
        self.notify = ends.notify
        fd = news.signal_fd()
        try:
            async with trio.open_nursery() as around:
                around.start_soon(self._look_on)
                async with trio.open_nursery() as beside:
                    beside.start_soon(serve, self.desk, self._remark, self.scheduler.over, ends.known_as)
                    beside.start_soon(self._until_orphaned, ends.orphaned)
                    beside.start_soon(watch.hand, self.site, partial(self._hand_is_new, ends.will))
                    beside.start_soon(self._hear_signals, fd)
                    self.notify.ready(self._standing())
                    outcomes = await self.scheduler.live()
                    self.notify.stopping()
                    self.desk.close()
                    beside.cancel_scope.deadline = trio.current_time() + 0.5  # answers that are under way
                    beside.cancel_scope.cancel()
                self._all_said.set()
        finally:
            os.close(fd)
            self.berths.close()
            if self.log is not None:
                self.log.close()
        return self._conclude(outcomes, started)

    def _hand_is_new(self, will: Will, said: str) -> None:
        will.note(f"h {self.site.hand.pid}")
        self._remark(said)

    async def _until_orphaned(self, fd: int) -> None:
        """Who is known as memrun was killed: end it all now, and keep what was done. Nobody watches us any more: if that takes too
        long, for whatever reason, we end, and the hand does the rest."""
        await trio.lowlevel.wait_readable(fd)
        signals.die_in(UNWATCHED)
        self.signal = signals.KILL
        self.scheduler.stop(now=True)

    async def _look_on(self) -> None:
        if self.live:
            await view.live(self._progress, self._lines, self._all_said)
        else:
            await view.plain(self._lines, self._all_said)

    def _progress(self) -> Progress:
        return progress(self.scheduler, self.began, self.uses)

    def say(self, line: str) -> None:
        """One line for whoever started us."""
        if self.log is not None:
            self.log.say(line.removeprefix("memrun: "))
        elif self.ring is not None:
            self.ring.take(f"{line}\n".encode(errors="replace"))
        elif not self.quiet:
            self._send.send_nowait(errors.printable(line))

    def _remark(self, line: str) -> None:
        if self.loud:
            self.say(f"memrun: {line}")

    def _remember(self, known: Mapping[str, Known], done: Mapping[str, Outcome]) -> None:
        for entry in self.scheduler.entries.values():
            found = known.get(entry.name)
            if found is not None:
                entry.launches = found.launches
                changed = found.launches > 0 and found.digest != entry.job.digest
                if entry.name in done and changed:
                    self.say(f"memrun: {entry.name}: {CHANGED}")
                if found.next_limit is not None and not changed and entry.limit is not None:
                    entry.limit = max(entry.limit, min(found.next_limit, self.scheduler.claims.budget or found.next_limit))
            if entry.name in done:
                self.scheduler.remember(entry, done[entry.name])

    # What happens

    def hear(self, entry: Entry, what: object) -> None:
        """Said, logged, and passed on to those who follow."""
        self.desk.hear_entry(entry, what)
        if isinstance(what, events.Launched) and (self.loud or entry.job.spec.verbose):
            self.say(f"memrun: {entry.name}: started with a limit of {format_size(entry.limit_now)}")
        if isinstance(what, Outcome):
            if self.joblog is not None:
                self.joblog.add(what, entry.job)
            if what.record is not None:
                history.keep_job(what.record, what.result, what.attempts, os.path.abspath(self.batch.path))
            complaint = write_report(entry, what)
            if complaint:
                self._send.send_nowait(f"memrun: {entry.name}: {complaint}")
            self._tell_of(what, quiet=entry.job.spec.quiet)

    def _tell_of(self, outcome: Outcome, *, quiet: bool) -> None:
        line = view.ended(outcome, *self.scheduler.count())
        self.notify.status(self._standing())
        if quiet:
            return
        if self.log is None:
            self.say(f"memrun: {line}")
        else:
            known = report.fields(Record.of(outcome.record)) if outcome.record is not None else {"MEMRUN_NAME": outcome.job}
            self.log.say(line, INFO if outcome.ok else ERROR, {**known, "MEMRUN_RESULT": outcome.result}, always=True)

    async def _hear_signals(self, fd: int) -> None:
        while True:
            await trio.lowlevel.wait_readable(fd)
            number, from_kernel = news.next_signal(fd)
            if number in {signals.TERM, signals.INT}:
                self._stop(number, typed=from_kernel)
            elif number == signals.HUP:
                self._read_again()

    def _stop(self, number: int, *, typed: bool) -> None:
        """Stop everything; asked a second time, kill it. GNU timeout signals its child and then the process group, systemd every process
        of a unit: what follows the first request within a second is a part of it, unless it was typed at the terminal."""
        now = trio.current_time()
        if self.scheduler.ending and not typed and now < self._asked_at + ONE_REQUEST:
            return
        self._asked_at = min(self._asked_at, now)
        self.signal = number
        self.notify.stopping()
        self.scheduler.stop()
        self.say(f"memrun: {view.stopping(self._progress())}")

    def _read_again(self) -> None:
        """SIGHUP: new jobs are added, removed ones stopped, changed ones restarted, the rest is untouched."""
        from memrun.jobfile import load

        self.notify.reloading()
        try:
            batch = load(self.batch.path, only=self.wish.jobs, whole=self.site.whole())
        except errors.MemrunError as e:
            self.say(f"memrun: the file is left as it was: {e}")
            self.notify.ready(f"{self._standing()}; the file is left as it was: {e}")
            return
        said = reread.apply(self.scheduler, batch)
        self.batch = batch
        self.say(f"memrun: {batch.path} was read again: {', '.join(said) or 'nothing has changed'}")

        self.notify.ready(self._standing())

    def _standing(self) -> str:
        done, total = self.scheduler.count()
        return f"{os.path.basename(self.batch.path)}: {done} of {total} jobs are done"

    # The end

    def _conclude(self, outcomes: list[Outcome], started: float) -> int:
        elapsed = trio.current_time() - self.began
        outcomes = [outcome for outcome in outcomes if not (outcome.before and outcome.result == "skipped")]  # left out as asked
        if self.ring is not None:
            if self.scheduler.ending or not all(self._fine(outcome) for outcome in outcomes):
                words, lines = ["memrun", "up", *self.wish.plain], self.wish.options.get("mail_lines", letter.LINES)
                _tell(letter.of_batch(self.ring, summary.table(outcomes, self.batch, elapsed), words, int(str(lines))))
            self.ring.close()
        elif not self.quiet:
            width = os.get_terminal_size(2).columns if self.live else None
            _tell(summary.table(outcomes, self.batch, elapsed, width=width))
        if self.joblog is not None:
            if self.joblog.failed:
                _tell(f"memrun: the job log is not complete: {self.joblog.failed}\n")
            self.joblog.close()
        if "--report" in self.wish.values:
            facts = {
                "memory": self.scheduler.claims.budget,
                "elapsed": elapsed,
                "started": iso(started),
                "ended": iso(time.time()),
            }
            whole = summary.report(self.batch, outcomes, facts)
            report.write(self.wish.values["--report"], json.dumps(whole, indent=2, ensure_ascii=False) + "\n")
        if self.scheduler.ending:
            return errors.died_of(self.signal)
        return errors.SUCCESS if all(self._fine(outcome) for outcome in outcomes) else errors.SOME_FAILED

    def _fine(self, outcome: Outcome) -> bool:
        """A service that we stopped, or a job that was taken out of the file, has done what it was there for."""
        entry = self.scheduler.entries.get(outcome.job)
        spared = entry is not None and (entry.job.service or entry.dropped)
        return outcome.ok or (spared and outcome.result in {"stopped", "skipped"})


def _tell(text: str) -> None:
    """On stderr; one that is closed is nobody to tell."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        return
