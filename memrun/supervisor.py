"""One hand per run: one loop receives an event, steps the policy, carries out what it decided. Nobody else acts.

The only shield of the program is here, around "kill, empty, remove", with a deadline: a run that is cancelled (by the trio
program that called `memrun.run`, or by a failure of ours) ends its job first.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from memrun import ahead, deeds, events, gauges, hooks, interference, machine, news, policy, states, watch
from memrun.cgroup import Order
from memrun.errors import MemrunError, refused
from memrun.job import Attempt, iso
from memrun.record import Attempts
from memrun.thresholds import Thresholds
from memrun.units import whole_pages

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memrun.cgroup import Group, Heard
    from memrun.job import Site, Stay
    from memrun.record import Record
    from memrun.switchboard import Switchboard
    from memrun.usher import Usher

MAILBOX = math.inf  # events are few and small, and a watcher must never wait for the hand
RAISES = 1000  # of an attempt that are recorded: the first and the latest ones


class Run:
    """A run's mailbox, state and hand. `attempt` is the current one; `hear` is told each event before it is acted upon."""

    def __init__(self, site: Site, attempt: Stay, hear: Callable[[events.Event | events.Tell], None] | None = None) -> None:
        self.site, self.spec = site, attempt.spec
        self.attempt: Stay = attempt
        self.rule = deeds.rule_of(attempt.spec, site)
        self.state = policy.START
        self.records = Attempts()
        self.record: Record | None = None  # of the whole run, once it is over
        self.over = trio.Event()
        self.hear = hear
        self.usher: Usher | None = None
        self.mention: Callable[[str], object] = str  # with -v
        self.board: Switchboard | None = None  # through which it hears of its group: one of many
        self.remark = ""  # why the usher has ended the current attempt
        self.hooks = hooks.Hooks(self)
        self.thresholds = Thresholds(attempt.spec.at)
        self._raises: list[dict[str, object]] = []
        self._held_since: float | None = None
        self._held_for = 0.0
        self._anew = -math.inf  # when the limit was set: who had come to the one of before is no news any more
        self._watching: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None
        self._failure: MemrunError | None = None
        self._answer: events.Event | None = None  # of the machine's, to what has just been asked
        self._short: int | None = None  # the limit that the machine, asked in a hurry, has not got
        self.preparing: Group | None = None  # whose next raises are being prepared
        self._begun = False
        self.heard: Heard | None = None  # news of the current attempt's group that is known already
        self._settled = False  # nothing of the current attempt is left, and its descriptors are closed
        self._send, self._mail = trio.open_memory_channel[events.Event](MAILBOX)

    def resume(self, state: states.State, heard: Heard | None, records: Attempts, held_since: float | None) -> None:
        """Go on where somebody else has left off: its state, what he had heard of the group, the attempts that are over, and since when it is held."""
        self._begun, self.state, self.heard, self.records, self._held_since = True, state, heard, records, held_since
        self._settled = isinstance(state.phase, states.Waiting)

    @property
    def alive(self) -> bool:
        """Whether there is an attempt with a group."""
        return not self._settled

    def send(self, event: events.Event) -> None:
        """Put an event into the mailbox."""
        self._send.send_nowait(event)

    def heed(self, event: events.Event) -> None:
        """The same; but what cannot wait for the hand to wake up is acted upon at once, if nothing else has come before it. That it was raised is
        known at once in any case: nobody is to decide as if that had not been."""
        urgent = isinstance(event, events.OomKilled | events.Reached) and not self._mail.statistics().current_buffer_used
        if self.alive and (urgent or isinstance(event, events.Raised)):
            self.command(event)
        else:
            self.send(event)

    def command(self, event: events.Event) -> None:
        """One event from outside, acted upon before this returns."""
        self.step(event)
        self._wake()

    def catch_up(self) -> None:
        """Whether it has ended by itself, before it is ended: what it has done then counts."""
        if self.alive and not self.state.gone and (status := self.attempt.child.reap()) is not None:
            self.command(news.exited(self.attempt.child, self.attempt.group, status, trio.current_time()))

    def _wake(self) -> None:
        """The hand looks at its alarm, and whether it is over, again."""
        try:
            self.send(events.Rang(trio.current_time()))
        except trio.ClosedResourceError:
            return  # it is over

    async def live(self, signal_fd: int = -1) -> Record:
        """Watch and act until the policy says Finish, and its hooks are done; the record of the whole run."""
        async with trio.open_nursery() as beside:
            own = hooks.Pool(beside)
            self.hooks.pool = self.hooks.pool or own
            await self._live(signal_fd)
            async with trio.open_nursery() as last:
                if signal_fd >= 0:
                    last.start_soon(watch.signals_to, signal_fd, lambda: False, own.heed)
                await own.settled()
                last.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        assert self.record is not None
        return self.record

    async def _live(self, signal_fd: int) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self.attend, self._work)
                if self.usher is None:  # else it is the batch's
                    nursery.start_soon(watch.hand, self.site, self.mention)
                if signal_fd >= 0:
                    meaning = news.detaching if self.attempt.borrowed else news.ending
                    nursery.start_soon(self.attend, watch.signals_to, signal_fd, self._shares_terminal, self.send, meaning)
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + deeds.LAST_RESORT):
                await self._end()

    async def attend(self, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Do something beside the run. An expected failure ends the run and is its answer: it is a value, not an exception that
        tears through a nursery (and comes out as a group)."""
        assert self._nursery is not None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()  # all may be over, and closed, before this has begun
            await task(*args)
        except (MemrunError, OSError) as e:
            self._failure = self._failure or (refused(e) if isinstance(e, OSError) else e)
            self._nursery.cancel_scope.cancel()

    async def attend_rule(self, name: str, task: Callable[..., Awaitable[object]], *args: object) -> None:
        """Listen for what a rule is about. Where that fails the rule is told to be without effect, and the job goes on."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await task(*args)
        except (MemrunError, OSError) as e:
            if self.hear is not None:
                self.hear(events.Tell("failed", f"{name} has no effect any more: {refused(e) if isinstance(e, OSError) else e}"))

    async def _work(self) -> None:
        assert self._nursery is not None
        if self.alive:
            self._watch()
        self.begin()
        if isinstance(self.state.phase, states.Paused):  # since before we were here
            ahead.look(self, ())
        while self.record is None:
            self.step(await self._next_event())
        self._nursery.cancel_scope.cancel()

    def begin(self) -> None:
        """It is launched. Called before `live` where something may be asked of the run before that has got under way."""
        if not self._begun:
            self._begun = True
            age = time.monotonic() - self.attempt.began  # it was started before trio was there
            self.step(events.Launched(trio.current_time() - age, self.attempt.group.limit))

    def _shares_terminal(self) -> bool:
        return deeds.shares_terminal(self.attempt)

    def _watch(self) -> None:
        assert self._nursery is not None
        self._watching = trio.CancelScope()
        self._settled = False
        deeds.take_over(self.attempt)
        self._nursery.start_soon(_watch, self._watching, self)

    def beside(self, task: Callable[[Run], Awaitable[object]]) -> bool:
        """Begin something about the run that nobody waits for; False before and after its life."""
        if self._nursery is not None:
            self._nursery.start_soon(task, self)
        return self._nursery is not None

    async def _next_event(self) -> events.Event:
        """The next event; falling out of the scope is the alarm."""
        alarm = policy.alarm(self.state)
        with trio.CancelScope(deadline=math.inf if alarm is None else alarm):
            return await self._mail.receive()
        return events.Rang(trio.current_time())

    def step(self, event: events.Event) -> None:
        """One event, now, and what the machine has answered to it. For the hand itself, and for who must know at once what came of a command."""
        self._take(event)
        while (answer := self._answer) is not None:
            self._answer = None
            self._take(answer)
        self._arm()

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.Reached) and event.at < self._anew:
            return
        if isinstance(event, events.Raised) and self.alive:
            self._was_raised(event)
        elif isinstance(event, events.Crossed) and event.rising:
            self.thresholds.told(event.index)
        if self.hear is not None:
            self.hear(event)
        if isinstance(event, events.OomKilled) and self.alive:  # told late, it finds an attempt that is over
            deeds.see_the_largest(self.attempt)
        self.state, decisions = policy.step(self.rule, self.state, event)
        for decision in decisions:
            self._carry_out(decision)
        self.hooks.hear(event, decisions)
        if isinstance(event, events.Reached | events.Denied) and isinstance(self.state.phase, states.Paused):
            ahead.look(self, decisions)

    def _carry_out(self, decision: events.Decision) -> None:
        match decision:
            case events.Signal() | events.Kill():
                if self.usher is not None:
                    self.usher.asked(self)
                if isinstance(decision, events.Signal):
                    deeds.signal(self.attempt, decision.signal, tree=decision.tree)
                elif not deeds.kill(self.attempt, reaped=self.state.gone):
                    self.send(events.Emptied(trio.current_time()))
            case events.Freeze():
                self._freeze()
            case events.Thaw():
                self._thaw()
            case events.SetLimit(limit, by):
                self._set_limit(limit, by)
            case events.Lend():
                if self.usher is None or self.usher.may_lend(self):
                    self.attempt.group.lend()
            case events.Ask(limit):
                (self._ask if self.usher is None else partial(self.usher.ask, self))(limit)
            case events.LetGo():
                self.attempt.rid()
            case events.Settle(why):
                self._settle(why)
            case events.Launch(limit):
                (self._launch if self.usher is None else partial(self.usher.launch, self))(limit)
            case events.Finish(why):
                self._finish(why)
            case events.Tell():
                if self.hear is not None:
                    self.hear(decision)
            case events.Execute(command, word, about):
                self.hooks.execute(command, word, about)

    def _freeze(self) -> None:
        self._held_since = self._held_since or trio.current_time()
        self.attempt.group.freeze()

    def _thaw(self) -> None:
        self._end_hold()
        group = self.attempt.group
        group.thaw()
        self._look_at_the_wire()  # what it was given may not take it past its wire

    def _look_at_the_wire(self) -> None:
        """A wire tells of what passes it, not of who is beyond it already: then the job is held here, and that is news."""
        group = self.attempt.group
        if self._held_since is None and interference.reflex(group):
            self.send(events.Reached(trio.current_time()))
            interference.hear(group)

    def _end_hold(self) -> None:
        if self._held_since is not None:
            self._held_for += trio.current_time() - self._held_since
            self._held_since = None

    def _set_limit(self, limit: int | None, by: str) -> None:
        before = self.attempt.group.limit
        after = self.attempt.group.set_limit(limit)
        self._anew = trio.current_time()
        self._look_at_the_wire()
        self._note_raise(before, after, by)

    def _was_raised(self, event: events.Raised) -> None:
        """That it was held in the meantime, at its limit, is what is to be supposed: from when it was heard until now."""
        self._held_for += trio.current_time() - event.at
        self._note_raise(event.before, event.limit, "rule")

    def _note_raise(self, before: int | None, after: int | None, by: str) -> None:
        self.beside(ahead.prepare)
        self.thresholds.move()
        self._raises.append({"at": iso(time.time()), "from": before, "to": after, "by": by})
        if before is not None and (after is None or after > before):
            self.hooks.fire("raised", f"from {before} to {'infinity' if after is None else after} by {by}")
        if len(self._raises) > RAISES:
            del self._raises[RAISES // 2]

    def _ask(self, limit: int) -> None:
        short, self._short = self._short, None
        enough = limit != short and self._has_room(limit)
        self._answer = events.Granted(trio.current_time(), whole_pages(limit)) if enough else events.Denied(trio.current_time())

    def _has_room(self, limit: int) -> bool:
        return limit - (self.attempt.group.limit or 0) <= machine.room(self.site)

    def _may(self, limit: int) -> bool:
        """The machine is asked in the middle of a look at the group; what it has not got now is not asked for again in the next moment."""
        enough = self._has_room(limit)
        self._short = None if enough else limit
        return enough

    def _arm(self) -> None:
        """The policy's next raise, to be done by whoever sees that it is time. In a batch the memory for it is not ours to take."""
        if self.alive and self.usher is None:
            limit = policy.foreseen(self.rule, self.state)
            self.attempt.group.arm(None if limit is None else Order(limit, partial(self._may, limit)))

    def _settle(self, why: str) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._end_hold()
        self._settled = True
        record = self.attempt.finish(why)
        passed = self.thresholds.end(record.peak, record.limit)
        record.note, self.remark = self.remark or record.note, ""
        record.paused, record.raises = round(self._held_for, 6), self._raises
        self._held_for, self._raises = 0.0, []
        self.records.take(record)
        self.step(events.Settled(trio.current_time(), record.result, passed))

    def _launch(self, limit: int | None) -> None:
        self.enter(lambda: Attempt(self.site, self.spec, self.records.ended + 1, limit))

    def enter(self, make: Callable[[], Stay]) -> None:
        """A further attempt, now."""
        self._forget_news()
        try:
            self.attempt = make()
        except MemrunError as e:
            self.step(events.LaunchFailed(trio.current_time()))
            if self.record is not None:
                self.record.note, self.record.status = str(e), e.status
        else:
            self.heard = None
            self._watch()
            self.step(events.Launched(trio.current_time(), self.attempt.group.limit))
        self._wake()  # it need not have been the hand's own doing

    def _forget_news(self) -> None:
        """What the last attempt's watchers had still to say: an OOM kill of that one must not end the next."""
        kept = []
        while self._mail.statistics().current_buffer_used:
            event = self._mail.receive_nowait()
            kept += [] if isinstance(event, events.News) else [event]
        for event in kept:
            self.send(event)

    def _finish(self, why: str) -> None:
        self.record = self.records.concluded(why)
        if self.usher is not None:
            self.usher.finished(self)

    def look_at_the_largest(self) -> None:
        """Note who uses most."""
        self.attempt.seen = machine.largest(self.attempt.group.pids())

    async def _end(self) -> None:
        """Whatever happened: nobody is left in the group."""
        self._send.close()
        self._mail.close()
        if self._settled:
            return
        self.attempt.relieve()
        pause = 0.001
        while not self.attempt.rid():
            await trio.sleep(pause)
            pause = min(0.1, pause * 2)
        self.attempt.group.remove()
        self.attempt.close()


async def _watch(scope: trio.CancelScope, run: Run) -> None:
    attempt = run.attempt
    with scope:
        async with trio.open_nursery() as nursery:
            if not run.state.gone:
                nursery.start_soon(run.attend, watch.exit_of, attempt.child, attempt.group, run.send)
            nursery.start_soon(run.attend, watch.group, attempt.group, run.heed, run.heard, run.board)
            nursery.start_soon(ahead.prepare, run)
            if run.spec.at:
                nursery.start_soon(run.attend_rule, "--at", run.thresholds.listen, attempt.group, run.send)
            if run.spec.pressure:
                levels = [gauges.Rule(rule.level, rule.mode) for rule in run.spec.pressure]
                nursery.start_soon(run.attend_rule, "--pressure", gauges.pressures, attempt.group, levels, run.send)
