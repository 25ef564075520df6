"""What is done while nobody waits for it: the next raise is prepared, and a pause that lasts is looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import events, states
from memrun.aside import aside
from memrun.budget import grown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memrun.supervisor import Run

LASTS = 0.1  # seconds after which somebody may look at a pause: psutil takes 40 ms to import, and more may be on its way


async def prepare(run: Run) -> None:
    """Where it is raised by rule, the next raise is to be expected. What cannot be prepared is done when it is time."""
    group = run.attempt.group
    larger = grown(run.rule, group.limit)
    if run.rule.on_oom != "pause" or larger is None or larger == group.limit:
        return
    try:
        work = group.foresee(larger)
        if work is not None and await aside(work[0]) == 0:
            work[1]()
    except OSError:  # no process, no descriptor to be had
        return


def look(run: Run, decisions: Iterable[events.Decision]) -> None:
    """It is held: who is the largest? At once, unless it has asked for more."""
    if not any(isinstance(decision, events.Ask) for decision in decisions) or not run.beside(_look_if_it_lasts):
        run.look_at_the_largest()


async def _look_if_it_lasts(run: Run) -> None:
    await trio.sleep(LASTS)
    if run.alive and isinstance(run.state.phase, states.Paused):
        run.look_at_the_largest()
