"""A run of the command line, and all that accompanies it while it lives: the desk where other memruns ask and command, and whoever wants to be told.

Loaded when the command runs already: everything in here is heavy.
"""

from __future__ import annotations

import gc
import os
from functools import partial
from typing import TYPE_CHECKING

import trio

from memrun import control, errors, events, watch
from memrun.desk import Desk
from memrun.guard import hurry
from memrun.output import Sink
from memrun.supervisor import Run

if TYPE_CHECKING:
    from memrun.cron.letter import Letter
    from memrun.job import Stay
    from memrun.record import Record
    from memrun.telling import Teller


def supervise(attempt: Stay, teller: Teller) -> Record:
    """Until nothing of it is left."""
    gc.freeze()  # what is loaded stays: a look for garbage, in the middle of a reaction, is not at all of that
    gc.enable()
    if attempt.holds:
        hurry()
    fd = watch.signal_fd()
    try:
        return trio.run(_in_company, Run(attempt.site, attempt), fd, teller)
    finally:
        os.close(fd)


async def _in_company(run: Run, fd: int, teller: Teller) -> Record:
    desk = Desk(teller.say)
    desk.take(run)
    run.hear = partial(_hear, run, desk, teller)
    failure: errors.MemrunError | None = None
    record: Record | None = None
    async with trio.open_nursery() as nursery:
        if teller.letter is not None:
            nursery.start_soon(_write, teller.letter, run)
        nursery.start_soon(control.serve, desk, teller.remark, run.over)
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


def _hear(run: Run, desk: Desk, teller: Teller, told: events.Event | events.Tell) -> None:
    if isinstance(told, events.StopAsked | events.KillAsked | events.DetachAsked):
        teller.notify.stopping()
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
