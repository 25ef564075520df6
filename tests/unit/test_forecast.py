"""How a batch would go, if every job took equally long."""

from __future__ import annotations

import pytest

from memrun.forecast import Bounds, longest_chain, ordered, rounds
from memrun.jobs import Job, Need
from memrun.options import Spec


def jobs(**needs):
    """jobs(a="", b="a c:started", s="!") in this order; '!' marks a service."""
    found = []
    for order, (name, words) in enumerate(needs.items()):
        waits = tuple(Need(*word.split(":")) for word in words.replace("!", "").split())
        found.append(Job(name, name, order, Spec(["x"]), waits, service="!" in words))
    return found


def told(some, sizes, budget=None, slots=None):
    return [("".join(j.name for j in this.jobs), this.memory, this.short) for this in rounds(some, sizes, Bounds(budget, slots))]


@pytest.mark.parametrize(
    ("needs", "sizes", "budget", "slots", "expected"),
    [
        ({"a": "", "b": "", "c": ""}, "111", None, None, [("abc", 3, 0)]),
        ({"a": "", "b": "", "c": ""}, "111", None, 2, [("ab", 2, 0), ("c", 1, 0)]),
        ({"a": "", "b": "", "c": ""}, "111", 2, None, [("ab", 2, 1), ("c", 1, 0)]),
        ({"a": "", "b": "", "c": ""}, "191", 9, None, [("ac", 2, 1), ("b", 9, 0)]),
        ({"a": "", "b": "", "c": ""}, "999", 9, None, [("a", 9, 2), ("b", 9, 1), ("c", 9, 0)]),
        ({"a": "b", "b": "", "c": "a:finished b"}, "111", 9, None, [("b", 1, 0), ("a", 1, 0), ("c", 1, 0)]),
        ({"s": "!", "a": "s:started", "b": "a"}, "511", 9, None, [("sa", 6, 0), ("b", 6, 0)]),
        ({"s": "!", "a": "s:started", "b": ""}, "511", 9, 2, [("sa", 6, 0), ("b", 6, 0)]),
        ({"a": "", "s": "! a"}, "95", 9, None, [("a", 9, 0), ("s", 5, 0)]),
        ({}, "", 9, None, []),
    ],
)
def test_rounds(needs, sizes, budget, slots, expected):
    assert told(jobs(**needs), dict(zip(needs, map(int, sizes), strict=True)), budget, slots) == expected


def test_who_can_never_fit_ends_the_forecast():
    assert told(jobs(a="", b=""), {"a": 1, "b": 99}, 9) == [("a", 1, 1)]


def test_the_order_and_the_longest_chain():
    some = jobs(d="c", a="", s="! a", b="a", c="b s:started", e="")
    assert [job.name for job in ordered(some)] == ["a", "e", "s", "b", "c", "d"]
    assert longest_chain(some) == ["a", "b", "c", "d"]
    assert longest_chain([]) == []
