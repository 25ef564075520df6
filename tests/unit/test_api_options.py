"""What the Python API makes of options: text as the command line takes it, plain values as they are."""

from __future__ import annotations

import pytest

from memrun.api import spec
from memrun.errors import UsageError


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


def test_several_marks():
    assert [str(mark.action) for mark in spec(["true"], at=["80%=log", "90%=stop"]).at] == ["log", "stop"]
    assert len(spec(["true"], at="80%=log").at) == 1
    assert not spec(["true"], limit="5M").surrounded
    with pytest.raises(UsageError):
        spec(["true"], at=["80%=lg"])
