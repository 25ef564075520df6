"""A run of the command line, and all that accompanies it while it lives: the desk where other memruns ask and command, and whoever wants to be told.

Loaded when the command runs already: everything in here is heavy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from memrun import control, errors, watch
from memrun.desk import Desk
from memrun.guard import hurry
from memrun.supervisor import Run

if TYPE_CHECKING:
    from memrun.job import Stay
    from memrun.record import Record
    from memrun.telling import Teller


def supervise(attempt: Stay, teller: Teller) -> Record:
    """Until nothing of it is left."""
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
    failure: errors.MemrunError | None = None
    record: Record | None = None
    async with trio.open_nursery() as nursery:
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
