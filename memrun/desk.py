"""What another memrun may ask and command of this one's jobs, put into events and answers. The socket is control.py's affair.

Commands are steps of the policy like everything else: checked here (is there such a job, does the new limit hold what it uses), sent
through the same mailbox, and answered when they have been carried out.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from memrun import events, signals, standing, states
from memrun.aside import aside
from memrun.cgroup import NO_FREEZER, details
from memrun.errors import GroupError, JobNameError, RefusedError, UsageError
from memrun.job import iso
from memrun.options import FLOOR
from memrun.units import adjusted, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import Group
    from memrun.chronicle import Chronicle
    from memrun.options import Spec
    from memrun.supervisor import Run

Words = dict[str, object]
BACKLOG = 256  # events that a reader may be behind before it is dropped
STILL_IN, LOOKS = 0.5, 50  # seconds, and looks, that a pause may take before who asked for it is told that it does
NOT_STILL = "not all of it holds still yet: a process waits in the kernel, and will be held when that is over"
COMPLAIN_EVERY = 1.0  # seconds: who sends garbage must not fill a log


class Desk:
    """Answers for the jobs of one memrun."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """`say`: one line for whoever started this memrun."""
        self._say = say
        self.runs: dict[str, Run] = {}
        self._since: dict[str, str] = {}
        self._readers: list[trio.MemorySendChannel[Words]] = []
        self._past: deque[Words] = deque(maxlen=standing.KEPT)
        self._complained, self._unsaid = -COMPLAIN_EVERY, 0
        self._chronicle: Chronicle | None = None

    def take(self, run: Run, since: str = "") -> None:
        """Answer for this run, too, which is here since then (now)."""
        self.runs[run.spec.name] = run
        run.hear = lambda told: self.hear(run, told)
        self._since[run.spec.name] = since or iso(time.time())

    def hear(self, run: Run, told: events.Event | events.Tell, at: str = "") -> None:
        """One event, of now or of then, for those who follow. That the policy's own alarm rang is news to nobody."""
        if isinstance(told, events.Rang):
            return
        line: Words = {"at": at or iso(time.time()), "name": run.spec.name}
        if isinstance(told, events.Tell):
            if not (run.spec.quiet or at):  # what was then has been said
                self._say(standing.said(run.spec.name, told, run.state))
            line |= {"event": told.event, "text": told.text}
        else:
            facts: Words = {key: getattr(told, key) for key in told.__match_args__ if key != "at"}
            line |= {"event": type(told).__name__.lower(), **facts}
        self._publish(line)
        if run.spec.events:
            self._write_down(run.spec, line)

    def _write_down(self, spec: Spec, line: Words) -> None:
        if self._chronicle is None:
            from memrun.chronicle import Chronicle  # for those who asked for it

            self._chronicle = Chronicle(self._say)
        self._chronicle.take(spec, line)

    def _publish(self, line: Words) -> None:
        self._past.append(line)
        for reader in list(self._readers):
            try:
                reader.send_nowait(line)
            except (trio.WouldBlock, trio.BrokenResourceError):
                self._readers.remove(reader)  # too slow, or gone: never waited for
                reader.close()

    def refused(self, what: str) -> None:
        """Log it; of a flood, one line a second."""
        now = time.monotonic()
        if now < self._complained + COMPLAIN_EVERY:
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more before that)" if self._unsaid else ""
        self._complained, self._unsaid = now, 0
        self._say(f"control socket: {what}: refused{more}")
        self._publish({"at": iso(time.time()), "name": "", "event": "refused", "text": what})

    def past(self) -> list[Words]:
        """The latest events, oldest first."""
        return list(self._past)

    def subscribe(self) -> trio.MemoryReceiveChannel[Words]:
        """All events from now on; it ends when the last run has."""
        send, receive = trio.open_memory_channel[Words](BACKLOG)
        self._readers.append(send)
        return receive

    def close(self) -> None:
        """No more events."""
        for reader in self._readers:
            reader.close()
        self._readers = []
        if self._chronicle is not None:
            self._chronicle.close()

    def jobs(self) -> list[Words]:
        """One row for each job, as `ps --json` prints it."""
        return [self._row(run) for run in self.runs.values()]

    def _row(self, run: Run) -> Words:
        attempt = run.records.ended + int(run.alive)
        return standing.row(run.attempt, run.state, self._since[run.spec.name], attempt, (not run.alive, run.record))

    async def command(self, name: str, verb: str, words: Words) -> Words:
        """Carry out one verb; MemrunError says why not."""
        run = self.runs.get(name)
        if run is None:
            raise JobNameError(f"no job {name!r} is running here", "memrun ps lists those that are")
        act = COMMANDS.get(verb)
        if act is None:
            raise UsageError(f"{verb!r} is nothing that can be asked of a job")
        return await act(run, words)


def _living(run: Run) -> Group:
    if not run.alive:
        raise RefusedError(f"{run.spec.name} is not running at the moment")
    return run.attempt.group


async def _raise(run: Run, words: Words) -> Words:
    group = _living(run)
    before = group.limit
    limit = adjusted(str(words.get("size", "")), before, run.site.whole())
    if limit is not None and limit < FLOOR:
        raise RefusedError(f"a limit of {format_size(limit)} is below the floor of {format_size(FLOOR)}")
    if run.usher is not None:
        run.usher.allow(run, limit)
    if limit is not None and (before is None or limit < before):
        await _make_room(run, limit, squeeze=bool(words.get("reclaim")))
    held = isinstance(run.state.phase, states.Paused | states.Lent)
    run.command(events.RaiseAsked(trio.current_time(), limit))
    return {"from": before, "to": group.limit} | _note(run, limit, held=held)


def _note(run: Run, limit: int | None, *, held: bool) -> Words:
    """What somebody who raises a limit would not expect."""
    group, enclosing = run.attempt.group, run.site.host.enclosing()
    if enclosing is not None and (limit is None or limit > enclosing):
        return {"note": f"an enclosing group allows {format_size(enclosing)} only"}
    if not held:
        return {}
    phase = run.state.phase
    if isinstance(phase, states.Paused) and phase.by != "limit":
        return {"note": f"is still paused by the {phase.by}: memrun resume {run.spec.name}"}
    if isinstance(phase, states.Paused) or group.reflex():  # use is at the new limit already, or too close to it
        return {"note": f"uses {format_size(group.usage())} of that already, and is held: give it more"}
    return {}


async def _make_room(run: Run, limit: int, *, squeeze: bool) -> None:
    """Lowering below what is used would kill (v2) or fail (v1): refused, or squeezed first where that was asked for."""
    group = run.attempt.group
    if squeeze and group.usage() > limit:
        await _aside(run, group, group.usage() - limit)
    need = group.usage() if not squeeze else group.need()
    if need >= limit:
        peak = group.peak()
        said = f"{run.spec.name} uses {format_size(group.usage())} (peak {format_size(peak)}), more than {format_size(limit)}"
        raise RefusedError(said, "" if squeeze else "With --reclaim, page cache and idle pages are squeezed out first")


async def _aside(run: Run, group: Group, size: int | None) -> None:
    failed = await aside(lambda: group.reclaim(size))
    if failed and run.alive and failed != 16:  # EBUSY: some of it could not be had
        raise GroupError("reclaim from", group.path, failed)


async def _reclaim(run: Run, words: Words) -> Words:
    group = _living(run)
    size = words.get("size")
    before = group.usage()
    wanted = None if size in {None, ""} else adjusted(str(size), group.limit, run.site.whole())
    await _aside(run, group, wanted)
    return {"before": before, "after": group.usage() if run.alive else 0}


async def _set(run: Run, words: Words) -> Words:
    group = _living(run)
    values = words.get("values")
    if not isinstance(values, dict) or not values:
        raise UsageError("nothing to set", "Try: limit=1G soft=500M swap=0 swappiness=10")
    answer: Words = {}
    for key, text in values.items():
        if key == "limit":
            answer |= await _raise(run, {"size": text})
        elif key in {"soft", "swap"}:
            group.tune(key, run.site.size(parse_size(str(text))))
            run.thresholds.move()
        elif key == "swappiness" and str(text).isdecimal() and int(str(text)) <= 200:
            group.tune(key, int(str(text)))
        else:
            raise UsageError(f"{key}={text} cannot be set", "Keys are limit, soft, swap (sizes) and swappiness (0 to 200)")
    return answer


async def _show(run: Run, _words: Words) -> Words:
    rows = details.rows(_living(run))
    above = run.site.host.enclosing()
    if above is not None:
        rows.insert(1, ("limit above", str(above), "the tightest one of the groups that it is in"))
    return {"rows": [{"what": what, "value": value, "meaning": meaning} for what, value, meaning in rows]}


async def _signal(run: Run, words: Words) -> Words:
    _living(run)
    run.command(events.SignalAsked(trio.current_time(), signals.parse(str(words.get("signal", "")))))
    return {}


async def _wait(run: Run, _words: Words) -> Words:
    await run.over.wait()
    assert run.record is not None
    return {"result": run.record.result, "status": run.record.status}


async def _pause(run: Run, _words: Words) -> Words:
    if not _living(run).can_freeze():
        raise RefusedError(*NO_FREEZER)
    try:
        run.command(events.PauseAsked(trio.current_time()))
    except GroupError:
        run.command(events.ResumeAsked(trio.current_time()))  # the kernel refused: it runs, and is not to be called paused
        raise
    return {} if await _holds_still(run) else {"note": NOT_STILL}


async def _holds_still(run: Run) -> bool:
    """Whether all of it does, within a moment: a process that waits in the kernel for a disk, say, is not frozen before that is over. The
    kernel is asked again, and not listened to: it tells of all frozen, not of who is missing."""
    for _ in range(LOOKS):
        if not run.alive or not isinstance(run.state.phase, states.Paused) or run.attempt.group.freeze():
            return True
        await trio.sleep(STILL_IN / LOOKS)
    return False


async def _resume(run: Run, _words: Words) -> Words:
    _living(run)
    run.command(events.ResumeAsked(trio.current_time()))
    return {}


async def _restart(run: Run, _words: Words) -> Words:
    if run.attempt.borrowed:
        raise RefusedError(f"memrun did not start {run.spec.name}, so it cannot start it again")
    run.command(events.RestartAsked(trio.current_time()))
    return {}


async def _stop(run: Run, _words: Words) -> Words:
    run.command(events.StopAsked(trio.current_time()))
    return {}


async def _kill(run: Run, _words: Words) -> Words:
    run.command(events.KillAsked(trio.current_time()))
    return {}


COMMANDS = {
    "raise": _raise, "pause": _pause, "resume": _resume, "restart": _restart, "stop": _stop, "kill": _kill,
    "signal": _signal, "show": _show, "set": _set, "reclaim": _reclaim, "wait": _wait,
}  # fmt: skip
