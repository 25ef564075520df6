"""What is known of jobs whose supervisor was killed before it could write it down."""

from __future__ import annotations

import pytest

from memrun.batch.will import Opened, Will

BORN = "+ 7 2 abc align[sample=a b]\n"


@pytest.mark.parametrize(
    ("text", "done"),
    [
        (BORN + "= 7\n", ["align[sample=a b]"]),
        (BORN + "x 7\n", []),
        (BORN, []),
        (BORN + "! 7\n= 7\n", []),  # it was asked to end, and did
        (BORN + "= 7\n! 7\n", ["align[sample=a b]"]),  # too late
        (BORN + "= 7\n- align[sample=a b]\n", []),  # oom-kill, with an exit of 0
        (BORN + "= 7\n+ 8 3 abc align[sample=a b]\n", []),  # a further attempt
        (BORN + "! 7\nx 7\n+ 7 1 abc other\n= 7\n", ["other"]),  # the pid was born again
        ("= 7\n", []),
        ("h 9\n", []),
    ],
)
def test_what_had_succeeded(text, done):
    assert list(Opened(text).done) == done


def test_who_was_left_has_ended_too():
    opened = Opened(BORN + "+ 8 1 - other\n+ 9 1 - third\n! 9\nh 3\n")
    for pid, ok in ((7, True), (8, False), (9, True), (10, True)):
        opened.ended(pid, ok=ok)
    assert opened.done == {"align[sample=a b]": (2, "abc")}
    assert opened.hand == 3


def test_names_of_any_kind_are_one_line():
    will = Will()
    will.note("+ 5 " + will.words(1, "", "a[x=1\n= 5]").decode())
    assert list(will.read().done) == []
    will.note("= 5")
    assert list(will.read().done) == ["a[x=1\n= 5]"]
