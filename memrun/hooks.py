"""Commands of the user's that memrun runs when something happens: outside of the job's group, bounded in time and number.

Whoever starts one never waits for it: what is to be done about the event is done by then, and hooks run beside. Of one memrun MOST run at
a time; what would be one more is left out, and that is said. Only those for the end of a run wait for their turn, and are waited for: a
mail that says how it ended is sent before memrun is gone. That wait has an end as well, and a signal to memrun cuts it short.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from memrun import events, launch, report, signals
from memrun.errors import MemrunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.options import Spec
    from memrun.supervisor import Run

    Say = Callable[[str], None]

MOST = 4  # at a time, of one memrun
LONGEST = 60.0  # seconds of one
LAST = 90.0  # seconds for all that are left when everything else is over


class Pool:
    """All hooks of one memrun; `nursery` is where they live."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._slots = trio.Semaphore(MOST)
        self._scopes: set[trio.CancelScope] = set()
        self._changed = trio.Event()
        self._left_out = 0

    def start(self, command: str, environ: dict[str, str], say: Say, *, surely: bool = False) -> None:
        """Begin it, now. `surely`: when there is room for it."""
        if not surely and len(self._scopes) >= MOST:
            self._left_out += 1
            if self._left_out == 1:
                say(f"left out, {MOST} others are not done yet: {command}")
            return
        if self._left_out > 1:
            say(f"{self._left_out} were left out before this one: {command}")
        self._left_out = 0
        scope = trio.CancelScope()
        self._scopes.add(scope)
        self._nursery.start_soon(self._attend, scope, command, environ, say)

    async def _attend(self, scope: trio.CancelScope, command: str, environ: dict[str, str], say: Say) -> None:
        try:
            with scope:
                async with self._slots:
                    scope.deadline = trio.current_time() + LONGEST
                    await run(command, environ)
            if scope.cancelled_caught:
                say(f"was not done in time, and killed: {command}")
        except (MemrunError, OSError) as e:
            say(f"could not be run: {e}")  # no reason to end the job
        finally:
            self._scopes.discard(scope)
            self._changed.set()

    async def settled(self) -> None:
        """Until none is left, LAST seconds at the most."""
        with trio.move_on_after(LAST) as patience:
            while self._scopes:
                self._changed = trio.Event()
                await self._changed.wait()
        if patience.cancelled_caught:
            self.cut()

    def heed(self, event: events.Event) -> None:
        """Everything else is over: who wants memrun to end does not wait for its hooks."""
        if isinstance(event, events.StopAsked | events.DetachAsked):
            self.cut()

    def cut(self) -> None:
        """Whoever is still there is killed."""
        for scope in list(self._scopes):
            scope.cancel()


class Hooks:
    """Of one run. `pool` is given when there is one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.pool: Pool | None = None
        self._killed = 0  # attempt of which an OOM kill has been told

    def hear(self, event: events.Event, decisions: tuple[events.Decision, ...]) -> None:
        """What has happened, and was done about it."""
        if not self._run.spec.on_event:
            return
        match event:
            case events.OomKilled():
                self._tell_of_kills()
            case events.Settled():
                if self._run.records[-1].oom_kills:
                    self._tell_of_kills()  # its notice may have lost the race with the exit
                for index in event.passed:
                    self.fire("threshold", self._run.rule.marks[index].about)
            case events.Launched() if self._run.records:
                self.fire("restarted", f"attempt {self._run.records.ended + 1}")
            case events.Crossed(_, index, True):
                self.fire("threshold", self._run.rule.marks[index].about)
            case events.Pressed(_, index):
                self.fire("pressure", self._run.rule.pressures[index].about)
        for decision in decisions:
            if isinstance(decision, events.Tell) and decision.event in {"paused", "resumed"}:
                # A raise at once: it is told of a limit that is another by now.
                limit = event.before if isinstance(event, events.Raised) and decision.event == "paused" else None
                self.fire(decision.event, decision.text, limit=limit)
            elif isinstance(decision, events.Finish) and self._run.record is not None:
                self.fire("finished", report.summary(self._run.record))

    def _tell_of_kills(self) -> None:
        attempt = max(1, self._run.records.ended + int(self._run.alive))
        if self._killed != attempt:
            self._killed = attempt
            self.fire("oom", "the kernel has killed for lack of memory")

    def fire(self, word: str, text: str, *, limit: int | None = None) -> None:
        """One of options' EVENTS. `limit`: what it was then, where that is not what it is."""
        for event, command in self._run.spec.on_event:
            if event == word:
                self.execute(command, word, text, surely=word == "finished", limit=limit)

    def execute(self, command: str, event: str, text: str, *, surely: bool = False, limit: int | None = None) -> None:
        """This command, told of that."""
        if self.pool is not None:
            facts = {**_facts(self._run, over=surely), "MEMRUN_EVENT": event, "MEMRUN_TEXT": text}
            if limit is not None:
                facts["MEMRUN_LIMIT"] = str(limit)
            self.pool.start(command, facts, self._say, surely=surely)

    def _say(self, text: str) -> None:
        if self._run.hear is not None:
            self._run.hear(events.Tell("hook", text))


def tell_unstarted(pool: Pool, spec: Spec, error: MemrunError, say: Say) -> None:
    """The end of a run that never began: who waits for a "finished" would wait for ever."""
    known = {"EVENT": "finished", "TEXT": str(error), "NAME": spec.name, "ATTEMPT": 1, "RESULT": "launch", "STATUS": error.status}
    for event, command in spec.on_event:
        if event == "finished":
            pool.start(command, {f"MEMRUN_{key}": str(value) for key, value in known.items()}, say, surely=True)


def _facts(run: Run, *, over: bool) -> dict[str, str]:
    """What a hook is told of a run: as it is, or as the last attempt was."""
    known: dict[str, object] = {
        "NAME": run.spec.name,
        "PID": run.attempt.child.pid,
        "ATTEMPT": run.records.ended + int(run.alive),
    }
    if run.alive:
        group = run.attempt.group
        known |= {"CGROUP": group.path, "LIMIT": group.limit, "USAGE": group.usage(), "PEAK": group.peak() or ""}
    elif run.records:
        last = run.records[-1]
        known |= {"LIMIT": last.limit, "USAGE": 0, "PEAK": "" if last.peak is None else last.peak}
    if "LIMIT" in known and known["LIMIT"] is None:
        known["LIMIT"] = "infinity"
    if over and run.record is not None:
        known |= {"RESULT": run.record.result, "STATUS": run.record.status}
    return {f"MEMRUN_{key}": str(value) for key, value in known.items()}


async def run(command: str, environ: dict[str, str]) -> None:
    """`sh -c COMMAND`, its output on memrun's stderr; killed with its process group when it is cancelled."""
    underway = _start(command, environ)
    child = underway.child
    try:
        await trio.lowlevel.wait_readable(underway.news)
        underway.settle()
    except trio.Cancelled:
        _end(child)
        os.close(underway.news)
        raise
    try:
        await trio.lowlevel.wait_readable(child.pidfd)
    finally:
        _end(child)


def _start(command: str, environ: dict[str, str]) -> launch.Underway:
    order = launch.Order(["/bin/sh", "-c", command], {**os.environ, **environ})
    order.own_group = True
    order.stdout = 2
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        order.stdin = null
        return launch.start(order)
    finally:
        os.close(null)


def _end(child: launch.Child) -> None:
    if child.reap() is None:
        try:
            os.killpg(child.pid, signals.KILL)
        except ProcessLookupError:  # it has no group of its own yet
            child.signal(signals.KILL)
        os.waitpid(child.pid, 0)
    child.close()
