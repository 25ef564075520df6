"""Admission in simulated worlds: jobs of all sizes that come, run, grow, are paused at their limits, and end.

Each runs through stages (steps of work, bytes it needs for them); before a stage that needs more than its limit it is held and asks.
"""

from __future__ import annotations

from bisect import insort

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrun.batch.plan import Claim, Holding, order, plan

BUDGET = 12


class One:
    def __init__(self, name, stages, rank, *, firm=False, known=True):
        self.name, self.stages, self.rank, self.firm = name, stages, rank, firm
        self.size = stages[0][1]
        self.known = known  # its most is
        self.restart()

    def restart(self):
        self.stage, self.left, self.done, self.asked = 0, self.stages[0][0], 0, None

    @property
    def claim(self):
        return Claim(self.name, self.size, self.rank, max(need for _, need in self.stages) if self.known else 0)

    @property
    def holding(self):
        asks = None if self.asked is None else self.stages[self.stage][1]
        most = self.claim.most
        return Holding(self.name, self.size, asks, self.asked or 0, float(self.done), firm=self.firm, most=most)

    def step(self, now):
        """One step of work; True when it has ended."""
        if self.asked is not None:
            return False
        self.left -= 1
        self.done += 1
        if self.left > 0:
            return False
        self.stage += 1
        if self.stage == len(self.stages):
            return True
        self.left, need = self.stages[self.stage]
        if need > self.size:
            self.asked = now
        return False


class World:
    """`slots` and a budget of BUDGET; what `plan` decides is carried out and checked."""

    def __init__(self, slots=None, service=0):
        self.slots, self.now = slots, 0
        self.always = [Holding("service", service, fixed=True)] if service else []
        self.waiting, self.jobs, self.running = [], {}, {}
        self.started = set()
        self.heads = {}  # since when each was the oldest that waits
        self.waited = {}  # how long it then was so

    def add(self, job):
        self.jobs[job.name] = job
        insort(self.waiting, job.claim, key=order)

    def step(self):
        gone = self.decide()
        if not gone:
            for job in [job for job in self.running.values() if job.step(self.now)]:
                del self.running[job.name]
            self.now += 1

    def decide(self):
        held = [job.holding for job in self.running.values()]
        done = plan(self.waiting, self.always + held, BUDGET, self.slots)
        asking = [one for one in held if one.asks is not None]
        for name, size in done.grants:
            job = self.running[name]
            assert size == job.holding.asks
            job.size, job.asked = size, None
        self.started |= set(done.starts)
        for name in done.starts:
            self.running[name] = self.jobs[name]
        self.waiting = [claim for claim in self.waiting if claim.name not in done.starts]
        assert sum(job.size for job in (*self.running.values(), *self.always)) <= BUDGET
        assert self.slots is None or len(self.running) + len(self.always) <= self.slots
        assert self.running or not self.waiting, "nothing runs, and nothing is started"
        assert bool(done.gives_way) == bool(done.why)
        if done.gives_way:
            assert len(asking) == len(held), "somebody still runs"
            assert not done.grants
            assert not done.starts
            self.give_way(done.gives_way)
        self.note(done.starts)
        return done.gives_way

    def give_way(self, names):
        for name in names:
            job = self.running.pop(name)
            assert not job.firm
            job.size = job.holding.asks
            job.restart()
            self.add(job)
        held = [job.holding for job in self.running.values()]
        after = plan(self.waiting, self.always + held, BUDGET, self.slots)
        assert after.grants, "it helped nobody"

    def note(self, started):
        for name in started:
            if name in self.heads:
                self.waited[name] = self.now - self.heads.pop(name)
        if self.waiting:
            self.heads.setdefault(self.waiting[0].name, self.now)

    def until_empty(self, most):
        while self.waiting or self.running:
            assert self.now < most, "somebody waits for ever"
            self.step()


sizes = st.integers(1, BUDGET)
works = st.integers(1, 5)
plain = st.lists(st.tuples(works, sizes), min_size=1, max_size=1)
growing = st.lists(st.tuples(works, sizes), min_size=1, max_size=4).map(
    lambda stages: [(work, need) for (work, _), need in zip(stages, sorted(size for _, size in stages), strict=True)]
)
slots = st.none() | st.integers(1, 4)


@given(st.lists(st.tuples(st.integers(0, 9), plain), min_size=1, max_size=25), slots)
def test_the_oldest_waits_no_longer_than_the_longest_that_runs(arrivals, slots):
    """Whatever comes after it: when all that had been admitted before have ended, it is started."""
    world = World(slots)
    for rank, (pause, stages) in enumerate(arrivals):
        for _ in range(pause):
            world.step()
        world.add(One(str(rank), stages, rank))
        world.decide()
    world.until_empty(2000)
    assert all(waited <= 5 for waited in world.waited.values())


@given(st.lists(st.tuples(st.integers(0, 4), growing, st.booleans(), st.booleans()), min_size=1, max_size=20), slots)
@settings(deadline=None)
def test_all_end_though_they_grow_and_wait_for_each_other(arrivals, slots):
    world = World(slots)
    for rank, (pause, stages, firm, known) in enumerate(arrivals):
        for _ in range(pause):
            world.step()
        alone = firm and not any(job.firm for job in world.jobs.values())  # two firm ones may wait for each other for ever
        world.add(One(str(rank), stages, rank, firm=alone, known=known))
    world.until_empty(20_000)


@given(
    st.lists(st.tuples(st.integers(0, 4), growing), min_size=1, max_size=20),
    st.integers(1, BUDGET - 1),
    st.none() | st.integers(2, 4),
)
@settings(deadline=None)
def test_all_that_fit_beside_a_service_end(arrivals, service, slots):
    world = World(slots, service)
    for rank, (pause, stages) in enumerate(arrivals):
        for _ in range(pause):
            world.step()
        world.add(One(str(rank), [(work, min(need, BUDGET - service)) for work, need in stages], rank))
    world.until_empty(20_000)


@pytest.mark.parametrize("shape", [[(2, 1)], [(1, 1), (2, 2)], [(1, 2), (1, 5), (2, 6)], [(3, 3), (1, 12)]])
@given(st.lists(growing, max_size=6), sizes, slots)
@settings(max_examples=25, deadline=None)
def test_a_large_one_gets_its_turn_in_an_endless_stream_of_small_ones(shape, first, size, slots):
    world = World(slots)
    for rank, stages in enumerate(first):
        world.add(One(f"first{rank}", stages, rank))
    world.add(One("large", [(1, size)], 100))
    while "large" not in world.started:
        world.add(One(f"small{world.now}.{len(world.jobs)}", shape, 101 + len(world.jobs)))
        world.step()
        assert world.now < 300
