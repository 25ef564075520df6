"""v1: from the notice of an OOM on all are held still, until it is known whether there was a kill."""

from __future__ import annotations

from types import SimpleNamespace

from memrun.cgroup import together1
from memrun.cgroup.together1 import Together


def companion():
    written = []
    return SimpleNamespace(write=lambda file, word: written.append((file, word))), written


HELD, ON = ("cgroup.freeze", "1"), ("cgroup.freeze", "0")


def test_held_from_the_notice_to_the_kill():
    group, written = companion()
    together = Together(group)
    together.look(0, 0)
    assert written == []
    together.look(0, 1)
    assert written == [HELD]
    together.look(1, 1)
    together.look(1, 1)
    assert written == [HELD], "they are killed as they are"


def test_a_kill_that_is_counted_with_its_notice_is_not_waited_for():
    group, written = companion()
    Together(group).look(1, 1)
    assert written == []


def test_without_a_kill_they_go_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(together1, "time", SimpleNamespace(monotonic=lambda: now[0]))
    group, written = companion()
    together = Together(group)
    together.look(0, 1)
    now[0] += together1.WITHIN / 2
    together.look(0, 1)
    assert written == [HELD]
    now[0] += together1.WITHIN
    together.look(0, 1)
    together.look(0, 1)
    assert written == [HELD, ON]
    together.look(0, 2)
    assert written == [HELD, ON, HELD], "and are held at the next one"


def test_whom_somebody_else_has_held_meanwhile_it_leaves_alone(monkeypatch):
    monkeypatch.setattr(together1, "WITHIN", -1.0)
    group, written = companion()
    together = Together(group)
    together.look(0, 1)
    together.over()
    together.look(0, 1)
    assert written == [HELD]


def test_a_notice_from_above_that_is_counted_late_is_none():
    group, written = companion()
    together = Together(group)
    together.look(0, 0)
    together.look(0, -1)  # the one above is counted, ours not yet
    together.look(0, 0)
    assert written == []
