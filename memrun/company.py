"""A run of the command line, and all that accompanies it while it lives: the desk where other memruns ask and command, and whoever wants to be told.

Loaded when the command runs already: everything in here is heavy.
"""

from __future__ import annotations

import gc
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from memrun import control, errors, events, hooks, news, watch
from memrun.desk import Desk
from memrun.output import Sink
from memrun.priority import be_brief, hurry
from memrun.supervisor import Run

if TYPE_CHECKING:
    from memrun.cron.letter import Letter
    from memrun.job import Stay
    from memrun.options import Spec
    from memrun.record import Record
    from memrun.telling import Teller
    from memrun.vigil import Vigil


class Clock(trio.abc.Clock):
    """time.monotonic, without trio's own offset: who has waited before there was a loop hands a state over that has moments in it."""

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return time.monotonic()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return deadline - time.monotonic()


def supervise(attempt: Stay, teller: Teller, vigil: Vigil | None = None) -> Record:
    """Until nothing of it is left. `vigil`: who has waited for it so far."""
    gc.freeze()  # what is loaded stays: a look for garbage, in the middle of a reaction, is not at all of that
    gc.enable()
    (hurry if attempt.holds else be_brief)()
    run = Run(attempt.site, attempt)
    if vigil is not None:
        run.resume(vigil.state, vigil.heard, vigil.records, vigil.held_since)
    fd = news.signal_fd() if vigil is None else vigil.signals
    try:
        return trio.run(_in_company, run, fd, teller, vigil, clock=Clock())
    finally:
        os.close(fd)


async def _in_company(run: Run, fd: int, teller: Teller, vigil: Vigil | None) -> Record:
    desk = Desk(teller.say)
    desk.take(run, "" if vigil is None else vigil.since)
    for at, event in () if vigil is None else vigil.past:
        desk.hear(run, event, at)
    run.hear = partial(_hear, run, desk, teller)
    run.mention = teller.remark
    failure: errors.MemrunError | None = None
    record: Record | None = None
    async with trio.open_nursery() as nursery:
        if teller.letter is not None:
            nursery.start_soon(_write, teller.letter, run)
        nursery.start_soon(control.serve, desk, teller.remark, run.over, 0, _kept(vigil))
        try:
            record = await run.live(fd)
        except errors.MemrunError as e:
            failure = e  # out of a nursery it would come as a group
        finally:
            run.over.set()
            desk.close()
    if failure is not None or record is None:
        raise failure or errors.MemrunError("the run ended without a result")
    return record


def _kept(vigil: Vigil | None) -> control.Kept | None:
    if vigil is None or vigil.door is None:
        return None
    return control.Kept(vigil.door, [(guest.wire.detach(), guest.held) for guest in vigil.guests.values()])


def _hear(run: Run, desk: Desk, teller: Teller, told: events.Event | events.Tell) -> None:
    if isinstance(told, events.StopAsked | events.KillAsked | events.DetachAsked):
        teller.stopping()
    desk.hear(run, told)


async def _write(letter: Letter, run: Run) -> None:
    """What the job writes and how its memory goes, until it is over."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Sink.over(letter.pipe, letter.ring).pump)
        nursery.start_soon(_draw, letter, run)
        await run.over.wait()
        nursery.cancel_scope.cancel()


async def _draw(letter: Letter, run: Run) -> None:
    """The one timer of memrun's, and only here: no kernel tells of every change of use. See cron/curve.py for how rarely it wakes us."""
    while True:
        if run.alive:
            group = run.attempt.group
            letter.curve.add(group.usage(), group.peak())
        else:
            letter.curve.add(0, None)
        await trio.sleep(letter.curve.gap)


def tell_unstarted(spec: Spec, error: errors.MemrunError, teller: Teller) -> None:
    """To its hooks, the end of a run that never began."""
    fd = news.signal_fd()
    try:
        trio.run(_run_hooks, spec, error, teller, fd)
    finally:
        os.close(fd)


async def _run_hooks(spec: Spec, error: errors.MemrunError, teller: Teller, fd: int) -> None:
    async with trio.open_nursery() as beside:
        pool = hooks.Pool(beside)
        beside.start_soon(watch.signals_to, fd, lambda: False, pool.heed)
        hooks.tell_unstarted(pool, spec, error, lambda text: teller.say(f"{spec.name}: hook: {text}"))
        await pool.settled()
        beside.cancel_scope.cancel()
