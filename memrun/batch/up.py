"""`memrun up FILE`: the command line of a batch, and the order of its work.

Read the file, take its ledger (who else runs it is refused), spread the hand, open the desk, then let the scheduler run. Signals: the
first INT or TERM starts nothing new and stops what runs; a second Ctrl-C, or a signal that comes a second later, kills it; HUP reads the file again.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from memrun import conversions, errors, report
from memrun.batch import keeper, ledger
from memrun.batch.will import Will, execute
from memrun.jobs import Outcome
from memrun.names import traces
from memrun.notify import Notify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.batch.ledger import Held, Known, Ledger
    from memrun.cron.turn import Lock
    from memrun.jobs import Batch, Job

USAGE = """\
memrun up FILE [JOB...]        run a job file until it is done; again: goes on where it stopped
  --fresh                      run everything again, also what is done
  --only-failed                run again what has failed, and nothing else
  --take-over                  also if another machine, which is gone, has not said that it has ended
  --dry-run                    say what would be run, and run nothing
  --joblog FILE                a line for each job as it ends, in GNU parallel's columns, with its peak and limit
  -r, --report FILE            the records of all jobs, as JSON
  --mail-style                 for cron: nothing if all goes well; else the table, and the last lines of what was said
  --mail-lines N               how many of them (default 40)
  -q, --quiet                  nothing on stderr but errors
  -v, --verbose                say when jobs start, too
  --plain                      no live view, also on a terminal
  --lock[=NAME]                not while another run has this lock (default: the file's name): exit status 75
  --lock-wait TIME             wait so long for the lock
  --jitter TIME                wait a random time first, up to TIME
  --log-target WHERE           memrun's own lines into the journal, syslog, or a FILE, with what became of each job
Ctrl-C: starts nothing new and stops what runs; again: kills it. SIGTERM stops, too;
another signal kills if it comes a second or more after the first. SIGHUP: reads the file again.
"""
ROOM = 60_000  # characters of an environment's variable that may hold 128 KB
FLAGS = {"--fresh", "--only-failed", "--take-over", "--dry-run", "--quiet", "--verbose", "--plain"}
VALUES = {"--joblog", "--report"}
OPTIONS = {"--lock", "--lock-wait", "--jitter", "--log-target", "--mail-style", "--mail-lines"}  # as of a single run
SHORT = {"-q": "--quiet", "-v": "--verbose", "-r": "--report"}


class Wish:
    """The command line."""

    def __init__(self, words: Sequence[str]) -> None:
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.options: dict[str, object] = {}
        self.plain: list[str] = []
        rest = list(words)
        while rest:
            self._take(rest.pop(0), rest)
        if not self.plain:
            raise errors.UsageError("memrun up wants a job file", "Try: memrun up jobs.toml")
        if {"--fresh", "--only-failed"} <= self.flags:
            raise errors.UsageError("--fresh and --only-failed contradict each other")
        if "--quiet" in self.flags and self.options.get("mail_style"):
            raise errors.UsageError("--quiet and --mail-style contradict each other")
        self.file, *self.jobs = self.plain

    def _take(self, word: str, rest: list[str]) -> None:
        flag, equals, value = word.partition("=")
        flag = SHORT.get(flag, flag)
        if flag in FLAGS and not equals:
            self.flags.add(flag)
        elif flag in VALUES:
            if not equals and not rest:
                raise errors.UsageError(f"{flag} wants a value (FILE)")
            self.values[flag] = conversions.written(value if equals else rest.pop(0))
        elif flag in OPTIONS:
            from memrun.options import one

            key, self.options[key] = one(flag, value if equals else None, [] if flag == "--lock" else rest)  # FILE comes next
        elif flag == "--best-effort":
            raise errors.UsageError(
                "memrun up has no --best-effort: a batch shares out memory, and that takes memory groups",
                "memrun doctor says what is missing; a single run may: memrun --best-effort --limit SIZE -- COMMAND",
            )
        elif word.startswith("-") and len(word) > 1:
            from memrun.options import nearest

            raise errors.UsageError(
                f"memrun up has no option {flag}", nearest(flag, FLAGS | VALUES | OPTIONS) or "See memrun up --help"
            )
        else:
            self.plain.append(word)


def main(words: list[str], mask: frozenset[int]) -> int:
    """The verb -> exit status."""
    if "--help" in words or "-h" in words:
        sys.stdout.write(USAGE)
        return errors.SUCCESS
    wish = Wish(words)
    for path in wish.values.values():
        report.check_writable(path)
    from memrun import cgroup
    from memrun.job import whole
    from memrun.jobfile import load

    batch = load(wish.file, only=wish.jobs, whole=whole(cgroup.enclosing()))
    for job in batch.jobs:
        job.spec.mask = mask
    if "--dry-run" in wish.flags:
        return _dry_run(wish, batch)
    notify = Notify({name for job in batch.jobs for name in job.spec.pass_environment})
    lock = _take_turn(wish)
    known_as = os.getpid()
    try:
        held = ledger.hold(batch.path, take_over="--take-over" in wish.flags)
        will = Will()
        orphaned, status = keeper.divide(lambda: _inherit(batch, held.open(known_as), will))
        if orphaned < 0:
            return status
        return _at_work(wish, batch, held, Ends(known_as, orphaned, notify, will), () if lock is None else (lock.fd,))
    finally:
        if lock is not None and os.getpid() == known_as:
            lock.release()


def _take_turn(wish: Wish) -> Lock | None:
    """Wait until it may begin."""
    if not wish.options:
        return None
    from memrun.cron import turn
    from memrun.options import Spec

    asked = Spec([wish.file], wish.options)  # --lock alone: by the file's name
    return turn.take(asked.jitter, None if asked.lock is None else asked.lock or asked.name, asked.lock_wait)


def _inherit(batch: Batch, book: Ledger, will: Will) -> None:
    """The supervisor was killed."""
    try:
        execute(will.read(), book, {job.name: job.spec.command for job in batch.jobs})
    finally:
        book.close()


def _at_work(wish: Wish, batch: Batch, held: Held, ends: Ends, locks: tuple[int, ...]) -> int:
    book = held.open(ends.known_as)
    try:
        if "--fresh" in wish.flags:
            book.forget()
        return _run(wish, batch, book, ends, locks)
    finally:
        book.close()


class Ends(NamedTuple):
    """`known_as`: the pid that people know; `orphaned`: readable when that one is dead; `notify`: systemd, where we are its service;
    `will`: what is to be known of us if we are killed."""

    known_as: int
    orphaned: int
    notify: Notify
    will: Will


def what_is_done(wish: Wish, batch: Batch, known: dict[str, Known]) -> dict[str, Outcome]:
    """Jobs that are not to be run (again), and what became of them."""
    done: dict[str, Outcome] = {}
    for job in batch.jobs:
        found = known.get(job.name)
        if job.service:
            continue  # it is there for the others, whatever became of it when they were done
        if found is not None and found.state == "ended" and not _again(wish, found):
            done[job.name] = Outcome(job.name, found.result, found.launches, found.record, found.why, before=True)
        elif "--only-failed" in wish.flags and (found is None or (found.state != "ended" and found.result != "skipped")):
            done[job.name] = Outcome(job.name, "skipped", why="it has not failed", before=True)
    return done


def _again(wish: Wish, found: Known) -> bool:
    return "--only-failed" in wish.flags and found.result != "success"


def _changed(job: Job, found: Known | None) -> bool:
    return found is not None and found.launches > 0 and found.digest != job.digest


def _dry_run(wish: Wish, batch: Batch) -> int:
    """What would be done. Reads the ledger, if there is one; takes no lock and changes nothing."""
    known = ledger.peek(batch.path)
    done = what_is_done(wish, batch, {} if "--fresh" in wish.flags else known)
    for job in batch.jobs:
        sys.stdout.write(report.clean(f"{job.name}: {_intent(job, done.get(job.name), known.get(job.name))}") + "\n")
    sys.stdout.write(f"{len(batch.jobs) - len(done)} of {len(batch.jobs)} jobs would be run\n")
    return errors.SUCCESS


def _intent(job: Job, done: Outcome | None, found: Known | None) -> str:
    if done is not None:
        said = f"is done ({done.result})" if done.before else f"left out: {done.why}"
        return said + (f"; {CHANGED}" if _changed(job, found) else "")
    if found is not None and found.state == "live":
        return "runs again: it was interrupted"
    return "runs again" if found is not None and found.launches else "runs"


CHANGED = "its definition has changed since; --fresh runs it again"


def _traces(wish: Wish, batch: Batch, ends: Ends) -> tuple[str, ...]:
    """Files of ours that stay if we are killed: socket, half a report; of the jobs' reports as many as an environment (and the pipe to the hand) has room for."""
    from memrun import identity

    found = traces("", ends.known_as, wish.values.get("--report"))
    size = sum(map(len, found))
    for job in batch.jobs:
        spec = job.spec
        if spec.report and "{" not in spec.report and size < ROOM:
            found += (line := traces("", ends.known_as, spec.report, identity.look_up(str(spec.user), str(spec.group)))[-1:])
            size += sum(map(len, line))
    return found


def _run(wish: Wish, batch: Batch, book: Ledger, ends: Ends, locks: tuple[int, ...]) -> int:
    from memrun.job import Site

    known = book.known()
    done = what_is_done(wish, batch, known)
    site = Site((book.lock, *locks), pid=ends.known_as)
    midwife = None
    try:
        from memrun.batch.midwife import Midwife

        site.hand.tell_of_files(_traces(wish, batch, ends))
        for place in site.host.places():
            ends.will.note(f"p {place.encode('unicode_escape').decode()}")
        ends.will.note(f"h {site.hand.pid}")
        midwife = Midwife()  # while we are small
        import trio

        from memrun.batch.run import Show

        return trio.run(Show(wish, batch, book, site, ends.will).play, known, done, ends)
    finally:
        if midwife is not None:
            midwife.close()
        site.close()
