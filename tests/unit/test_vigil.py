"""Whoever waits without an event loop never meets a decision that he cannot carry out; values behave as dataclasses do."""

from __future__ import annotations

from itertools import product

import pytest

from memrun import events, policy, vigil
from memrun.states import Ending, Paused, Rule, Running, State, Waiting
from memrun.values import replace

HEARD = (
    events.OomKilled(1.0),
    events.Emptied(1.0),
    events.Exited(1.0, ok=True, left=True),
    events.Exited(1.0, ok=False, left=False),
    events.StopAsked(1.0),
    events.StopAsked(1.0, 2),
    events.SignalAsked(1.0, 10),
    events.Rang(1.0),
    events.Rang(1e6),
)  # what vigil.py makes of what it hears, but for the record's own word
HELD = (events.Reached(1.0),)  # and that, where it is to be held
RESULTS = ("success", "exit-code", "signal", "oom-kill", "host-oom", "timeout", "stopped")
rules = pytest.mark.parametrize(
    "rule",
    [
        Rule(oom_group=group, wait_all=wait, timeout=t, on_oom=on_oom, restart=restart)
        for group, wait, t in product((True, False), (True, False), (None, 5.0))
        for on_oom, restart in product(("kill", "restart", "pause"), ("no", "on-failure", "always"))
    ],
)


def everything_after(rule: Rule, state: State):
    """Each (state, event, decisions) that can come of it, once; ways that differ in what was tried only are the same. Who is to be started
    again is somebody else's."""
    seen, waiting = set(), [state]
    heard = HEARD + HELD if rule.on_oom == "pause" else HEARD
    while waiting:
        state = waiting.pop()
        following = [events.Settled(1.0, word) for word in RESULTS] if type(state.phase).__name__ == "Settling" else heard
        for event in following:
            after, decisions = policy.step(rule, state, event)
            yield state, event, decisions
            if isinstance(after.phase, Waiting):
                continue
            if isinstance(after.phase, Ending):  # when it is killed again differs, and nothing else does
                after = replace(after, phase=replace(after.phase, gap=0.05, insist=after.phase.insist and 2.0))
            if after not in seen:
                seen.add(after)
                waiting.append(after)


@rules
def test_it_can_do_all_that_is_ever_decided(rule):
    state, decisions = policy.step(rule, policy.START, events.Launched(0.0, 1 << 20))
    assert decisions == ()
    met = {type(d) for _, _, found in everything_after(rule, state) for d in found}
    never = {events.Tell} if rule.on_oom == "kill" and rule.restart == "no" else set()
    never |= set() if rule.on_oom == "pause" else {events.Freeze, events.Thaw, events.Lend}
    assert met == set(vigil.CAN) - never


def test_a_value_is_equal_to_its_like_alone_and_is_not_changed():
    one = Paused("limit", None)
    assert one == Paused(by="limit", until=None, again=None)
    assert (one != Paused("user", None), one != Running(), Running() == Running()) == (True, True, True)
    assert {one: 1}[Paused("limit", None)] == 1
    with pytest.raises(AttributeError):
        one.by = "user"
    with pytest.raises(AttributeError):
        del one.by
    assert repr(one) == "Paused(by='limit', until=None, again=None, gap=1.0)"
    assert replace(one, until=3.0) == Paused("limit", 3.0)


@pytest.mark.parametrize(
    "given", [((), {}), (("a", 1, 2, 3, 4), {}), (("a",), {"by": "b", "until": 1}), (("a", 1), {"other": 2})]
)
def test_a_value_has_all_of_its_fields_and_no_other(given):
    with pytest.raises(TypeError):
        Paused(*given[0], **given[1])
    with pytest.raises(TypeError):
        replace(Paused("limit", None), other=1)
