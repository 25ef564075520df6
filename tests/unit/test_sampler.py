"""What samples a job where there is no group: how often, and what it shares with memrun."""

from __future__ import annotations

import pytest

from memrun import launch
from memrun.cgroup import board, members, sampler

M = 1 << 20


def test_a_child_that_is_not_the_command_yet_is_known_by_the_same_name():
    assert members.UNBORN == launch.UNBORN


def test_far_away_it_looks_seldom_and_close_by_often():
    far = sampler.Pace().next(100.0, 0.0001, 10 * M, 16 << 30)
    near = sampler.Pace().next(100.0, 0.0001, 99 * M, 100 * M)
    assert far == sampler.LONGEST
    assert near == sampler.SHORTEST
    assert sampler.Pace().next(100.0, 0.0001, 10 * M, None) == sampler.LONGEST


def test_a_quick_one_is_looked_at_more_often():
    calm, quick = sampler.Pace(), sampler.Pace()
    calm.next(100.0, 0.0001, 99 << 20, 10 << 30)
    quick.next(100.0, 0.0001, 0, 10 << 30)
    assert quick.next(100.1, 0.0001, 1 << 30, 10 << 30) < calm.next(100.1, 0.0001, 1 << 30, 10 << 30)


def test_standing_still_close_to_the_limit_it_is_left_in_peace():
    pace = sampler.Pace()
    waits = [pace.next(100.0 + n, 0.0001, 99 * M, 100 * M) for n in range(20)]
    assert waits == sorted(waits)
    assert waits[-1] == sampler.STILL


def test_no_more_than_a_tenth_of_a_processor_and_half_of_one_while_it_grows():
    pace = sampler.Pace()
    assert pace.next(100.0, 0.2, 99 * M, 100 * M) == pytest.approx(0.2)
    assert pace.next(101.0, 0.2, 99 * M, 100 * M) == pytest.approx(0.2 * sampler.SHARE)


def test_the_board_keeps_what_is_written():
    made = board.Board()
    made["limit"], made["extra"], made.big_name = 5 * M, M, "größe"
    made.admit(17, 4711)
    made.admit(18, 4712)
    made.admit(17, 4713)
    assert made.allowed == 6 * M
    assert made.roots() == {17: 4713, 18: 4712}
    assert made.big_name == "größe"
    assert [made[field] for field in ("peak", "kills", "held")] == [0, 0, 0]
    made["limit"] = board.NONE
    assert made.allowed is None
    made.close()
