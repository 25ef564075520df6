"""When a mark has been passed, and how long until the next look: figures in, figures out."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from memrun import gauges
from memrun.gauges import GROWTH, IDLE_LONGEST, LONGEST, MIB, NEVER, SHORTEST, Mark, Pace
from memrun.marks import parse_at
from memrun.thresholds import Thresholds

BUSY = 10**6  # microseconds of work in a second of a busy job


def test_a_mark_has_two_lines():
    mark = Mark(100 * MIB)
    assert mark.low == 98 * MIB
    said = [mark.step(0.0, value * MIB) for value in (99, 100, 99, 98, 101, 97, 99, 100)]
    assert said == [None, True, None, None, None, False, None, True]


@pytest.mark.parametrize(("at", "slack"), [(8 * MIB, MIB), (4 * MIB, MIB // 2), (1 << 30, (1 << 30) // 50), (4096, 512)])
def test_how_far_below(at, slack):
    assert Mark(at).low == at - slack


@pytest.mark.parametrize(
    ("mark", "told", "peak", "limits", "passed"),
    [
        ("50%=log", [], 50, [100], (0,)),
        ("50%=log", [], 49, [100], ()),
        ("50%=log", [0], 50, [100], ()),
        ("50%=log", [], None, [100], ()),
        ("50%=log", [], 99, [None], ()),  # a share of infinity
        ("60M=exec:true", [], 60, [None], (0,)),
        ("50%=log", [], 80, [100, 200, 120], ()),  # of the largest that it had
        ("50%=log", [], 100, [100, 200, 120], (0,)),
        ("50% for 1s=log", [], 99, [100], ()),
        ("50% with swap=log", [], 99, [100], ()),
        ("50%=stop", [], 99, [100], ()),  # page cache may be all of it
    ],
)
def test_what_only_a_peak_tells_of(mark, told, peak, limits, passed):
    class Group:
        swap = 0

        def __init__(self):
            self.limits = [limit and limit * MIB for limit in limits]

        @property
        def limit(self):
            return self.limits[0]

    async def listen(group, found):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.listen, group, None)
            await trio.testing.wait_all_tasks_blocked()
            while len(group.limits) > 1:
                del group.limits[0]
                found.move()
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    async def nothing(*_):
        await trio.lowlevel.checkpoint()

    group, found = Group(), Thresholds([parse_at(mark)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gauges, "crossings", nothing)
        trio.run(listen, group, found)
    for index in told:
        found.told(index)
    assert found.end(peak and peak * MIB, group.limit) == passed
    assert not told or found.end(peak and peak * MIB, group.limit) == (0,)  # another attempt passes it anew


def test_a_hold_must_be_stood():
    mark = Mark(MIB, hold=5.0)
    assert (mark.step(0.0, MIB), mark.due) == (None, 5.0)
    assert mark.step(4.9, MIB) is None
    assert (mark.step(4.95, 0), mark.due) == (None, NEVER)  # nothing was told, nothing is taken back
    assert mark.step(6.0, MIB) is None
    assert (mark.step(11.0, MIB), mark.due) == (True, NEVER)
    assert mark.step(12.0, 0) is False


def test_a_mark_that_is_moved_remembers():
    mark = Mark(100 * MIB)
    assert mark.step(0.0, 100 * MIB) is True
    mark.move(200 * MIB)
    assert mark.step(1.0, 100 * MIB) is False
    mark.move(None)
    assert mark.step(2.0, 1 << 50) is None


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 200)), max_size=30), st.floats(0, 20))
def test_rising_and_falling_take_turns(history, hold):
    mark, now, told = Mark(100 * 4096, hold), 0.0, []
    for passed, pages in history:
        now += passed
        said = mark.step(now, pages * 4096)
        told += [said] if said is not None else []
    assert told == [index % 2 == 0 for index in range(len(told))]


def paced(steps, distance=100 * MIB, every=1.0):
    pace = Pace()
    return [pace.next(every * n, usage, pulse, distance) for n, (usage, pulse) in enumerate(steps)]


def test_the_farther_the_longer():
    waits = [paced([(0, 0)], distance)[0] for distance in (0, 10 * MIB, 100 * MIB, 10 << 30)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (SHORTEST, LONGEST)


def test_who_grows_faster_is_looked_at_sooner():
    slow = paced([(0, 0), (10 * MIB, BUSY)])[-1]
    fast = paced([(0, 0), (1 << 30, BUSY)])[-1]
    assert fast < slow
    assert fast <= 100 * MIB / (1 << 30) / 2 + 1e-9


def test_work_without_growth_is_looked_at_less_and_less():
    waits = paced([(0, n * BUSY) for n in range(20)])
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST


def test_idleness_still_less_until_it_stirs():
    pace = Pace()
    waits = [pace.next(60.0 * n, 0, 0, MIB) for n in range(20)]
    assert pace.idle
    assert waits[-1] == IDLE_LONGEST
    assert pace.next(1300.0, 0, 60 * BUSY, MIB) == SHORTEST
    assert not pace.idle


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=20), st.integers(0, 1 << 62))
def test_always_within_bounds(steps, distance):
    assert all(SHORTEST <= wait <= IDLE_LONGEST for wait in paced(steps, distance, every=0.0))
    assert all(SHORTEST <= wait <= IDLE_LONGEST for wait in paced(steps, distance))


def test_a_little_growth_is_none():
    pace = Pace()
    pace.next(0.0, 0, 0, MIB)
    pace.next(1.0, GROWTH - 1, 0, MIB)
    assert pace.idle
