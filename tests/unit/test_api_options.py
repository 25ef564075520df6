"""What the Python API makes of options: text as the command line takes it, plain values as they are."""

from __future__ import annotations

import asyncio
import math
import signal
from pathlib import Path

import pytest

import memrun
from memrun.api import spec
from memrun.errors import MemrunError, UsageError
from memrun.options import Share


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"umask": "022"}, 0o022),
        ({"umask": 0o022}, 0o022),
        ({"user": "nobody"}, "nobody"),
        ({"environment": {"A": "1"}}, {"A": "1"}),
        ({"environment": "A=1"}, (("A", "1"),)),
        ({"environment": ["A=1", "B=2"]}, (("A", "1"), ("B", "2"))),
        ({"env_file": "x"}, ("x",)),
        ({"pass_environment": ["PATH", "TZ"]}, ("PATH", "TZ")),
        ({"nice": -3}, -3),
    ],
)
def test_text_and_plain_values(given, value):
    (key,) = given
    made = spec(["true"], **given)
    assert getattr(made, key) == value
    assert made.surrounded


def test_an_option_goes_by_each_of_its_names():
    """--env, --pass-env and --retry-delay are how the command line says it, so the Python API takes them, too."""
    made = spec(["true"], env=["A=1"], pass_env="PATH", retry_delay="2s")
    assert (made.environment, made.pass_environment, made.delay) == ((("A", "1"),), ("PATH",), 2.0)
    assert made.asked.keys() == {"environment", "pass_environment", "delay"}
    assert spec(["true"], env={"A": "1"}).environment == {"A": "1"}
    with pytest.raises(UsageError, match="environment is given twice: it is another name"):
        spec(["true"], env="A=1", environment="B=2")
    with pytest.raises(UsageError, match="command line only"):
        spec(["true"], mail_style=True)


def test_its_errors_can_be_caught_by_the_name_that_the_package_gives_them():
    assert memrun.MemrunError is MemrunError
    assert "MemrunError" in memrun.__all__
    with pytest.raises(memrun.MemrunError):
        spec("true")


def test_under_another_event_loop_it_is_a_sentence():
    async def main():
        await memrun.run(["true"], limit="50M")

    with pytest.raises(memrun.MemrunError, match=r"trio.*asyncio"):
        asyncio.run(main())


def test_several_marks():
    assert [str(mark.action) for mark in spec(["true"], at=["80%=log", "90%=stop"]).at] == ["log", "stop"]
    assert len(spec(["true"], at="80%=log").at) == 1
    assert not spec(["true"], limit="5M").surrounded
    with pytest.raises(UsageError):
        spec(["true"], at=["80%=lg"])


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"limit": 5 << 20}, 5 << 20),
        ({"limit": None}, None),
        ({"limit": math.inf}, None),
        ({"limit": Share(5000)}, Share(5000)),
        ({"timeout": 0.2}, 0.2),
        ({"timeout": math.inf}, None),
        ({"timeout": 0}, None),
        ({"stop_signal": signal.SIGUSR1}, signal.SIGUSR1),
        ({"grow": 1.5}, 1.5),
        ({"attempts": 3}, 3),
    ],
)
def test_numbers(given, value):
    (key,) = given
    assert getattr(spec(["true"], **given), key) == value


@pytest.mark.parametrize(
    "given",
    [
        {"limit": 100},
        {"limit": -3},
        {"limit": 5.5},
        {"limit": True},
        {"limit": math.nan},
        {"limit": []},
        {"limit": b"5M"},
        {"limit": 1 << 70},
        {"timeout": -1},
        {"stop_signal": 999},
        {"grow": 0.5},
        {"attempts": 0},
    ],
)
def test_numbers_that_make_no_sense_are_refused_as_their_text_would_be(given):
    with pytest.raises(UsageError):
        spec(["true"], **given)


@pytest.mark.parametrize("command", ["true", b"true", None, [1], ["a\0b"], 7])
def test_a_command_is_a_list_of_words(command):
    with pytest.raises(UsageError):
        spec(command)


def test_paths_and_bytes_are_words():
    assert spec((Path("/bin/true"), b"\xff")).command == ["/bin/true", "\udcff"]


@pytest.mark.parametrize("key", ["lock", "lock_wait", "jitter", "log_target", "mail_style", "mail_lines"])
def test_what_is_for_the_command_line_only(key):
    with pytest.raises(UsageError, match=f"{key} is for the command line only"):
        spec(["true"], **{key: "x"})
