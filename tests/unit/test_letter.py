"""What a cron mail is made of: the ring that keeps the output, the curve of memory."""

from __future__ import annotations

import os

import pytest

from memrun.cron import ring
from memrun.cron.curve import BLOCKS, MOST, PLAIN, Curve, drawn
from memrun.cron.letter import is_utf8
from memrun.cron.ring import Ring


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one = Ring(1000)
    yield one
    one.close()
    assert os.listdir(tmp_path) == []


def test_the_ring_keeps_the_latest(small):
    for number in range(1000):
        small.take(b"line %d\n" % number)
    assert small.tail(2) == [b"line 998", b"line 999"]
    assert len(small.tail(1000)) >= 100  # a whole file's worth at least
    assert (small.lines, small.lost) == (1000, 0)
    assert sum(os.fstat(fd).st_size for fd in small._files) <= 2000


def test_a_piece_that_is_larger_than_the_ring(small):
    small.take(b"x" * 5000 + b"\nlast\n")
    assert small.tail(1) == [b"last"]
    assert small.size == 5006


def test_no_end_no_beginning_and_nothing(small):
    assert small.tail(3) == []
    small.take(b"one\ntwo")
    assert small.tail(3) == [b"one", b"two"]
    assert small.tail(0) == []
    small.take(b" more\n\n")
    assert small.tail(2) == [b"two more", b""]


def test_a_full_disk_is_counted(small, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ring.os, "pwrite", full)
    small.take(b"gone\n")
    assert (small.lost, small.tail(1)) == (5, [])


def test_a_file_system_without_nameless_files(tmp_path, monkeypatch):
    monkeypatch.setattr(ring.os, "O_TMPFILE", 1 << 30)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one = Ring()
    one.take(b"x\n")
    assert (one.tail(1), os.listdir(tmp_path)) == ([b"x"], [])
    one.close()


def test_the_curve_has_a_bound_and_misses_no_record():
    curve, at, wakes = Curve(), 0.0, 0
    while at < 3600:
        curve.add(int(at), 5000 if at > 1800 else int(at))
        at += curve.gap
        wakes += 1
    assert len(curve.points) < MOST
    assert wakes < 400
    assert max(curve.points) == 5000  # a peak between two points
    assert curve.points.count(5000) == 1


def test_a_further_attempt_begins_below():
    curve = Curve()
    for use, peak in [(5, 9), (0, None), (3, 3), (2, 4), (2, 4)]:
        curve.add(use, peak)
    assert curve.points == [0, 9, 0, 3, 4, 2]


def test_drawn():
    assert drawn([0, 50, 100, 120], 100) == BLOCKS[0] + BLOCKS[4] + BLOCKS[7] * 2
    assert drawn([0, 100], 100, plain=True) == PLAIN[0] + PLAIN[-1]
    assert drawn([0], 0) == BLOCKS[0]


@pytest.mark.parametrize(
    ("env", "utf"),
    [
        ({}, False),
        ({"LANG": "C"}, False),
        ({"LC_CTYPE": "C.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "fr_FR.UTF-8"}, True),
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "C.utf8", "LC_ALL": "C"}, False),
    ],
)
def test_the_locale_is_asked(env, utf, monkeypatch):
    for key in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(key, raising=False)
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert is_utf8() is utf
