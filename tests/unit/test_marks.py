"""What --at and --pressure may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrun import signals
from memrun.errors import UsageError
from memrun.marks import (
    ACTIONS,
    LEVELS,
    MODES,
    Action,
    Pressure,
    Threshold,
    parse_action,
    parse_at,
    parse_pressure,
    pressures_of,
    threshold_of,
)
from memrun.units import Share


@pytest.mark.parametrize(
    ("text", "at", "hold", "action"),
    [
        ("80%=log", Share(8000), 0, "log"),
        ("500M=signal:USR1", 500 << 20, 0, "signal:USR1"),
        ("90% for 30s=restart", Share(9000), 30, "restart"),
        (" 1.5G  for  1m30s = stop ", 3 << 29, 90, "stop"),
        ("1048576 for 5=kill", 1 << 20, 5, "kill"),
        ("1G=exec:env A=b ./tell.sh 'x y'", 1 << 30, 0, "exec:env A=b ./tell.sh 'x y'"),
        ("12.5%=pause", Share(1250), 0, "pause"),
        ("80%=signal:SIGRTMIN", Share(8000), 0, "signal:RTMIN"),
        ("80%=signal:10", Share(8000), 0, "signal:USR1"),
    ],
)
def test_thresholds(text, at, hold, action):
    got = parse_at(text)
    assert (got.at, got.hold, str(got.action)) == (at, hold, action)
    assert got == Threshold(at, parse_action(action), hold)
    assert hash(got) == hash(Threshold(at, parse_action(action), hold))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("80%", "does not say what to do"),
        ("", "does not say what to do"),
        ("=log", "is not a size"),
        ("80%=", "is not something to do"),
        ("80%=restrat", "Did you mean restart?"),
        ("80%=signal", "Write signal:NAME"),
        ("80%=signal:FOO", "is not a signal"),
        ("80%=exec:", "Write exec:COMMAND"),
        ("80%=log:x", "takes nothing after it"),
        ("120%=log", "is not a share"),
        ("0=log", "always reached"),
        ("infinity=log", "never reached"),
        ("80% fro 30s=log", "Did you mean for?"),
        ("80% for=log", "is not a duration"),
        ("80% for soon=log", "is not a duration"),
        ("80% for infinity=log", "never ends"),
        ("5X=log", "is not a size"),
        ("80%=exec:a\0b", "is not a command"),
    ],
)
def test_what_is_wrong_with_a_threshold(text, said):
    with pytest.raises(UsageError) as caught:
        parse_at(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_share_is_of_the_limit():
    mark = parse_at("80%=log")
    assert (mark.resolve(1000), mark.resolve(2000), mark.resolve(None)) == (800, 1600, None)
    assert (mark.follows, parse_at("5M=log").follows) == (True, False)
    assert (parse_at("5M=log").resolve(None), parse_at("5M=log").resolve(1)) == (5 << 20, 5 << 20)


def test_a_share_with_swap_is_of_both_together():
    mark = parse_at("80% with swap=log")
    assert (mark.resolve(1000, 500), mark.resolve(1000, None), mark.resolve(None, 5)) == (1200, None, None)
    assert (parse_at("80%=log").resolve(1000, None), parse_at("5M with swap=log").resolve(1, None)) == (800, 5 << 20)
    assert parse_at("1G  with  swap for 1m 30s=stop").facts == (1 << 30, Action("stop"), 90.0, True)
    assert parse_at("1G with swap for 90s=stop").where == "1G with swap for 1 min 30 s"


def test_page_cache_is_a_reason_to_tell_and_none_to_act():
    assert {do for do in ACTIONS if Threshold(1, Action(do)).cache} == {"log", "signal", "exec"}


def test_pressure():
    assert parse_pressure("medium=log") == Pressure("medium", Action("log"))
    assert parse_pressure("critical, hierarchy = stop") == Pressure("critical", Action("stop"), "hierarchy")
    assert parse_pressure("low=exec:a=b").action.command == "a=b"
    assert parse_pressure("low=signal:usr2").action.signal == signals.USR2
    assert {parse_pressure(f"{level},{mode}=log").mode for level in LEVELS for mode in MODES} == set(MODES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("medium", "does not say what to do"),
        ("medum=log", "Did you mean medium?"),
        ("medium,hierarchical=log", "Did you mean hierarchy?"),
        ("medium,=log", "is not a mode"),
        ("=log", "is not a level"),
        ("low=explode", "is not something to do"),
    ],
)
def test_what_is_wrong_with_pressure(text, said):
    with pytest.raises(UsageError) as caught:
        parse_pressure(text)
    assert said in str(caught.value)


def test_tables():
    assert threshold_of({"at": "80%", "do": "log", "for": "30s"}) == parse_at("80% for 30s=log")
    assert threshold_of({"at": 1048576, "do": "stop", "for": 1.5}) == parse_at("1M for 1.5s=stop")
    assert threshold_of({"at": "80%", "do": "log", "swap": True}) == parse_at("80% with swap=log")
    assert pressures_of({"low": "log", "critical,local": "kill"}) == [
        parse_pressure("low=log"),
        parse_pressure("critical,local=kill"),
    ]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "wants 'at'"),
        ({"at": "80%"}, "wants 'do'"),
        ({"at": "80%", "do": "log", "fro": "3s"}, "Did you mean for?"),
        ({"at": True, "do": "log"}, "is not text"),
        ({"at": "80%", "do": 5}, "is not text"),
        ({"at": ["80%"], "do": "log"}, "is not text"),
        ({"at": "80%", "do": "log", "swap": "yes"}, "is not true or false"),
    ],
)
def test_what_is_wrong_with_a_table(table, said):
    with pytest.raises(UsageError) as caught:
        threshold_of(table)
    assert said in str(caught.value)


WORDS = st.sampled_from(
    ["80%", "500M", "for", "30s", "=", ":", ",", " ", "log", "signal", "USR1", "exec", "low", "medium", "local", "\0", "-1"]
)
TEXTS = st.text() | st.lists(WORDS).map("".join)


@given(TEXTS)
def test_never_anything_but_a_usage_error(text):
    for parse in (parse_at, parse_pressure, parse_action):
        try:
            got = parse(text)
        except UsageError as e:
            assert str(e)
        else:
            assert repr(got)


VALUES = TEXTS | st.integers() | st.floats() | st.booleans() | st.none() | st.lists(st.integers())


@given(st.dictionaries(TEXTS | st.sampled_from(["at", "do", "for", "low", "critical"]), VALUES))
def test_nor_from_a_table(table):
    for parse in (threshold_of, pressures_of):
        try:
            parse(table)
        except UsageError as e:
            assert str(e)


@given(st.integers(1, 1 << 50), st.floats(0, 1e6), st.sampled_from(["log", "stop", "signal:USR1", "exec:true"]))
def test_what_is_shown_of_an_action_can_be_given_again(at, hold, action):
    got = parse_at(f"{at} for {hold:f}s={action}")
    assert got.at == at
    assert parse_action(str(got.action)) == got.action
