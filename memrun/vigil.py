"""Who waits for a run that wants nothing but its end, or to be held at its limit, and does so without an event loop: it would make memrun
three times as large, and most runs never need it.

One poll over everything that can happen: the command's end, what the kernel tells of its group, signals, the control socket, the output
that a letter keeps, and the policy's alarm. Events are news.py's, decisions policy.py's, deeds those of deeds.py, as in
supervisor.py; what is only here is which of them such a run can meet: CAN, and a test looks through all its histories for others.

`ps` is answered here, because one `memrun ps` asks every memrun of a user: a thousand of them must not grow by what it costs one to do more.
Whoever asks for anything else is handed over, with everything else that is here, to an event loop, which is loaded then
(oneshot.py); and so is a run that is to be started again, in the delay before that, and one that is held, when it holds still: most runs that may be
need not be. Nothing that has happened is lost on the way: descriptors keep their news, the state is a value, and a guard holds who gets to its limit meanwhile.

A reaction never waits for that: it is loaded for what people ask, not for what the kernel tells. A rule that has to act at
the limit or at a mark (--grow, --at, --pressure, --on-event) has it from the beginning.
"""

from __future__ import annotations

import math
import os
import select
import time

from memrun import deeds, door, events, flatjson, interference, news, policy, standing, states
from memrun.cgroup import Heard
from memrun.job import iso
from memrun.priority import be_brief, hurry
from memrun.record import Attempts

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from memrun.job import Attempt
    from memrun.record import Record
    from memrun.telling import Teller

CAN = (events.Signal, events.Kill, events.Freeze, events.Thaw, events.Lend, events.Settle, events.Tell, events.Finish)
MOST = 16  # guests at a time; for one more, the one that has been silent for longest goes
CLOSED = 0.1  # seconds that nobody is let in when there is no descriptor to be had
ASKED = b'{"verb": "ps"}\n'  # as clients.py writes it; written otherwise, it is as good a question, and handed over
CHUNK = 1 << 16


class Guest:
    """Somebody at the control socket: `held` is what he has said so far."""

    __slots__ = ("held", "until", "wire")

    def __init__(self, wire: _socket.socket, until: float) -> None:
        self.wire, self.until, self.held = wire, until, b""


class Vigil:
    """Over one attempt, the only one of its run."""

    def __init__(self, stay: Attempt, teller: Teller) -> None:
        self.stay, self.rule = stay, deeds.rule_of(stay.spec, stay.site)
        self.state = policy.START
        self.heard: Heard | None = None  # news of the group, at the last look
        self.past: list[tuple[str, events.Event | events.Tell]] = []
        self.records = Attempts()
        self.since = iso(time.time())
        self.held_since: float | None = None
        self.guests: dict[int, Guest] = {}
        self.door: door.Door | None = None
        self._teller, self._letter = teller, teller.letter
        self._record: Record | None = None
        self._looks: list[float] = []
        self._hand = -1  # our end of the hand's pipe
        self._leave = False  # somebody wants more than there is here
        self._is_removed = False  # the group, by somebody else
        self._again = False  # the group has news that no descriptor tells of
        self._closed_until = math.inf
        self._next_point = 0.0 if teller.letter is not None else math.inf
        self._poll = select.poll()
        self.signals = news.signal_fd()

    def keep(self) -> Record | None:
        """Until it is over: the run's record, or None, where an event loop has to go on with it."""
        try:
            self._begin()
            while self._record is None and not self._leave:
                self._turn()
            self._hand_over()
        except BaseException:
            self._end()
            raise
        if self._record is not None:
            self.close()
        return self._record

    def _begin(self) -> None:
        group = self.stay.group
        self._step(events.Launched(self.stay.began, group.limit))
        policy.step(self.rule, self.state, events.OomKilled(self.stay.began))  # for nothing: the first time takes longer
        self.door, why = door.open_door()
        if self.door is None:
            self._teller.remark(why)
        (hurry if self.stay.holds else be_brief)()
        for fd in (group.notice_fd(), self.signals, self.stay.child.pidfd):
            self._poll.register(fd, select.POLLIN)
        self._mind_hand()
        if self.door is not None:
            self._poll.register(self.door.wire, select.POLLIN)
        if self._letter is not None:
            self._poll.register(self._letter.pipe, select.POLLIN)
        deeds.take_over(self.stay)
        self._listen()
        if self.heard is None or self.heard.populated is None:  # a kernel that does not say when a group is empty
            self._leave = True

    def _turn(self) -> set[int]:
        """Sleep until something has happened, and see to it: the kernel's news first, for what it kills may have ended just now. Which
        descriptors had told of it."""
        ready = {fd for fd, _ in self._poll.poll(self._patience())}
        now = time.monotonic()
        if self._looks and not ready:
            del self._looks[0]
        if not self._is_removed and (self.stay.group.notice_fd() in ready or self._looks or self._again):
            self._listen()
        if self._hand in ready:
            self._poll.unregister(self._hand)
            self._mind_hand()
        if self._record is None and self.signals in ready:
            self._hear_signal()
        if self.attended and self.stay.child.pidfd in ready:
            self._look_for_the_end()
        if self.attended and (due := policy.alarm(self.state)) is not None and now >= due:
            self._step(events.Rang(now))
        if self.attended:
            self._write_letter(ready, now)
            self._receive(ready, now)
        return ready

    def _mind_hand(self) -> None:
        """Its pipe is an error as soon as it is dead."""
        site = self.stay.site
        if said := site.hand.mind():
            self._teller.remark(said)
        self._hand = site.hand.pipe
        if not site.hand.is_broken():  # else there is no process to be had
            self._poll.register(self._hand, 0)

    @property
    def attended(self) -> bool:
        """Whether there is an attempt, with a group."""
        return self._record is None and not isinstance(self.state.phase, states.Waiting)

    def _patience(self) -> float | None:
        """Milliseconds to the next thing that is to be done if nothing happens; None: there is none."""
        if self._again:
            return 0.0
        now = time.monotonic()
        due = policy.alarm(self.state)
        times = [guest.until for guest in self.guests.values()]
        times += (
            [self._next_point, self._closed_until]
            + ([] if due is None else [due])
            + ([now + self._looks[0]] if self._looks else [])
        )
        first = min(times)
        return None if first == math.inf else max(0.0, math.ceil((first - now) * 1000))

    # What the kernel tells

    def _listen(self) -> None:
        self._again = False
        before, now = self.heard or Heard(), interference.hear(self.stay.group)
        if now is None:  # and what told of its news would not let us sleep
            self._poll.unregister(self.stay.group.notice_fd())
            now, self._looks, self._is_removed = Heard(), [], True
            now.populated = False
        if not self._looks and news.undecided(before, now):
            now = news.glance_again(self.stay.group)
            self._looks = list(news.LOOKS)
        self.heard = now
        if news.decided(before, now):
            self._looks = []
        for event in news.between(before, now, time.monotonic()):
            if self.attended:
                self._step(event)

    def _hear_signal(self) -> None:
        number, from_kernel = news.next_signal(self.signals)
        if not (from_kernel and deeds.shares_terminal(self.stay)):
            self._step(news.ending(number, time.monotonic()))

    def _look_for_the_end(self) -> None:
        child = self.stay.child
        status = child.reap()
        if status is not None:
            self._poll.unregister(child.pidfd)
            if news.may_be_ours_too(status):
                time.sleep(news.TOGETHER)
                if self.signals in {fd for fd, _ in self._poll.poll(0)}:
                    self._hear_signal()
            self._step(news.exited(child, self.stay.group, status, time.monotonic()))

    # What comes of it

    def _step(self, event: events.Event) -> None:
        if not isinstance(event, events.Rang):
            self.past = [*self.past[1 - standing.KEPT :], (iso(time.time()), event)]
        if isinstance(event, events.StopAsked):
            self._teller.stopping()
        elif isinstance(event, events.OomKilled):
            deeds.see_the_largest(self.stay)
        self.state, decisions = policy.step(self.rule, self.state, event)
        for decision in decisions:
            self._carry_out(decision)
        self._leave = self._leave or isinstance(self.state.phase, states.Waiting | states.Paused | states.Lent)

    def _carry_out(self, decision: events.Decision) -> None:
        match decision:
            case events.Signal(number, tree):
                deeds.signal(self.stay, number, tree=tree)
            case events.Kill():
                if not deeds.kill(self.stay, reaped=self.state.gone):
                    self._step(events.Emptied(time.monotonic()))
            case events.Freeze():
                self.held_since = self.held_since or time.monotonic()
                self.stay.group.freeze()
            case events.Lend():
                self.stay.group.lend()
            case events.Thaw():
                self.held_since = None
                self.stay.group.thaw()
                self._again = interference.reflex(self.stay.group)  # what it was lent may not take it past its wire
            case events.Settle(why):
                record = self.stay.finish(why)
                self.records.take(record)
                self._step(events.Settled(time.monotonic(), record.result))
            case events.Tell():
                self.past.append((iso(time.time()), decision))
                if not self.stay.spec.quiet:
                    self._teller.say(standing.said(self.stay.spec.name, decision, self.state))
            case events.Finish(why):
                self._record = self.records.concluded(why)
            case _:
                raise AssertionError(decision)

    def _write_letter(self, ready: set[int], now: float) -> None:
        """What the job writes and how its memory goes: the one timer of memrun's, see cron/curve.py for how rarely it wakes us."""
        if self._letter is None:
            return
        if self._letter.pipe in ready:
            self._letter.ring.take(os.read(self._letter.pipe, CHUNK))
        if now >= self._next_point:
            self._letter.curve.add(self.stay.group.usage(), self.stay.group.peak())
            self._next_point = now + self._letter.curve.gap

    # Who asks

    def _receive(self, ready: set[int], now: float) -> None:
        for fd, guest in list(self.guests.items()):
            if (fd in ready and not self._attend(guest, now)) or now >= guest.until:
                self._show_out(guest)
        if self.door is not None and (self.door.wire.fileno() in ready or now >= self._closed_until):
            self._let_in(self.door, now)
        if any(b"\n" in guest.held for guest in self.guests.values()):
            self._leave = self._leave or not self._looks  # nobody is asked to begin in the middle of a second look

    def _let_in(self, at: door.Door, now: float) -> None:
        if now >= self._closed_until:
            self._closed_until = math.inf
            self._poll.register(at.wire, select.POLLIN)
        try:
            wire = at.guest()
            _, user = door.who(wire)
        except BlockingIOError:
            return  # gone again
        except OSError:  # no descriptor to be had, for one: to ask again at once would not let us sleep
            self._poll.unregister(at.wire)
            self._closed_until = now + CLOSED
            self._drop_the_silent()
            return
        if len(self.guests) >= MOST:
            self._drop_the_silent()
        guest = self.guests[wire.fileno()] = Guest(wire, now + door.SILENCE)
        self._poll.register(wire, select.POLLIN)
        if user not in {0, os.geteuid()}:
            guest.held = b"\n"  # somebody else's business, too: to be refused, and said

    def _drop_the_silent(self) -> None:
        if self.guests:
            self._show_out(min(self.guests.values(), key=lambda guest: guest.until))

    def _attend(self, guest: Guest, now: float) -> bool:
        """False: he is to leave."""
        try:
            said = guest.wire.recv(4096)
            guest.held += said
            if guest.held == ASKED:
                answer = self._row().encode()
                guest.held, guest.until = b"", now + door.SILENCE
                return guest.wire.send(answer) == len(answer)
        except OSError:
            return False
        if len(guest.held) > CHUNK:
            guest.held += b"\n"
        return bool(said)

    def _row(self) -> str:
        row = standing.row(self.stay, self.state, self.since, 1, (False, None))
        return f'{{"ok": true, "jobs": [{flatjson.written(row)}]}}\n'

    def _show_out(self, guest: Guest) -> None:
        del self.guests[guest.wire.fileno()]
        self._poll.unregister(guest.wire)
        guest.wire.close()

    # The end

    def _hand_over(self) -> None:
        """Who is not held yet is not left alone while the event loop is loaded, nor until the guard stands."""
        try:
            guard = self.stay.post() if self._is_at_large else None
        except OSError:
            return  # no process to be had: the job is worth more than its guard
        if guard is not None:
            self._listen()  # once for nothing: after a fork every page of ours is copied when first touched, and a job at its limit does not wait
            self._poll.register(guard.standing, select.POLLIN)
            while self._is_at_large and guard.standing not in self._turn():
                continue
            self._poll.unregister(guard.standing)
            if not self._is_at_large:
                self.stay.relieve()
            if isinstance(self.state.phase, states.Paused):
                self.stay.group.freeze()  # whatever the guard has made of it

    @property
    def _is_at_large(self) -> bool:
        return self.attended and not isinstance(self.state.phase, states.Paused)

    def _end(self) -> None:
        """We have failed: nobody is left in the group all the same."""
        self.close()
        self.stay.relieve()
        pause, until = 0.001, time.monotonic() + deeds.LAST_RESORT
        while not self.stay.rid():
            if time.monotonic() > until:
                return
            time.sleep(pause)
            pause = min(0.1, pause * 2)
        self.stay.group.remove()
        self.stay.close()

    def close(self) -> None:
        """Let go of what is ours."""
        for guest in list(self.guests.values()):
            self._show_out(guest)
        if self.door is not None:
            self.door.close()
            self.door = None
        fd, self.signals = self.signals, -1
        if fd >= 0:
            os.close(fd)
