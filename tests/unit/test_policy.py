"""The policy against a small model of the world: every legal history, not some.

`possible(rule, state, world)` lists what may happen next, and the world after it. `explore` walks all of that, breadth first,
so that a complaint comes with a shortest history. Two histories that lead to the same state of the policy in the same
world are walked on only once: time is counted from the last event on, which step() must not notice (tested below).
What must hold is in the functions called check_*. A new phase, event or decision of the policy belongs into `possible`,
`carried_out` and those.
"""

from __future__ import annotations

import random
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, get_args

import pytest

from memrun import policy
from memrun.events import (
    Ask,
    Crossed,
    Decision,
    Denied,
    DetachAsked,
    Emptied,
    Event,
    Execute,
    Exited,
    Finish,
    Freeze,
    GiveWayAsked,
    Granted,
    Kill,
    KillAsked,
    Launch,
    Launched,
    LaunchFailed,
    Lend,
    LetGo,
    OomKilled,
    PauseAsked,
    Pressed,
    RaiseAsked,
    Raised,
    Rang,
    Reached,
    RestartAsked,
    ResumeAsked,
    SetLimit,
    Settle,
    Settled,
    Signal,
    SignalAsked,
    StopAsked,
    Tell,
    Thaw,
)
from memrun.policy import Action, Rule, State, alarm, step
from memrun.states import Draining, Ending, Lent, Over, Paused, Phase, Running, Settling, Waiting
from memrun.values import replace

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 6  # events of a history, the launch included
LONGER = {"grow": 7, "always": 9, "on-failure": 7}  # another attempt takes four of them
INT, USR1 = 2, 10
LIMIT = 100  # of the first attempt, in bytes
RAISES = (150, 50, None)
MOMENTS = {"until", "again", "insist", "deadline", "began", "patience", "hearing"}  # fields that are times
HELD = (Paused, Lent)
AWAKE = (Running, Draining)
LIVING = HELD + AWAKE
RESTARTS = {"restart", "restart-asked", "gave-way"}
FREE = {"restart-asked", "gave-way"}
MARKS = tuple(Action(do, str(USR1) if do == "signal" else do) for do in "log signal exec stop kill restart pause".split())
RULES = {
    "plain": Rule(),
    "no-group": Rule(oom_group=False, wait_all=True, timeout=60.0),
    "stop-at-once": Rule(stop_timeout=0.0, timeout=60.0),
    "stop-for-ever": Rule(stop_timeout=None, wait_all=True, on_oom="pause"),
    "pause": Rule(on_oom="pause", grow=2.0, patience=30.0),
    "pause-all": Rule(on_oom="pause", grow=2.0, ceiling=300, wait_all=True, patience=100.0, timeout=60.0),
    "pause-ever": Rule(on_oom="pause", grow=2.0, ceiling=100, patience=None, stop_timeout=None),
    "grow": Rule(on_oom="restart", grow=2.0, ceiling=300, attempts=3, timeout=60.0),
    "always": Rule(restart="always", attempts=2, min_uptime=0.0, jitter=0.0, max_delay=0.5),
    "on-failure": Rule(restart="on-failure", on_oom="restart", attempts=3, interval=5.0, jitter=1.0),
    "one-attempt": Rule(restart="always", on_oom="restart", attempts=1, wait_all=True),
    "marks": Rule(marks=MARKS, on_oom="pause", patience=30.0),
    "marks-again": Rule(marks=MARKS[5:], restart="always", on_oom="restart", grow=1.5, attempts=2, patience=30.0),
    "attached": Rule(on_oom="pause", grow=2.0, wait_all=True, patience=30.0, timeout=60.0, marks=MARKS[:4]),
    "pressures": Rule(pressures=MARKS, patience=None, wait_all=True, oom_group=False),
}


class World(NamedTuple):
    """What is really the case, and what has been asked, as far as an invariant needs to know. Times count from now."""

    group: bool = False  # there is an attempt, and its group
    launching: bool = True  # a launch is under way
    settling: bool = False  # a record is being taken
    alive: bool = True  # the command: not reaped yet
    others: bool = True  # somebody else is in the group
    emptied: bool = False  # the kernel has said that nobody is left
    held: bool = False  # nobody in it runs: frozen, or parked at the limit
    hold: str = ""  # who it was that had it held first
    patience: float | None = None  # when that is over
    hearing: float | None = None  # when what was lent is to be taken back
    deadline: float | None = None
    first: str = ""  # the first cause to end this attempt
    leftovers: bool = False  # the command ended by itself, and what it left is being ended: that is nobody's verdict
    killed: bool = False  # a Kill was decided
    stopped: bool = False  # a person or a rule wants no further attempt
    limit: int | None = None
    wanted: int | None = None  # the machine was asked for this limit
    denied: bool = False  # and has not got it
    free: int = 0  # attempts that count against nobody
    launches: int = 0
    finished: bool = False
    lent: bool = False  # a little more, to end by itself

    @property
    def ending(self) -> bool:
        return bool(self.first) or self.leftovers

    @property
    def waiting(self) -> bool:
        return not (self.group or self.launching or self.finished)


class Node(NamedTuple):
    state: State
    world: World
    history: tuple[Event, ...]


# What may happen


def possible(rule: Rule, state: State, world: World) -> Iterator[tuple[Event, World]]:
    """Everything that may happen next. Now is 0; an alarm rings when it is due, or late."""
    if world.finished:
        yield from (
            (event, world) for event in (StopAsked(0.0), KillAsked(0.0), Rang(9.0), Reached(0.0), Settled(0.0, "success"))
        )
    elif world.launching:
        limit = LIMIT if not world.launches else world.limit
        yield Launched(0.0, limit), launched(rule, world, limit)
        if world.launches:  # it may be queued until a batch has room
            yield LaunchFailed(0.0), world._replace(launching=False)
            for event in (StopAsked(0.0), StopAsked(0.0, INT), KillAsked(0.0)):
                yield event, world._replace(stopped=True)
            for event in (RestartAsked(0.0), PauseAsked(0.0), ResumeAsked(0.0), SignalAsked(0.0, USR1), GiveWayAsked(0.0)):
                yield event, world
            for wanted in RAISES:
                yield RaiseAsked(0.0, wanted), world._replace(limit=wanted)
    elif world.settling:  # what was under way when it began may still come; a command outranks even that
        yield StopAsked(0.0), world._replace(stopped=True)
        yield KillAsked(0.0), world._replace(stopped=True)
        for event in (OomKilled(0.0), Reached(0.0), Emptied(0.0), Rang(9.0), Denied(0.0), Granted(0.0, 700), *others_of(rule)):
            yield event, world
        for result in (
            ("success", "exit-code", "host-oom", "oom-kill") if not world.first else (world.first, "host-oom", "oom-kill")
        ):
            yield Settled(0.0, result), world
    else:
        yield from asked(rule, world)
        if world.group:
            yield from noticed(rule, state, world)
        due = alarm(state)
        for late in (0.0, 3.0) if due is not None else ():
            at = max(0.0, due) + late
            yield Rang(at), rang(world, at)


def others_of(rule: Rule) -> Iterator[Event]:
    """What may be asked or told at any time, and changes nothing when there is nobody."""
    yield from (
        RestartAsked(0.0),
        PauseAsked(0.0),
        ResumeAsked(0.0),
        SignalAsked(0.0, USR1),
        GiveWayAsked(0.0),
        RaiseAsked(0.0, 150),
    )
    yield from (Crossed(0.0, index, rising=True) for index in range(len(rule.marks)))
    yield from (Pressed(0.0, index) for index in range(len(rule.pressures)))


def launched(rule: Rule, world: World, limit: int | None) -> World:
    return World(
        group=True,
        launching=False,
        others=world.others if not world.launches else True,
        deadline=rule.timeout,
        limit=limit,
        free=world.free,
        launches=world.launches + 1,
    )


def asked(rule: Rule, world: World) -> Iterator[tuple[Event, World]]:
    """What people ask for."""
    for number in (None, INT):
        yield StopAsked(0.0, number), caused(world, "" if world.leftovers else "stopped")._replace(stopped=True)
    yield KillAsked(0.0), caused(world, "stopped")._replace(stopped=True)
    yield RestartAsked(0.0), world if world.ending else caused(world, "restart-asked")
    yield GiveWayAsked(0.0), world if world.ending else caused(world, "gave-way")
    if rule is RULES["attached"]:
        yield DetachAsked(0.0), world if world.killed or not world.group else world._replace(first="detached")
    for limit in RAISES:
        yield RaiseAsked(0.0, limit), world._replace(limit=limit) if world.waiting else world
    for event in (PauseAsked(0.0), ResumeAsked(0.0), SignalAsked(0.0, USR1)):
        yield event, world


def noticed(rule: Rule, state: State, world: World) -> Iterator[tuple[Event, World]]:
    """What a group does, and what is seen of it; also late, and twice."""
    if world.alive:
        for left in (False, True) if world.others else (False,):
            ended = not world.ending and not (left and rule.wait_all)
            yield Exited(0.0, ok=True, left=left), world._replace(alive=False, others=left, leftovers=world.leftovers or ended)
    if not world.emptied:
        yield Emptied(0.0), world._replace(others=False, emptied=True)  # dead, but not reaped yet, counts as not there
    yield OomKilled(0.0), caused(world, "oom-kill" if rule.oom_group else "")  # it is a look at a counter
    if rule.on_oom == "pause":
        yield Reached(0.0), world._replace(held=not world.killed)
    if (more := policy.foreseen(rule, state)) is not None:  # done by whoever sees that it is time, and heard at once
        assert not any((world.held, world.ending, world.stopped)), "a raise is foreseen for who must not have it"
        check_limit(rule, world.limit, more)
        yield Raised(0.0, world.limit, more), world._replace(limit=more)
    if world.wanted is not None:
        yield Granted(0.0, world.wanted), world._replace(wanted=None)
        yield Denied(0.0), world._replace(wanted=None, denied=world.hold == "limit")
    for index, action in enumerate(rule.marks):
        yield Crossed(0.0, index, rising=True), acted(world, action)
    if rule.marks:
        yield Crossed(0.0, 0, rising=False), world
    for index, action in enumerate(rule.pressures):
        yield Pressed(0.0, index), acted(world, action)


def acted(world: World, action: Action) -> World:
    if world.ending or action.do not in {"stop", "kill", "restart"}:
        return world
    return caused(world, "restart") if action.do == "restart" else caused(world, "stopped")._replace(stopped=True)


def rang(world: World, at: float) -> World:
    """Time as a cause: a job that was lent a moment is taken back first; patience goes before the wall clock."""
    if not world.group or world.ending or (world.hearing is not None and at >= world.hearing):
        return world
    if world.hearing is None and world.patience is not None and at >= world.patience:
        return caused(world, "patience")
    return caused(world, "timeout" if world.deadline is not None and at >= world.deadline else "")


def caused(world: World, why: str) -> World:
    """What has killed it is the cause, whatever comes after that."""
    return world if world.first or world.killed or not world.group else world._replace(first=why)


def carried_out(rule: Rule, event: Event, world: World, decision: Decision) -> World:
    """The world after a decision."""
    match decision:
        case Launch():
            return world._replace(launching=True)
        case Kill():
            return world._replace(killed=True, held=False)
        case Freeze():
            by = {PauseAsked: "user", Reached: "limit"}.get(type(event), "rule")
            patience = None if by == "user" or rule.patience is None else event.at + rule.patience
            first = {} if world.hold else {"hold": by, "patience": patience}
            return world._replace(held=True, hearing=None, **first)
        case Thaw() if world.hearing is None or isinstance(event, (ResumeAsked, RaiseAsked, Granted)):
            return world._replace(held=False, hold="", patience=None, hearing=None, denied=False)
        case Thaw():
            return world._replace(held=False)
        case Lend() if not world.ending:
            return world._replace(hearing=event.at + policy.HEARING)
        case Lend():
            return world._replace(lent=isinstance(event, Reached))
        case SetLimit(limit):
            return world._replace(limit=limit)
        case Ask(limit):
            return world._replace(wanted=limit, denied=False)
        case LetGo():
            return world._replace(alive=False, others=False, emptied=True, held=False)
        case Settle():
            return world._replace(settling=True)
        case Finish():
            return world._replace(finished=True, group=False, settling=False, launching=False)
    return world


# What must hold


def check_state(rule: Rule, state: State, world: World) -> None:
    """What the policy believes is what is the case."""
    phase = state.phase
    assert isinstance(phase, Over) == world.finished
    assert isinstance(phase, Settling) == world.settling
    if not world.launching:
        assert isinstance(phase, Waiting) == world.waiting
    if isinstance(phase, Waiting):
        assert not world.stopped, "waits for another attempt after a commanded stop"
        assert alarm(state) is not None or world.launching
    if not world.group or world.settling:
        return
    assert state.gone == (not world.alive)
    assert not (state.empty and world.others), "believes a group empty that is not"
    assert world.alive or world.others or not world.emptied, "nobody is left, and it is not settled"
    assert state.limit == world.limit, "believes in a limit that is not the group's"
    if isinstance(phase, Running):
        assert world.alive
    if isinstance(phase, Draining):
        assert rule.wait_all
        assert not world.alive
    if isinstance(phase, Ending):
        check_ending(rule, state, world)
    else:
        assert not world.ending, "there is a cause to end it, and it is not being ended"
        check_living(rule, state, world)


def check_ending(rule: Rule, state: State, world: World) -> None:
    assert isinstance(state.phase, Ending)
    assert state.phase.why == world.first, f"{world.first!r} was the cause, {state.phase.why!r} is believed"
    assert world.first or not rule.wait_all, "is ended for no reason"
    assert state.deadline is None
    assert state.phase.killed == world.killed
    assert not world.held, "is being ended, but holds still"
    assert alarm(state) is not None or (rule.stop_timeout is None and not world.killed), "nothing insists"
    assert policy.AGAIN <= state.phase.gap <= policy.SLOWEST
    assert not world.killed or alarm(state) <= policy.SLOWEST


def check_living(rule: Rule, state: State, world: World) -> None:
    phase, rings = state.phase, alarm(state)
    assert isinstance(phase, LIVING)
    assert world.held == isinstance(phase, Paused), "what is frozen is Paused, and nothing else is"
    assert state.deadline == world.deadline
    for due in (world.deadline, world.hearing, None if world.hearing else world.patience):
        assert due is None or (rings is not None and rings <= due), "waits for time, without an alarm"
    if isinstance(phase, HELD):
        paused = phase.paused if isinstance(phase, Lent) else phase
        assert paused.by == world.hold, f"held by {world.hold}, {paused.by} is believed"
        assert paused.until == world.patience, "patience was prolonged or lost"
        assert (paused.until is None) == (rule.patience is None or paused.by == "user")
        check_denied(rule, state, paused, world)
    if isinstance(phase, Lent):
        assert phase.until <= policy.HEARING, "what was lent is not taken back"


def check_denied(rule: Rule, state: State, paused: Paused, world: World) -> None:
    """What the machine has not got is asked for again, and nothing else is."""
    if paused.again is None:
        assert not world.denied or policy.grown(rule, state.limit) == state.limit, "is never asked for again"
        return
    assert world.denied
    assert paused.again <= policy.SLOWEST_ASK
    assert world.hearing is not None or alarm(state) <= paused.again


def check_decisions(node: Node, event: Event, decisions: tuple[Decision, ...]) -> None:
    """Only what makes sense, and nothing after the end."""
    world, kinds = node.world, [type(d) for d in decisions]
    for last in (Finish, Settle, Launch):
        assert kinds.count(last) <= 1
        assert last not in kinds or kinds[-1] is last, f"something was decided after {last.__name__}"
    assert not (world.finished and decisions), "something was decided after the end"
    assert (LetGo in kinds) == (Settle in kinds and isinstance(event, DetachAsked)), "let go without being asked"
    assert LetGo not in kinds or not world.killed, "what is dying was let go"
    in_group = {LetGo, Signal, Freeze, Thaw, SetLimit, Lend, Ask, Kill, Settle, Execute}
    assert (world.group and not world.settling) or not in_group & set(kinds), "decided about a group that is not there"
    if Launch in kinds:
        assert not world.stopped, "a launch after a stop"
        assert isinstance(event, Rang)
        assert decisions[-1].limit == world.limit
    for signal in (d for d in decisions if isinstance(d, Signal)):
        assert signal.tree or world.alive, "a signal to a command that is gone"
        assert not signal.tree or not world.killed, "asked, after it was killed"


def check_asked(node: Node, event: Event, decisions: tuple[Decision, ...], world: World) -> None:
    """What was asked for was done. `world`: after it."""
    before = node.state.phase
    if not node.world.group or node.world.settling:
        return
    if isinstance(event, KillAsked) or (isinstance(event, Rang) and isinstance(before, Ending)):
        assert node.world.killed * isinstance(event, KillAsked) or Kill() in decisions, "there was no kill"
    if isinstance(event, StopAsked) and isinstance(before, LIVING):
        assert any(isinstance(d, Signal) and d.tree for d in decisions), "a stop was asked for, and nobody was told"
    if isinstance(event, RaiseAsked):
        assert world.limit == event.limit
        old = node.world.limit
        enough = node.world.hold == "limit" and (event.limit is None or (old is not None and event.limit > old))
        assert not isinstance(before, HELD) or enough != (world.held or world.hearing is not None), (
            "more lets it go, and less does not"
        )
    if isinstance(event, Reached) and node.world.lent and not node.world.killed:
        assert Kill() in decisions, "what it was lent to end by itself was not enough, and is lent again"
    if isinstance(event, Raised):
        assert [type(d) for d in decisions] == [Tell, Tell], "what was done already is to be told, and nothing else"
    if isinstance(before, LIVING):
        assert not isinstance(event, PauseAsked) or world.held
        assert not isinstance(event, ResumeAsked) or not world.held
    assert not any(isinstance(d, Signal) for d in decisions) or not world.held, "a signal that cannot be heard"


def check_limit(rule: Rule, old: int | None, new: int | None) -> None:
    """By rule: never smaller, and never larger than the ceiling (or than what a person gave it)."""
    if old is None or new is None:
        assert old is new, "a limit by rule where there was none, or none where there was one"
    else:
        assert old <= new, "shrunk by rule"
        assert new <= max(old, rule.ceiling or new), "above the ceiling"


def goes_on(rule: Rule, why: str, result: str) -> bool:
    """Whether another attempt is wanted. In words: docs of --on-oom and --restart."""
    if why in RESTARTS or why in {"timeout", "patience", "stopped", "detached"}:
        return why in RESTARTS
    if result in {"oom-kill", "host-oom"}:
        return rule.on_oom == "restart" if result == "oom-kill" else rule.restart != "no"
    return not why and rule.restart in ({"always"} if result == "success" else {"always", "on-failure"})


def check_settled(rule: Rule, new: State, node: Node, event: Settled, last: Decision) -> World:
    """The world after an attempt."""
    world = node.world._replace(settling=False, group=False)
    again = goes_on(rule, world.first, event.result)
    if isinstance(last, Finish):
        why = "stopped" if world.stopped and again and world.first in {*RESTARTS, ""} else world.first
        assert last.why == why or (last.why == "exhausted" and again and not world.stopped), f"{why!r}, and {last.why!r} was told"
        assert last.why != "exhausted" or world.launches - world.free >= rule.attempts
        return world
    assert again, "restarted for no reason"
    assert isinstance(new.phase, Waiting)
    free = world.first in FREE
    delay = new.phase.until - event.at
    assert delay == 0 if free else 0 < delay <= rule.max_delay, f"a delay of {delay}"
    check_limit(rule, world.limit, new.limit)
    world = world._replace(limit=new.limit, free=world.free + free)
    assert rule.interval is not None or world.launches - world.free < rule.attempts, "more attempts than there are"
    return world


def check_end(last: Decision, event: Event, world: World) -> None:
    """Nobody is left."""
    assert isinstance(last, (Finish, Settle))
    if world.group:
        assert not world.alive, "the command is not reaped"
        assert not world.others, "the end, and somebody is left"
    if isinstance(last, Settle):
        assert last.why == world.first, f"{world.first!r} was the cause, {last.why!r} was told"
    elif not isinstance(event, Settled):
        assert last.why == ("launch" if isinstance(event, LaunchFailed) else "stopped")


# All of it


@cache
def moments(kind: type) -> tuple[str, ...]:
    names = World._fields if kind is World else kind.__match_args__
    return tuple(name for name in names if name in MOMENTS)


def moved(thing, by: float):
    """The same state, phase or world, with time counted from `by` on."""
    found = {m: round(getattr(thing, m) - by, 6) for m in moments(type(thing)) if getattr(thing, m) is not None}
    if isinstance(thing, State):
        found |= {"phase": moved(thing.phase, by), "tries": tuple(round(t - by, 6) for t in thing.tries)}
    if isinstance(thing, Lent):
        found["paused"] = moved(thing.paused, by)
    if isinstance(thing, World):
        return thing._replace(**found)
    return replace(thing, **found) if found else thing


def from_here(rule: Rule, state: State, at: float) -> State:
    """The same state, with time counted from `at` on; what is long ago is equally long ago."""
    state = moved(state, at) if at else state
    tries = tuple(0.0 for _ in state.tries) if rule.interval is None else tuple(t for t in state.tries if t > -rule.interval)
    if tries == state.tries and state.began >= -rule.min_uptime:
        return state
    return replace(state, began=max(state.began, -rule.min_uptime), tries=tries)


def after(node: Node, event: Event, world: World, rule: Rule) -> Node:
    """One step of both, checked."""
    state, decisions = step(rule, node.state, event)
    check_decisions(node, event, decisions)
    if isinstance(event, Settled) and not world.finished:
        assert decisions
        world = check_settled(rule, state, node, event, decisions[-1])
    for decision in decisions:
        if isinstance(decision, SetLimit) and isinstance(event, Granted):
            check_limit(rule, world.limit, decision.limit)
        if isinstance(decision, Ask):
            check_limit(rule, world.limit, decision.limit)
        if isinstance(decision, (Finish, Settle)):
            check_end(decision, event, world)
        world = carried_out(rule, event, world, decision)
    if world.finished and node.world.finished:
        assert state is node.state
    check_asked(node, event, decisions, world)
    world = moved(world, event.at) if event.at else world
    state = from_here(rule, state, event.at)
    check_state(rule, state, world)
    return Node(state, world, (*node.history, event))


def explore(rule: Rule, longest: int) -> set[tuple[State, World]]:
    """All that can be reached."""
    frontier = [Node(policy.START, World(others=others), ()) for others in (True, False)]
    seen = {(node.state, node.world) for node in frontier}
    for _ in range(longest):
        reached = []
        for node in frontier:
            for event, world in possible(rule, node.state, node.world):
                try:
                    new = after(node, event, world, rule)
                except AssertionError as e:
                    told = "\n".join(f"  {i}. {one}" for i, one in enumerate((*node.history, event), 1))
                    raise AssertionError(
                        f"{e}\nunder {rule}\nafter (each counted from the one before):\n{told}\nin {node.state}\n{node.world}"
                    ) from e
                if (new.state, new.world) not in seen:
                    seen.add((new.state, new.world))
                    reached.append(new)
        frontier = reached
    return seen


@pytest.mark.parametrize("name", RULES)
def test_every_history(name):
    seen = explore(RULES[name], LONGER.get(name, LONGEST))
    phases = {Running, Paused, Lent, Ending, Settling, Waiting, Over} | ({Draining} if RULES[name].wait_all else set())
    assert {type(state.phase) for state, _ in seen} == phases
    assert len(seen) > 1000


@pytest.mark.parametrize("name", ["plain", "pause-all", "stop-for-ever", "marks-again", "one-attempt"])
def test_from_everywhere_there_is_a_way_out(name):
    """A commanded kill, repeated by alarms alone; then deaths alone lead to the end."""
    rule = RULES[name]
    for state, world in explore(rule, 4):
        if not world.group or world.settling:
            continue
        now, first = step(rule, state, KillAsked(0.0))
        assert world.killed or Kill() in first
        assert alarm(now) is not None
        assert step(rule, now, Rang(alarm(now)))[1] == (Kill(),)
        now, second = step(rule, now, Exited(0.0, ok=True, left=False)) if not now.gone else (now, ())
        now, third = step(rule, now, Emptied(0.0))
        assert [type(d) for d in (*second, *third)] == [Settle]
        now, last = step(rule, now, Settled(0.0, "stopped"))
        assert isinstance(now.phase, Over)
        assert [type(d) for d in last] == [Finish]


def shifted(event: Event, by: float) -> Event:
    return replace(event, at=event.at + by)


@pytest.mark.parametrize("name", RULES)
def test_it_does_not_matter_when_it_all_begins(name):
    """What lets `explore` count time from the last event on."""
    rule, dice = RULES[name], random.Random(1)
    for _ in range(30):
        node, state, now = Node(policy.START, World(), ()), policy.START, 1000.0
        for _ in range(16):
            event, world = dice.choice(list(possible(rule, node.state, node.world)))
            state, there = step(rule, state, shifted(event, now + 1e-9))  # floats of this size do not add up without rest
            decided = step(rule, node.state, event)[1]
            node = after(node, event, world, rule)
            now += event.at
            assert [d for d in there if not isinstance(d, Tell)] == [d for d in decided if not isinstance(d, Tell)]
            assert type(state.phase) is type(node.state.phase)
            assert round((alarm(state) or now) - now, 5) == round(alarm(node.state) or 0.0, 5)


def test_every_event_and_every_phase_is_in_it():
    """A new one that nobody put into `possible` is found here."""
    kinds, phases = set(), set()
    for name, rule in RULES.items():
        for state, world in explore(rule, 4 if name != "always" else 7):
            kinds |= {type(event) for event, _ in possible(rule, state, world)}
            phases.add(type(state.phase))
    assert kinds == set(get_args(Event))
    assert phases == set(get_args(Phase))


def test_moments_are_all_the_times_there_are():
    kinds = (State, Running, Draining, Paused, Lent, Ending, Settling, Waiting, Over)
    times = {name for kind in kinds for name, of in kind.__annotations__.items() if "float" in of} - {"gap"}
    assert times - {"tries"} <= MOMENTS


# Stories


def played(rule: Rule, *history: Event) -> list[Decision | str]:
    """What was decided; of what was told, the word."""
    state, decided = policy.START, []
    for event in history:
        state, decisions = step(rule, state, event)
        decided += [d.event if isinstance(d, Tell) else d for d in decisions]
    return decided


UP = Launched(0.0, LIMIT)
ENDS = Exited(9.0, ok=True, left=False)
TERM = Signal(15, tree=True)
AWAKENED = [Thaw(), "resumed"]


def settled(why: str = "", finish: str | None = None) -> list[Decision]:
    return [Settle(why), Finish(why if finish is None else finish)]


@pytest.mark.parametrize(
    ("rule", "history", "decided"),
    [
        (Rule(), [ENDS], settled()),
        (Rule(), [Exited(1.0, ok=False, left=True), Emptied(2.0)], [TERM, *settled()]),
        (Rule(wait_all=True), [Exited(1.0, ok=True, left=True), Emptied(2.0)], settled()),
        (Rule(), [Emptied(1.0), Exited(2.0, ok=True, left=False)], settled()),
        (Rule(), [OomKilled(1.0), Emptied(2.0), ENDS], [Kill(), *settled("oom-kill")]),
        (Rule(oom_group=False), [OomKilled(1.0), ENDS], settled()),
        (Rule(), [StopAsked(1.0), Rang(11.0), ENDS], [TERM, Kill(), *settled("stopped")]),
        (Rule(stop_signal=2), [StopAsked(1.0), ENDS], [Signal(2, tree=True), *settled("stopped")]),
        (Rule(), [StopAsked(1.0, 2), StopAsked(2.0, 2), ENDS], [Signal(2, tree=True)] * 2 + settled("stopped")),
        (Rule(), [StopAsked(1.0), StopAsked(2.0), ENDS], [TERM, *settled("stopped")]),
        (Rule(), [StopAsked(1.0), OomKilled(2.0), ENDS], [TERM, Kill(), *settled("stopped")]),
        (Rule(timeout=5.0), [Rang(5.0), Rang(15.0), Rang(15.05), ENDS], [TERM, Kill(), Kill(), *settled("timeout")]),
        (Rule(timeout=5.0), [Rang(4.9), ENDS], settled()),
        (
            Rule(timeout=5.0, wait_all=True),
            [Exited(1.0, ok=True, left=True), Rang(5.0), Emptied(6.0)],
            [TERM, *settled("timeout")],
        ),
        (Rule(stop_timeout=None), [StopAsked(1.0), Rang(1e3), KillAsked(2e3), ENDS], [TERM, Kill(), *settled("stopped")]),
        (Rule(), [KillAsked(1.0), KillAsked(1.0), ENDS], [Kill(), *settled("stopped")]),
        (Rule(), [SignalAsked(1.0, 10), ENDS, SignalAsked(9.5, 10)], [Signal(10, tree=False), *settled()]),
        (Rule(), [StopAsked(1.0), RaiseAsked(2.0, 200), ENDS], [TERM, SetLimit(200, "user"), *settled("stopped")]),
        (
            Rule(),  # the command has ended by itself: that is told, whoever is tired of waiting for what it left
            [Exited(1.0, ok=True, left=True), StopAsked(2.0), Emptied(3.0)],
            [TERM, *settled()],
        ),
    ],
)
def test_stories_of_an_end(rule, history, decided):
    """Whoever is left at the end gets his record, and a verdict of his own making."""
    result = next((d.why for d in decided if isinstance(d, Settle) and d.why), "success")
    ended = [*history, Settled(9.1, result), Settled(9.2, result), StopAsked(9.9), KillAsked(9.9), OomKilled(9.9), Rang(99.0)]
    assert played(rule, UP, *ended) == decided


HOLD = Rule(on_oom="pause", grow=2.0, patience=30.0)
STUCK = [Freeze(), "paused", Ask(200)]
LENDS = [Signal(USR1, tree=False), Lend(), Thaw()]
STOPS = [TERM, Lend(), Thaw()]


@pytest.mark.parametrize(
    ("rule", "history", "decided"),
    [
        # raised by a person, by the machine, by nobody
        (HOLD, [RaiseAsked(2.0, 150)], [*STUCK, SetLimit(150, "user"), *AWAKENED]),
        (HOLD, [RaiseAsked(2.0, None)], [*STUCK, SetLimit(None, "user"), *AWAKENED]),
        (HOLD, [RaiseAsked(2.0, 50)], [*STUCK, SetLimit(50, "user")]),
        (HOLD, [Granted(2.0, 200)], [*STUCK, SetLimit(200, "rule"), *AWAKENED]),
        (HOLD, [Granted(2.0, 200), Raised(3.0, 200, 400)], [*STUCK, SetLimit(200, "rule"), *AWAKENED, "paused", "resumed"]),
        (HOLD, [Granted(2.0, 200), Reached(3.0)], [*STUCK, SetLimit(200, "rule"), *AWAKENED, *STUCK[:2], Ask(400)]),
        (HOLD, [RaiseAsked(2.0, 300), Granted(2.0, 200)], [*STUCK, SetLimit(300, "user"), *AWAKENED]),
        (HOLD, [Denied(2.0), Rang(2.9)], [*STUCK, "denied"]),
        (HOLD, [Denied(2.0), Rang(31.0), Rang(31.05), ENDS], [*STUCK, "denied", Kill(), Kill(), Settle("patience")]),
        # the machine is asked again, ever less often
        (HOLD, [Denied(2.0), Rang(3.0), Denied(3.0), Rang(4.9)], [*STUCK, "denied", Ask(200)]),
        (
            HOLD,
            [Denied(2.0), Rang(3.0), Denied(3.0), Rang(5.0), Granted(5.0, 200)],
            [*STUCK, "denied", Ask(200), Ask(200), SetLimit(200, "rule"), *AWAKENED],
        ),
        (HOLD, [Denied(2.0), RaiseAsked(2.5, 50), Rang(3.0)], [*STUCK, "denied", SetLimit(50, "user"), Ask(100)]),
        (HOLD, [Denied(2.0), ResumeAsked(2.5), Rang(9.0)], [*STUCK, "denied", *AWAKENED]),
        (HOLD, [SignalAsked(2.0, USR1), Denied(2.1), Rang(2.5), Rang(3.1)], [*STUCK, *LENDS, "denied", Freeze(), Ask(200)]),
        (replace(HOLD, ceiling=150), [], [Freeze(), "paused", Ask(150)]),
        (replace(HOLD, ceiling=100), [], STUCK[:2]),
        (replace(HOLD, grow=1.0), [], STUCK[:2]),
        (replace(HOLD, patience=None), [Rang(1e6)], STUCK),
        # a signal is heard, and what was lent is taken back; patience is what it was
        (HOLD, [SignalAsked(2.0, USR1), Rang(2.4), Rang(2.5)], [*STUCK, *LENDS, Freeze()]),
        (HOLD, [SignalAsked(2.0, USR1), SignalAsked(2.2, USR1), Rang(2.5)], [*STUCK, *LENDS, LENDS[0], Freeze()]),
        (HOLD, [SignalAsked(2.0, USR1), Reached(2.1), Rang(31.0)], [*STUCK, *LENDS, Freeze(), Kill()]),
        (HOLD, [SignalAsked(2.0, USR1), PauseAsked(2.1), RaiseAsked(3.0, 150)], None),
        (HOLD, [SignalAsked(2.0, USR1), Exited(2.1, ok=True, left=False)], [*STUCK, *LENDS, Settle("")]),
        (HOLD, [SignalAsked(2.0, USR1), RaiseAsked(2.1, 150)], [*STUCK, *LENDS, SetLimit(150, "user"), *AWAKENED]),
        # an end
        (HOLD, [StopAsked(2.0), ENDS], [*STUCK, *STOPS, Settle("stopped")]),
        (HOLD, [StopAsked(2.0), Rang(12.0)], [*STUCK, *STOPS, Kill()]),
        (HOLD, [StopAsked(2.0), Reached(3.0), Reached(4.0)], [*STUCK, *STOPS, Lend(), Thaw(), Kill()]),
        (HOLD, [KillAsked(2.0), Reached(2.0)], [*STUCK, Kill()]),
        (HOLD, [OomKilled(2.0)], [*STUCK, Kill()]),
        (HOLD, [RestartAsked(2.0), ENDS], [*STUCK, *STOPS, Settle("restart-asked")]),
        (replace(HOLD, timeout=20.0), [Rang(20.0), ENDS], [*STUCK, *STOPS, Settle("timeout")]),
        (replace(HOLD, timeout=40.0), [Rang(45.0)], [*STUCK, Kill()]),  # patience was over first
        (HOLD, [Exited(2.0, ok=True, left=True)], [*STUCK, *STOPS]),
        (
            replace(HOLD, wait_all=True),  # the children are held as before, and go on when there is room
            [Exited(2.0, ok=True, left=True), Granted(3.0, 200), Emptied(4.0)],
            [*STUCK, SetLimit(200, "rule"), *AWAKENED, Settle("")],
        ),
    ],
)
def test_stories_of_a_job_at_its_limit(rule, history, decided):
    if decided is None:  # paused once more while it hears a signal: still held by its limit, and a raise lets it go
        decided = [*STUCK, *LENDS, Freeze(), SetLimit(150, "user"), *AWAKENED]
    assert played(rule, UP, Reached(1.0), *history) == decided


STILL = [Freeze(), "paused"]


@pytest.mark.parametrize(
    ("history", "decided"),
    [
        ([PauseAsked(1.0), PauseAsked(2.0), ResumeAsked(3.0), ResumeAsked(4.0)], [*STILL, *AWAKENED]),
        ([PauseAsked(1.0), Rang(1e6)], STILL),  # a person has all the time there is
        ([PauseAsked(1.0), Reached(2.0), RaiseAsked(3.0, 200)], [*STILL, SetLimit(200, "user")]),
        ([PauseAsked(1.0), SignalAsked(2.0, USR1), Rang(2.5)], [*STILL, *LENDS, Freeze()]),
        ([PauseAsked(1.0), SignalAsked(2.0, USR1), Reached(2.1), Rang(1e6)], [*STILL, *LENDS, Freeze()]),
        ([PauseAsked(1.0), SignalAsked(2.0, USR1), ResumeAsked(2.1), Rang(2.5)], [*STILL, *LENDS, Freeze(), *AWAKENED]),
        ([PauseAsked(1.0), StopAsked(2.0), ENDS], [*STILL, *STOPS, Settle("stopped")]),
        ([Reached(1.0), ResumeAsked(2.0), Reached(3.0)], [*STUCK, *AWAKENED, *STUCK]),
        ([StopAsked(1.0), PauseAsked(2.0), ResumeAsked(3.0)], [TERM]),
    ],
)
def test_stories_of_a_person_who_pauses(history, decided):
    assert played(HOLD, UP, *history) == decided


@pytest.mark.parametrize(
    ("do", "history", "decided"),
    [
        ("log", [], []),
        ("signal", [], [Signal(USR1, tree=False)]),
        ("exec", [], [Execute("exec", "", "")]),
        ("stop", [ENDS, Settled(9.0, "stopped")], [TERM, *settled("stopped")]),
        ("kill", [ENDS, Settled(9.0, "stopped")], [Kill(), *settled("stopped")]),
        ("restart", [ENDS, Settled(9.0, "stopped")], [TERM, Settle("restart"), "restarting"]),
        ("restart", [StopAsked(2.0), ENDS, Settled(9.0, "stopped")], [TERM, *settled("restart", "stopped")]),
        ("pause", [ResumeAsked(2.0)], [*STILL, *AWAKENED]),
        ("pause", [Rang(3601.0)], [*STILL, Kill()]),
        ("pause", [SignalAsked(2.0, USR1), Rang(2.5), Rang(3601.0)], [*STILL, *LENDS, Freeze(), Kill()]),
        ("pause", [RaiseAsked(2.0, 200)], [*STILL, SetLimit(200, "user")]),
    ],
)
def test_stories_of_thresholds(do, history, decided):
    action = next(a for a in MARKS if a.do == do)
    for word, event in (("threshold", Crossed(1.0, 0, rising=True)), ("pressure", Pressed(1.0, 0))):
        rule = Rule(restart="always", marks=(action,), pressures=(action,))
        wanted = [replace(one, word=word) if isinstance(one, Execute) else one for one in decided]
        assert played(rule, UP, event, *history) == ["threshold", *wanted]
        assert played(rule, UP, StopAsked(0.5), event) == [TERM], "thresholds of a job that is being ended"
    assert played(rule, UP, Crossed(1.0, 0, rising=False)) == ["threshold"]


@pytest.mark.parametrize(
    ("do", "more"), [("log", []), ("signal", []), ("exec", [Execute("exec", "threshold", "")]), ("pause", [])]
)
def test_stories_of_thresholds_that_only_the_peak_tells_of(do, more):
    """Whoever wanted to know is told, once, before whatever comes next; nothing is done to who is gone."""
    rule = Rule(restart="always", attempts=2, marks=(next(a for a in MARKS if a.do == do),))
    passed = Settled(1.5, "success", (0,))
    assert played(rule, UP, ENDS, passed) == [Settle(""), "threshold", *more, "restarting"]
    assert played(rule, UP, StopAsked(1.0), ENDS, passed)[-1] == Finish("stopped")


# Further attempts


def lived(rule: Rule, *lives: tuple[float, str]) -> list[tuple[float, int | None] | str]:
    """(delay, limit) of each further attempt, until Finish. `lives`: how long each lasts, and with what result."""
    state, now, told = step(rule, policy.START, UP)[0], 0.0, []
    for lasting, result in lives:
        now += lasting
        if result == "oom-kill":
            state, _ = step(rule, state, OomKilled(now))
        elif result == "asked":
            state, _ = step(rule, state, RestartAsked(now))
        state, _ = step(rule, state, Exited(now, ok=result == "success", left=False))
        state, decisions = step(rule, state, Settled(now, "stopped" if result == "asked" else result))
        if isinstance(decisions[-1], Finish):
            return [*told, decisions[-1].why]
        told.append((round(alarm(state) - now, 3), state.limit))
        now = alarm(state)
        state, decisions = step(rule, state, Rang(now))
        assert decisions == (Launch(state.limit),)
        state, _ = step(rule, state, Launched(now, state.limit))
    return told


OOM, BAD, WELL, HOST, PLEASE = (1.0, "oom-kill"), (1.0, "exit-code"), (1.0, "success"), (1.0, "host-oom"), (1.0, "asked")
GROW = Rule(on_oom="restart", grow=2.0, ceiling=300, delay=4.0, jitter=1 - policy.GOLDEN, max_delay=20.0)  # the first: half of it


@pytest.mark.parametrize(
    ("rule", "lives", "told"),
    [
        (Rule(), [OOM], ["oom-kill"]),
        (GROW, [OOM], [(2.0, 200)]),
        (GROW, [OOM, OOM, OOM, OOM, OOM], [(2.0, 200), (6.472, 300), (9.889, 300), (18.541, 300), "exhausted"]),
        (GROW, [OOM, WELL], [(2.0, 200), ""]),
        (GROW, [BAD], [""]),
        (GROW, [HOST], [""]),
        (replace(GROW, attempts=1), [OOM], ["exhausted"]),
        (replace(GROW, ceiling=None, grow=1.0), [OOM], [(2.0, 100)]),
        (Rule(restart="on-failure"), [WELL], [""]),
        (Rule(restart="on-failure"), [OOM], ["oom-kill"]),  # what happens then is --on-oom's affair
        (replace(GROW, restart="on-failure", on_oom="kill"), [BAD, HOST, WELL], [(2.0, 100), (6.472, 100), ""]),
        (replace(GROW, restart="always"), [WELL, BAD, OOM], [(2.0, 100), (6.472, 100), (9.889, 200)]),
        # who has lived for long enough begins anew; who was asked for neither waits nor counts
        (replace(GROW, restart="always", jitter=0.0), [(9.0, "success"), (10.0, "success")], [(3.236, 100), (2.0, 100)]),
        (replace(GROW, restart="always"), [WELL, (11.0, "success"), WELL], [(2.0, 100), (2.764, 100), (2.0, 100)]),
        (Rule(attempts=1), [PLEASE] * 9, [(0.0, 100)] * 9),
        (replace(GROW, attempts=2), [PLEASE, PLEASE, OOM, PLEASE, OOM], [(0.0, 100)] * 2 + [(2.0, 200), (0.0, 200), "exhausted"]),
        # a budget that fills again, and one that does not
        (replace(GROW, attempts=2, interval=5.0), [OOM] * 3, [(2.0, 200), "exhausted"]),
        (
            replace(GROW, attempts=2, interval=5.0, min_uptime=0.0),
            [(4.0, "oom-kill")] * 3,
            [(2.764, 200), (2.764, 300), (2.764, 300)],
        ),
        (replace(GROW, attempts=2), [(999.0, "oom-kill")] * 3, [(2.764, 200), "exhausted"]),
    ],
)
def test_stories_of_further_attempts(rule, lives, told):
    assert lived(rule, *lives) == told


@pytest.mark.parametrize(
    ("history", "decided"),
    [
        ([StopAsked(2.0)], [Finish("stopped")]),
        ([KillAsked(2.0), Rang(99.0)], [Finish("stopped")]),
        ([RaiseAsked(2.0, 700), Rang(99.0)], [Launch(700)]),
        ([RestartAsked(2.0), Rang(2.0)], [Launch(200)]),  # now
        ([Rang(1.5), OomKilled(1.6), Emptied(1.6), PauseAsked(1.7), SignalAsked(1.8, USR1)], []),
        ([Rang(99.0), LaunchFailed(99.0), StopAsked(99.1)], [Launch(200), Finish("launch")]),
        ([Rang(99.0), Launched(99.0, 200), Rang(101.0)], [Launch(200), TERM]),  # the clock of --timeout starts anew
    ],
)
def test_stories_of_waiting_for_another_attempt(history, decided):
    rule = replace(GROW, timeout=2.0)
    first = [UP, OomKilled(1.0), Exited(1.0, ok=False, left=False), Settled(1.0, "oom-kill")]
    assert played(rule, *first) == [Kill(), Settle("oom-kill"), "restarting"]
    assert played(rule, *first, *history)[3:] == decided


@pytest.mark.parametrize(
    ("event", "why"),
    [(Rang(5.0), "timeout"), (StopAsked(1.0), "stopped"), (Crossed(1.0, 0, rising=True), "stopped")],
)
def test_who_was_ended_for_another_reason_is_not_restarted_for_an_oom_kill(event, why):
    rule = Rule(timeout=5.0, on_oom="restart", restart="always", marks=(Action("stop"),))
    decided = played(rule, UP, event, OomKilled(6.0), ENDS, Settled(9.0, "oom-kill"))
    assert [d for d in decided if d != "threshold"] == [TERM, Kill(), *settled(why)]


def test_a_host_that_is_out_of_memory_is_a_failure_like_others():
    """Whether its kill was noticed before the command was reaped or not."""
    for noticed_first in ([OomKilled(1.0)], []):
        decided = played(Rule(restart="on-failure"), UP, *noticed_first, ENDS, Settled(9.0, "host-oom"))
        assert decided[-1] == "restarting"


def test_a_kill_is_repeated_ever_more_slowly():
    state, _ = step(Rule(), step(Rule(), policy.START, UP)[0], KillAsked(0.0))
    pauses, now = [], 0.0
    for _ in range(8):
        assert alarm(state) is not None
        pauses.append(round(alarm(state) - now, 6))
        now = alarm(state)
        state, decisions = step(Rule(), state, Rang(now))
        assert decisions == (Kill(),)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.999, 1.0])
def test_delays_double_from_the_half_to_the_whole_of_it(jitter):
    rule = Rule(restart="always", attempts=50, delay=1.0, max_delay=60.0, jitter=jitter, min_uptime=5.0)
    delays = [delay for delay, _ in lived(rule, *[WELL] * 40)]
    for n, delay in enumerate(delays):
        full = min(60.0, 2.0**n)
        assert full / 2 <= delay <= full
    assert len(set(delays[10:])) > 25, "all at the same time"


@pytest.mark.parametrize("name", RULES)
def test_what_is_foreseen_is_what_would_have_been_decided(name):
    """Reached and Granted, or Raised: the same limit in the end, and the same phase."""
    rule = RULES[name]
    for state, world in explore(rule, 3):
        more = policy.foreseen(rule, state)
        if not world.group:
            continue
        held, decisions = step(rule, state, Reached(0.0))
        if isinstance(state.phase, AWAKE) and not state.stopped:
            assert [d.limit for d in decisions if isinstance(d, Ask)] == ([] if more is None else [more])
        if more is not None:
            assert step(rule, held, Granted(0.0, more))[0] == step(rule, state, Raised(0.0, state.limit, more))[0]


def test_growth_of_limits():
    for limit, grow, ceiling in [(100, 1.5, None), (100, 2.0, 150), (100, 2.0, 50), (100, 1.0, None), (1, 1.1, 2)]:
        check_limit(Rule(grow=grow, ceiling=ceiling), limit, policy.grown(Rule(grow=grow, ceiling=ceiling), limit))
    assert policy.grown(Rule(grow=1.5), 100) == 150
    assert policy.grown(Rule(grow=2.0, ceiling=50), 100) == 100  # a person gave it more than the ceiling
    assert policy.grown(Rule(grow=2.0), None) is None
