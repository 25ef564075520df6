"""The verdict: every combination of how the command ended, what memrun did and what the kernel counted."""

from __future__ import annotations

import json

import pytest

from memrun.cgroup import Tally
from memrun.record import RESULTS, Attempts, Record, judge, out_of_memory
from memrun.report import to_json

EXITED, KILLED, TERMED = 0, 9, 15


def tally(kills: int = 0, own: int = 0, outer: int = 0, nested: bool = False) -> Tally:
    t = Tally()
    t.kills, t.own, t.outer, t.nested = kills, own, outer, nested
    return t


def record(raw: int | None) -> Record:
    made = Record("job", ["cmd"])
    made.take_status(raw)
    return made


def code(n: int) -> int:
    return n << 8


NONE, OWN, HOST = tally(), tally(kills=1, own=1), tally(kills=1, outer=1)
UNSEEN, NESTED = tally(kills=1), tally(kills=1, nested=True)
HIT = tally(own=3)  # out of memory, but reclaim or another process got it through


@pytest.mark.parametrize("oom_group", [True, False])
@pytest.mark.parametrize(
    ("raw", "why", "counted", "result", "status"),
    [
        (code(0), "", NONE, "success", 0),
        (code(3), "", NONE, "exit-code", 3),
        (code(137), "", NONE, "exit-code", 137),  # 137 is not OOM
        (KILLED, "", NONE, "signal", 137),  # and neither is SIGKILL
        (TERMED, "", NONE, "signal", 143),
        (11 | 0x80, "", NONE, "signal", 139),  # with a core dump
        (KILLED, "", OWN, "oom-kill", 137),
        (KILLED, "", HOST, "host-oom", 137),
        (KILLED, "", UNSEEN, "host-oom", 137),
        (KILLED, "", tally(kills=1, own=1, outer=1), "oom-kill", 137),
        (code(0), "", HIT, "success", 0),
        (code(1), "", HIT, "exit-code", 1),
        (code(0), "", NESTED, "success", 0),  # at a limit of the job's own making
        (code(7), "", NESTED, "exit-code", 7),
        (KILLED, "", NESTED, "signal", 137),
        (KILLED, "oom-kill", OWN, "oom-kill", 137),
        (TERMED, "timeout", NONE, "timeout", 124),
        (code(0), "timeout", NONE, "timeout", 124),
        (TERMED, "stopped", NONE, "stopped", 143),
        (code(0), "stopped", NONE, "stopped", 0),
        (KILLED, "stopped", NONE, "stopped", 137),
        (KILLED, "patience", NONE, "patience", 137),
        (code(1), "exhausted", NONE, "exhausted", 1),
    ],
)
def test_judged_alike_whether_or_not_they_die_together(raw, why, counted, result, status, oom_group):
    made = record(raw)
    judge(made, why, counted, oom_group=oom_group)
    assert (made.result, made.status) == (result, status)
    assert made.result in RESULTS
    assert made.ok == (result == "success")


@pytest.mark.parametrize(
    ("raw", "why", "counted", "oom_group", "result", "status"),
    [
        # together: the job died of it, also if its first process was quicker
        (code(0), "", OWN, True, "oom-kill", 137),
        (code(0), "", HOST, True, "host-oom", 137),
        (TERMED, "oom-kill", OWN, True, "oom-kill", 137),
        # alone: a child was killed, the command decides what it makes of that
        (code(0), "", OWN, False, "oom-kill", 0),
        (code(5), "", OWN, False, "oom-kill", 5),
        (code(5), "", HOST, False, "host-oom", 5),
        # memrun was ending it already when the kernel killed: the kill is told, the first cause gives the status
        (TERMED, "stopped", OWN, True, "oom-kill", 143),
        (TERMED, "timeout", OWN, True, "oom-kill", 143),
        (TERMED, "timeout", OWN, False, "timeout", 124),
        (TERMED, "stopped", OWN, False, "stopped", 143),
    ],
)
def test_judged_by_whether_they_die_together(raw, why, counted, oom_group, result, status):
    made = record(raw)
    judge(made, why, counted, oom_group=oom_group)
    assert (made.result, made.status) == (result, status)


def test_every_kill_at_the_limit_is_told_as_one():
    """A kill at the limit is never reported as anything else, nor anything else as a kill at the limit."""
    for raw in (code(0), code(1), code(137), KILLED, TERMED):
        for counted in (NONE, OWN, HOST, UNSEEN, NESTED, HIT):
            made = record(raw)
            judge(made, "", counted, oom_group=True)
            assert (made.result == "oom-kill") == (counted is OWN)
            assert (made.result == "host-oom") == (counted in {HOST, UNSEEN})
            assert made.result not in {"oom-kill", "host-oom"} or made.status == 137


def test_out_of_memory():
    assert [out_of_memory(t) for t in (NONE, OWN, HOST, UNSEEN, NESTED, HIT)] == ["", "oom-kill", "host-oom", "host-oom", "", ""]


def test_an_enclosing_limit_is_named():
    made = record(KILLED)
    judge(made, "", HOST, oom_group=True)
    assert "enclosing" in made.note
    made = record(KILLED)
    judge(made, "", UNSEEN, oom_group=True)
    assert made.note == ""


@pytest.mark.parametrize(
    ("raw", "exit_code", "signal"),
    [(code(0), 0, None), (code(255), 255, None), (9, None, 9), (11 | 0x80, None, 11), (None, None, None), (64, None, 64)],
)
def test_wait_statuses(raw, exit_code, signal):
    made = record(raw)
    assert (made.exit_code, made.signal) == (exit_code, signal)


def test_a_tally_is_taken_over():
    counted = Tally()
    counted.limit, counted.peak, counted.swap_peak = 5, 4, 3
    counted.kills, counted.own, counted.hits, counted.cpu = 2, 1, 9, 0.12345678
    counted.may_have_failed = True
    made = Record("job", [])
    made.take_tally(counted)
    assert made.may_have_failed
    assert (made.limit, made.peak, made.swap_peak, made.oom_kills, made.oom_events, made.limit_hits) == (5, 4, 3, 2, 1, 9)
    assert made.cpu == 0.123457


DOCUMENTED = (
    "schema name command cgroup limit limit_asked result exit_code signal status peak peak_anon oom_kills oom_events elapsed "
    "started ended cpu paused raises largest attempts"
).split()


def test_the_documented_keys_are_there():
    made = record(code(0))
    judge(made, "", NONE, oom_group=True)
    shown = json.loads(to_json(made))
    assert set(DOCUMENTED) <= set(shown)
    assert shown["schema"] == 1
    assert next(iter(shown)) == "schema"
    assert shown["attempts"] == []
    assert (shown["limit"], shown["peak"], shown["exit_code"]) == (None, None, 0)
    assert "note" not in shown


def test_earlier_attempts_are_the_same_object_without_attempts():
    made, first = record(code(0)), record(KILLED)
    made.attempts = [first]
    shown = json.loads(to_json(made))
    [one] = shown["attempts"]
    assert set(shown) - set(one) == {"attempts", "schema"}
    assert one["signal"] == 9


def test_a_new_record_is_complete():
    made = Record("job", ["a"])
    for key in Record.__annotations__:
        assert hasattr(made, key), key


def attempts(*results: tuple[str, int]) -> Attempts:
    made = Attempts()
    for result, limit in results:
        one = record(KILLED)
        one.result, one.limit = result, limit << 20
        made.take(one)
    return made


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([("oom-kill", 20)], "1 attempt, killed for memory at the limit of 20M"),
        ([("oom-kill", 20)] * 3, "3 attempts, all killed for memory at the limit of 20M"),
        ([("oom-kill", 20), ("oom-kill", 40), ("oom-kill", 40)], "3 attempts, all killed for memory at the limits of 20M, 40M"),
        ([("oom-kill", n) for n in range(1, 10)], "9 attempts, all killed for memory at 9 limits from 1M to 9M"),
        ([("oom-kill", 20), ("exit-code", 40)], "2 attempts, 1 of them killed for memory at the limit of 20M"),
        ([("exit-code", 20)] * 2, "2 attempts"),
        (
            [("oom-kill", 20), ("host-oom", 40)],
            "2 attempts, 1 of them killed for memory at the limit of 20M, 1 of them killed because memory ran out outside of the limit",
        ),
        ([("oom-kill", 20)] * 3000, "3000 attempts, all killed for memory at the limit of 20M"),  # most of them are forgotten
    ],
)
def test_what_attempts_were_used_up_for(results, said):
    assert attempts(*results).concluded("exhausted").note == said
    assert not attempts(*results).concluded("").note
