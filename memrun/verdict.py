"""The policy's part that comes after an attempt: another one or none, when, and what was not told of while it ran. Pure."""

from __future__ import annotations

from memrun import events
from memrun.budget import counted, delay, grown, wanted_again
from memrun.events import Finish, Tell
from memrun.states import Over, Settling, Waiting
from memrun.units import format_size
from memrun.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.events import Decision
    from memrun.states import Rule, State

FREE = {"restart-asked", "gave-way"}  # those that are no doing of the job's: neither delayed nor counted


def settled(rule: Rule, state: State, event: events.Settled) -> tuple[State, tuple[Decision, ...]]:
    """It is over, or there is another attempt; after what is still to be told of this one."""
    after, decisions = _again_or_over(rule, state, event.at, event.result)
    return after, (*_belated(rule, event.passed), *decisions)


def _again_or_over(rule: Rule, state: State, at: float, result: str) -> tuple[State, tuple[Decision, ...]]:
    why = state.phase.why if isinstance(state.phase, Settling) else ""
    again = wanted_again(rule, why, result)
    if state.stopped or not again:
        return replace(state, phase=Over()), (Finish("stopped" if again and why != "oom-kill" else why),)
    asked = why in FREE
    if not asked and len(counted(rule, state.tries, at)) >= rule.attempts:
        return replace(state, phase=Over()), (Tell("exhausted", f"{rule.attempts} attempts are used up"), Finish("exhausted"))
    quick = 0 if at - state.began >= rule.min_uptime else state.quick + (not asked)
    short = why == "gave-way" or (result == "oom-kill" and rule.on_oom == "restart")
    limit = grown(rule, state.limit) if short else state.limit
    pause = 0.0 if asked else delay(rule, quick)
    tries = state.tries[:-1] if asked else state.tries
    return replace(state, phase=Waiting(at + pause), limit=limit, quick=quick, tries=tries), (_again(result, why, pause, limit),)


def _again(result: str, why: str, pause: float, limit: int | None) -> Tell:
    causes = {"restart-asked": "as asked", "restart": "by rule", "gave-way": "because others needed its memory"}
    cause = causes.get(why, f"after {result}")
    return Tell("restarting", f"restarts {cause} in {pause:.1f} s with a limit of {format_size(limit)}")


def _belated(rule: Rule, passed: tuple[int, ...]) -> tuple[Decision, ...]:
    """What the peak tells of afterwards: nothing can be done to who is gone, but whoever wanted to know is told."""
    decisions: list[Decision] = []
    for action in (rule.marks[index] for index in passed):
        decisions.append(Tell("threshold", f"{action.about or action.do}: seen at its end"))
        decisions += [events.Execute(action.detail, "threshold", action.about)] if action.do == "exec" else []
    return tuple(decisions)
