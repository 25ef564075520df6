"""The lines of `memrun top`, at every size of terminal."""

from __future__ import annotations

import random
import re

import pytest

from memrun.jobs import STATES
from memrun.views import cells, top
from memrun.views.frame import Page

M = 1 << 20
NOW = 1795557660.0  # 2026-11-24T22:01:00Z


def row(name="web", state="RUNNING", **known):
    return {
        "name": name, "file": None, "state": state, "pid": 4711, "cgroup": "/x", "limit": 50 * M, "usage": 25 * M, "peak": 30 * M,
        "attempt": 1, "since": "2026-11-24T22:00:00.000Z", "result": None, **known,
    }  # fmt: skip


ROWS = [
    row(),
    row("align[sample=a]", "PAUSED", usage=49 * M),
    row("retry", "BACKOFF", limit=None, usage=None, peak=None, attempt=3),
]


def screen(rows, columns=79, height=24):
    lines = top.screen(Page("utf-8"), [top.line_of(row, NOW) for row in rows], columns, height)
    return [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")


def test_as_a_person_sees_it():
    assert screen(ROWS) == [
        "memrun: 1 paused, 1 running, 1 backoff",
        "STATE    NAME              PID              USE     LIMIT  PEAK  ATTEMPT  SINCE",
        "PAUSED   align[sample=a]  4711  ━━━━━━━━━━  49M       50M   30M        1  1m00s",
        "RUNNING  web              4711  ━━━━━─────  25M       50M   30M        1  1m00s",
        "BACKOFF  retry            4711                -  infinity     -        3  1m00s",
        "q: quit",
    ]


@pytest.mark.parametrize(("columns", "there"), [(70, "PEAK"), (50, "LIMIT"), (36, "LIMIT"), (30, "NAME")])
def test_columns_go_one_after_the_other(columns, there):
    lines = screen(ROWS, columns)
    assert there in lines[1]
    assert max(map(cells.width, lines)) <= columns
    assert "━" not in "".join(lines)
    assert "a]" in lines[2]


def test_nothing_runs():
    assert screen([]) == ["memrun: nothing runs", "q: quit"]


def test_who_does_not_fit_is_counted():
    lines = screen([row(f"j{number}") for number in range(50)], height=10)
    assert len(lines) == 10
    assert lines[-2:] == ["... and 44 more", "q: quit"]


@pytest.mark.parametrize("seed", range(20))
def test_it_fits_whatever_comes(seed):
    draw = random.Random(seed)
    some = [
        row(
            draw.choice(["a", "x" * 200, "漢字" * 30, "\x1b[2J\n", ""]), draw.choice([*STATES, "ODD"]), pid=draw.choice([None, "\x07", 1]),
            limit=draw.choice([None, 0, 5 * M, "x"]), usage=draw.choice([None, 0, 5 * M]), since=draw.choice([None, "", "2026-11-24T22:00:00Z"]),
        )
        for _ in range(draw.choice([0, 1, 40]))
    ]  # fmt: skip
    for columns, height in ((9, 1), (19, 3), (39, 14), (79, 23), (300, 80)):
        lines = screen(some, columns, height)
        assert 1 <= len(lines) <= height
        assert all(line.isprintable() for line in lines)
        assert max(map(cells.width, lines)) <= columns
