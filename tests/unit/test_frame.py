"""The live view's lines, at every size of terminal."""

from __future__ import annotations

import random
import re

import pytest

from memrun.jobs import STATES, Progress, Row
from memrun.views import cells, frame

M = 1 << 20
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def progress(*rows, **known):
    facts = {
        "total": 100, "succeeded": 35, "failed": 2, "skipped": 1, "waiting": 50, "budget": 2048 * M, "committed": 1536 * M,
        "elapsed": 132.0, "left": 200.0,
    }  # fmt: skip
    return Progress(**{**facts, **known}, rows=rows)


ROWS = (
    Row("align[sample=a]", "RUNNING", 1024 * M, 800 * M, 1, 12.0),
    Row("align[sample=b]", "PAUSED", 512 * M, 500 * M, 2, 75.0, "at its limit of 512M; waits for 512M more"),
    Row("web", "RUNNING", None, 20 * M, 1, 4000.0, service=True),
    Row("calls", "BACKOFF", 512 * M, None, 3, 4.0, "again in 8 s, with 1G"),
)


def plainly(shown, columns=79, height=23, encoding="utf-8"):
    return [COLOURS.sub("", line) for line in frame.batch(frame.Page(encoding), shown, columns, height)]


def test_as_a_person_sees_it():
    counts, _, _, *lines = plainly(progress(*ROWS, services=1))
    assert counts == "38 of 100 done, 2 failed, 1 paused, 1 running, 50 waiting, 1 skipped, 1 service"
    assert lines == [
        "PAUSED   align[sample=b] ━━━━━━━━━━ 500M/512M  1m15s  attempt 2",
        "         at its limit of 512M; waits for 512M more",
        "RUNNING  align[sample=a] ━━━━━━━━──   800M/1G    12s",
        "RUNNING  web                         20M/none  1h06m  service",
        "BACKOFF  calls                         -/512M     4s  attempt 3",
        "         again in 8 s, with 1G",
        "Ctrl-C: stop the jobs, gracefully; twice: kill. `memrun up` goes on later",
    ]


def test_the_bars():
    _, jobs, memory, *_ = plainly(progress(*ROWS))
    assert re.fullmatch(r"jobs   ━+╍─+  38%  2m12s, about 3m20s left", jobs)
    assert re.fullmatch(r"memory ━+╍+─+ 1.50G given out, 1.29G used, 512M of 2G free", memory)
    assert cells.width(jobs) <= 79 >= cells.width(memory)
    _, jobs, memory, *_ = plainly(progress(left=None, budget=None), encoding="ascii")
    assert re.fullmatch(r"jobs   #+=+-+  38%  2m12s", jobs)
    assert memory == "memory 1.50G given out, 0B used; no budget"


@pytest.mark.parametrize(
    ("share", "bar"), [(0.0, "----------"), (0.04, "----------"), (0.5, "#####-----"), (1.0, "##########"), (7.0, "##########")]
)
def test_a_bar_is_as_full_as_its_share(share, bar):
    assert frame.Page("ascii").bar([(share, "red")], 10).plain == bar


def test_a_bar_of_two_parts():
    page = frame.Page("ascii")
    assert page.bar([(0.3, ""), (0.4, "")], 10).plain == "###====---"
    assert page.bar([(0.9, ""), (0.9, "")], 10).plain == "#########="


@pytest.mark.parametrize("seed", range(40))
def test_it_fits_whatever_comes(seed):
    draw = random.Random(seed)
    names = ["a", "align[sample=a,reference=hg38,chunk=17]", "漢字" * 20, "\x1b[2J\nevil\u202e", "x" * 300, ""]
    rows = tuple(
        Row(
            draw.choice(names), draw.choice([*STATES, "ODD"]), draw.choice([None, 0, 7 * M, 1 << 40]),
            draw.choice([None, 0, 7 * M, 1 << 41]), draw.randrange(1, 5), draw.choice([0.0, 70.0, 1e6]),
            draw.choice(["", "because " * 20, "\x07"]), draw.random() < 0.2,
        )
        for _ in range(draw.choice([0, 1, 5, 30, 500]))
    )  # fmt: skip
    shown = progress(
        *rows, ending=draw.choice(["", "stopping", "killing"]), total=draw.choice([0, 100]), budget=draw.choice([None, 0, M])
    )
    for columns, height in ((9, 1), (19, 3), (39, 14), (79, 23), (131, 23), (300, 80)):
        lines = plainly(shown, columns, height, draw.choice(["utf-8", "ascii", None]))
        assert 1 <= len(lines) <= height
        assert all(line.isprintable() for line in lines)
        assert max(map(cells.width, lines)) <= columns, (columns, lines)


def test_who_does_not_fit_is_counted():
    rows = [Row(f"j{n}", "RUNNING", M, M, 1, 1.0) for n in range(30)] + [
        Row(f"w{n}", "WAITING", M, None, 0, 1.0) for n in range(10)
    ]
    lines = plainly(progress(*rows), height=24)
    assert lines[-2] == "... and 21 more: 11 running, 10 waiting"
    assert len(lines) == 24


def test_both_kinds_of_ending_are_announced():
    assert "gracefully; twice: kill" in plainly(progress(*ROWS))[-1]
    assert (
        plainly(progress(*ROWS, ending="stopping"))[-1] == "Stopping: nothing new starts, 3 asked to end. Ctrl-C again: kill now"
    )
    assert plainly(progress(*ROWS, ending="killing"))[-1] == "Killing what is left (3)."
    for columns, height in ((39, 5), *((79, height) for height in range(2, 12))):
        assert any("Ctrl-C again: kill" in line for line in plainly(progress(*ROWS, ending="stopping"), columns, height))


def test_colours_only_where_they_are_wanted(monkeypatch):
    assert COLOURS.search("".join(frame.batch(frame.Page("utf-8"), progress(*ROWS), 79, 23)))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOURS.search("".join(frame.batch(frame.Page("utf-8"), progress(*ROWS), 79, 23)))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86400, "1d00h"), (1e7, "115d17h")],
)
def test_brief_times(seconds, said):
    assert frame.brief(seconds) == said
