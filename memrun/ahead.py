"""What is done while nobody waits for it: the next raises are prepared, and a pause that lasts is looked into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import events, states
from memrun.aside import aside
from memrun.budget import grown
from memrun.units import whole_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from memrun.supervisor import Run

RAISES = 4  # that are prepared
LASTS = 0.1  # seconds after which somebody may look at a pause: psutil takes 40 ms to import, and more may be on its way


async def prepare(run: Run) -> None:
    """Where it is raised by rule, the next raises are to be expected. What cannot be prepared is done when it is time."""
    group = run.attempt.group
    if run.rule.on_oom != "pause" or run.preparing is group:
        return
    run.preparing = group
    try:
        while run.alive and run.attempt.group is group and (work := group.foresee(_limits(run))) is not None:
            if await aside(work[0]) != 0:
                return
            work[1]()
    except OSError:  # no process, no descriptor to be had
        return
    finally:
        if run.preparing is group:
            run.preparing = None


def _limits(run: Run) -> tuple[int, ...]:
    """In a batch the descriptors are counted, one for each job (openfiles.py)."""
    found: list[int] = []
    limit = run.state.limit
    while len(found) < (RAISES if run.usher is None else 1):
        larger = grown(run.rule, limit)
        if larger is None or larger == limit:
            break
        limit = whole_pages(larger)  # as the kernel will have it: what comes next is reckoned from that
        found.append(limit)
    return tuple(found)


def look(run: Run, decisions: Iterable[events.Decision]) -> None:
    """It is held: who is the largest? At once, unless it has asked for more."""
    if not any(isinstance(decision, events.Ask) for decision in decisions) or not run.beside(_look_if_it_lasts):
        run.look_at_the_largest()


async def _look_if_it_lasts(run: Run) -> None:
    await trio.sleep(LASTS)
    if run.alive and isinstance(run.state.phase, states.Paused):
        run.look_at_the_largest()
