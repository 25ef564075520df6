"""What to do about what happened: step(rule, state, event) -> (state, decisions). Pure; time arrives inside events.

The life of a run, in one place:

    Waiting --Rang--> (Launch) --Launched--> Running
    Running --Exited, nothing left--> Settling            Running --Exited, children left--> Draining (wait_all) | Ending
    Running | Draining --Reached (held at its limit), PauseAsked, a rule's pause--> Paused
    Running | Draining --Raised (at its limit, and given at once what was budget.foreseen)--> as before, with more
    Paused --Granted, RaiseAsked, ResumeAsked--> Running | Draining      Paused --patience over--> Ending, killed
    Paused --Denied--> Paused, and asks again when the alarm rings
    Paused --SignalAsked--> Lent (half a second to hear it) --Rang--> Paused
    any of these --StopAsked, timeout, a clean restart--> Ending: asked to stop, then killed when the alarm rings
    any of these --OomKilled, oom_group--> Ending, killed at once
    Draining | Ending --Emptied (and the command reaped)--> Settling
    any of these --DetachAsked (processes that were attached), not killed yet--> Settling: put back to where they were
    Settling --Settled (the verdict, from the kernel's counters)--> Waiting for another attempt | Over
    a held one --GiveWayAsked (a batch is stuck)--> Ending, killed, and Waiting for another attempt

Invariants (tests/unit enumerate every legal history against them): there is one Finish, and it is last; nothing settles
without the group being empty *and* the command reaped; whoever waits for nobody but time has an alarm; the first cause is the
one that is told; a kill is repeated until it worked; nothing is launched after a commanded stop; every retry has a delay and
comes out of one budget, whatever it is for.
"""

from __future__ import annotations

from memrun import events, verdict
from memrun.budget import GOLDEN, counted, foreseen, grown
from memrun.events import Finish, Freeze, Kill, Lend, LetGo, Settle, Signal, Tell, Thaw
from memrun.states import (
    AGAIN,
    ASK_AGAIN,
    START,
    Action,
    Draining,
    Ending,
    Lent,
    Over,
    Paused,
    Phase,
    Rule,
    Running,
    Settling,
    State,
    Waiting,
)
from memrun.values import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.events import Decision, Event

SLOWEST = 1.0
SLOWEST_ASK = 30.0
HEARING = 0.5  # seconds that a held job may run to hear a signal

__all__ = ["GOLDEN", "START", "Action", "Rule", "State", "alarm", "foreseen", "grown", "step"]
Step = tuple[State, tuple["Decision", ...]]


def alarm(state: State) -> float | None:
    """When the policy wants to be woken if nothing happens until then."""
    match state.phase:
        case Running() | Draining():
            return state.deadline
        case Paused(_, until, again):
            return _sooner(_sooner(state.deadline, until), again)
        case Lent(_, until):
            return _sooner(state.deadline, until)
        case Ending(_, insist):
            return insist
        case Waiting(until):
            return until
        case _:
            return None


def _sooner(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def step(rule: Rule, state: State, event: Event) -> Step:
    """One event. A run that is over takes no notice of anything."""
    match event:
        case _ if isinstance(state.phase, Over):
            return state, ()
        case events.Launched(at, limit):
            return _launched(rule, state, at, limit)
        case events.LaunchFailed():
            return replace(state, phase=Over()), (Finish("launch"),)
        case events.Settled():
            return verdict.settled(rule, state, event)
        case events.StopAsked(at, number):
            return _stop(rule, replace(state, stopped=True), "stopped", at, number)
        case events.KillAsked(at):
            return _kill(replace(state, stopped=True), "stopped", at)
        case _ if isinstance(state.phase, Settling):
            return state, ()
        case events.DetachAsked():
            return _detach(state)
        case events.Rang(at):
            return _rang(rule, state, at)
        case events.RestartAsked(at):
            return _restart(rule, state, at)
        case _ if isinstance(state.phase, Waiting):
            return (replace(state, limit=event.limit), ()) if isinstance(event, events.RaiseAsked) else (state, ())
        case events.Exited():
            return _exited(rule, state, event)
        case events.Emptied():
            return _leave(replace(state, empty=True))
        case events.OomKilled(at):
            return _kill(state, "oom-kill", at) if rule.oom_group else (state, ())
        case events.Raised(_, _, limit):
            return _given(replace(state, limit=limit))
        case _ if isinstance(state.phase, Ending):
            return _while_ending(state, state.phase, event)
        case _:
            return _while_alive(rule, state, event)


def _while_ending(state: State, ending: Ending, event: Event) -> Step:
    """Who was asked to stop may need memory for it: lent once, and killed if that was not enough to go on."""
    match event:
        case events.SignalAsked(_, number) if not state.gone:
            return state, (Signal(number, tree=False),)
        case events.RaiseAsked(_, limit, by):
            return replace(state, limit=limit), (events.SetLimit(limit, by),)
        case events.Reached(at) if ending.lent:
            return _kill(state, ending.why, at)
        case events.Reached() if not ending.killed:
            return replace(state, phase=replace(ending, lent=True)), (Lend(), Thaw())
        case _:
            return state, ()


def _while_alive(rule: Rule, state: State, event: Event) -> Step:
    """Running, Draining, Paused or Lent."""
    match event:
        case events.Reached(at):
            return _reached(rule, state, at)
        case events.Granted(_, limit):
            more = state.limit is not None and limit > state.limit  # a person may have given it more in the meantime
            return _raised(state, limit, "rule") if more else (state, ())
        case events.Denied(at):
            return _denied(state, at)
        case events.RaiseAsked(_, limit, by):
            return _raised(state, limit, by)
        case events.PauseAsked():
            return _pause(state, Paused("user", None))
        case events.ResumeAsked():
            return _resume(state)
        case events.SignalAsked(at, number):
            return _signal(state, at, number)
        case events.GiveWayAsked(at):
            return _kill(state, "gave-way", at)
        case events.Crossed(at, index, rising):
            return _act(rule, state, rule.marks[index], at, "threshold") if rising else (state, (_fell(rule.marks[index]),))
        case events.Pressed(at, index):
            return _act(rule, state, rule.pressures[index], at, "pressure")
        case _:
            return state, ()


# The beginning and the end of an attempt


def _launched(rule: Rule, state: State, at: float, limit: int | None) -> Step:
    deadline = None if rule.timeout is None else at + rule.timeout
    tries = (*counted(rule, state.tries, at), at)
    return replace(state, phase=Running(), limit=limit, gone=False, empty=False, deadline=deadline, began=at, tries=tries), ()


def _exited(rule: Rule, state: State, event: events.Exited) -> Step:
    state = replace(state, gone=True, empty=not event.left)
    if state.empty or isinstance(state.phase, Ending):
        return _leave(state)
    if not rule.wait_all:
        return _stop(rule, state, "", event.at, None)
    return state if isinstance(state.phase, Paused | Lent) else replace(state, phase=Draining()), ()


def _leave(state: State) -> Step:
    """Settle, if there is nobody left."""
    if not (state.gone and state.empty):
        return state, ()
    why = state.phase.why if isinstance(state.phase, Ending) else ""
    return replace(state, phase=Settling(why), deadline=None), (Settle(why),)


def _detach(state: State) -> Step:
    """Nobody is left, as far as we are concerned. What has been killed is dying, and waited for."""
    match state.phase:
        case Waiting() | Ending(_, _, True):
            return state, ()
    return replace(state, phase=Settling("detached"), gone=True, empty=True, deadline=None), (LetGo(), Settle("detached"))


# At the limit


def _reached(rule: Rule, state: State, at: float) -> Step:
    if rule.on_oom != "pause" or isinstance(state.phase, Paused):
        return state, ()
    if isinstance(state.phase, Lent):
        return _back(state, state.phase)
    until = None if rule.patience is None else at + rule.patience
    paused = replace(state, phase=Paused("limit", until))
    return paused, (Freeze(), Tell("paused", "is at its limit and holds still"), *_more(rule, state))


def _more(rule: Rule, state: State) -> tuple[Decision, ...]:
    """The next larger limit is asked for, where there is one."""
    more = grown(rule, state.limit)
    return (events.Ask(more),) if more is not None and state.limit is not None and more > state.limit else ()


def _denied(state: State, at: float) -> Step:
    """The machine has not got it now, and no kernel tells when it has: it is asked again, ever less often (one look at a counter, and only
    while a job is held for it). Said once."""
    phase = state.phase
    held = phase.paused if isinstance(phase, Lent) else phase
    if not isinstance(held, Paused) or held.by != "limit":
        return state, ()
    said = (Tell("denied", "is held until the machine has that much to give"),) if held.gap == ASK_AGAIN else ()
    held = replace(held, again=at + held.gap, gap=min(SLOWEST_ASK, held.gap * 2))
    return replace(state, phase=replace(phase, paused=held) if isinstance(phase, Lent) else held), said


def _raised(state: State, limit: int | None, by: str) -> Step:
    more = limit is None or (state.limit is not None and limit > state.limit)
    changed = replace(state, limit=limit)
    setting: tuple[Decision, ...] = (events.SetLimit(limit, by),)
    held = state.phase.paused if isinstance(state.phase, Lent) else state.phase
    if isinstance(held, Paused) and held.by == "limit" and more:
        return replace(changed, phase=_awake(state)), (*setting, Thaw(), Tell("resumed", f"goes on: raised by {by}"))
    return changed, setting


def _given(state: State) -> Step:
    """It has more already. What was decided about it meanwhile stays as it is."""
    if not isinstance(state.phase, Running | Draining):
        return state, ()
    return state, (Tell("paused", "is at its limit"), Tell("resumed", "goes on: raised by rule"))


def _awake(state: State) -> Phase:
    return Draining() if state.gone else Running()


def _pause(state: State, paused: Paused) -> Step:
    if isinstance(state.phase, Paused):
        return state, ()
    if isinstance(state.phase, Lent):
        return _back(state, state.phase)
    return replace(state, phase=paused), (Freeze(), Tell("paused", f"is paused by {paused.by}"))


def _back(state: State, lent: Lent) -> Step:
    """Held again, by whom and until when it was before."""
    return replace(state, phase=lent.paused), (Freeze(),)


def _resume(state: State) -> Step:
    if not isinstance(state.phase, Paused | Lent):
        return state, ()
    back = (Freeze(),) if isinstance(state.phase, Lent) else ()  # what was lent is taken back by a freeze
    return replace(state, phase=_awake(state)), (*back, Thaw(), Tell("resumed", "goes on"))


def _signal(state: State, at: float, number: int) -> Step:
    """A signal that is handled would wait for the thaw: a paused job gets a moment, and a little memory, to hear it."""
    if state.gone:
        return state, ()
    sent = Signal(number, tree=False)
    if isinstance(state.phase, Paused):
        return replace(state, phase=Lent(state.phase, at + HEARING)), (sent, Lend(), Thaw())
    return state, (sent,)


# Rules


def _act(rule: Rule, state: State, action: Action, at: float, word: str) -> Step:
    """A threshold was crossed upwards, or pressure was reported."""
    said = Tell("threshold", action.about or action.do)
    if action.do == "exec":
        return state, (said, events.Execute(action.detail, word, action.about))
    state, decisions = _do(rule, state, action, at)
    return state, (said, *decisions)


def _do(rule: Rule, state: State, action: Action, at: float) -> Step:
    match action.do:
        case "signal":
            return _signal(state, at, int(action.detail))
        case "stop":
            return _stop(rule, replace(state, stopped=True), "stopped", at, None)
        case "kill":
            return _kill(replace(state, stopped=True), "stopped", at)
        case "restart":
            return _stop(rule, state, "restart", at, None)
        case "pause":
            return _pause(state, Paused("rule", None if rule.patience is None else at + rule.patience))
        case _:
            return state, ()


def _fell(action: Action) -> Tell:
    return Tell("threshold", f"{action.about or action.do}: below it again")


# Ending


def _restart(rule: Rule, state: State, at: float) -> Step:
    match state.phase:
        case Waiting(None):
            return state, ()
        case Waiting():
            return replace(state, phase=Waiting(at)), ()
    return _stop(rule, state, "restart-asked", at, None)


def _stop(rule: Rule, state: State, why: str, at: float, number: int | None) -> Step:
    """Ask, and set the alarm for insisting. Who is being ended already is asked again only with a signal of its own."""
    match state.phase:
        case Settling():
            return state, ()
        case Waiting():
            return replace(state, phase=Over()), (Finish(why),)
        case Ending(_, _, killed):
            return state, () if number is None or killed else (Signal(number, tree=True),)
    insist = None if rule.stop_timeout is None else at + rule.stop_timeout
    asked = Signal(rule.stop_signal if number is None else number, tree=True)
    held = isinstance(state.phase, Paused)
    return replace(state, phase=Ending(why, insist), deadline=None), (asked, Lend(), Thaw()) if held else (asked,)


def _kill(state: State, why: str, at: float) -> Step:
    match state.phase:
        case Settling():
            return state, ()
        case Waiting():
            return replace(state, phase=Over()), (Finish(why),)
        case Ending(_, _, True):
            return state, ()
        case Ending(before, _, _):
            why = before or why
    return replace(state, phase=Ending(why, at + AGAIN, killed=True), deadline=None), (Kill(),)


def _rang(rule: Rule, state: State, at: float) -> Step:
    due = alarm(state)
    if due is None or at < due:
        return state, ()
    match state.phase:
        case Waiting():
            return replace(state, phase=Waiting(None)), (events.Launch(state.limit),)
        case Ending(why, _, killed, gap) if killed:
            slower = min(SLOWEST, gap * 2)
            return replace(state, phase=Ending(why, at + slower, killed=True, gap=slower)), (Kill(),)
        case Ending(why):
            return _kill(state, why, at)
        case Paused(_, until) if until is not None and at >= until:
            return _kill(state, "patience", at)
        case Paused(_, _, again) as held if again is not None and at >= again and (state.deadline is None or at < state.deadline):
            return replace(state, phase=replace(held, again=None)), _more(rule, state)
        case Lent(_, until) as lent if at >= until:
            return _back(state, lent)
        case _:
            return _stop(rule, state, "timeout", at, None)
