"""The books of a budget: what is bounded besides memory, and what a person may be given."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from memrun.batch import claims
from memrun.batch.claims import Claims
from memrun.batch.plan import plan
from memrun.errors import RefusedError

MIB = 1 << 20


def entry(name, size=10 * MIB, *, service=False):
    """As much of a batch's entry as the books look at; it has a group as long as it is `alive`."""
    spec = SimpleNamespace(on_oom="kill", grow=1.0, ceiling=None)
    return SimpleNamespace(
        name=name, job=SimpleNamespace(spec=spec, service=service), limit=size, rank=-1, queued=False, reserved=None, asks=None,
        asked=0, run=None, paused=None, alive=False, held=size, busy=True,
    )  # fmt: skip


@pytest.fixture
def books():
    return Claims(SimpleNamespace(size=lambda size: size), 100 * MIB, None)


def start(books, count, **kind):
    made = [entry(f"{sorted(kind)}{number}", **kind) for number in range(count)]
    for one in made:
        books.queue(one)
    books.promise(made)
    return made


def starts(books):
    return len(books.plan(0.0, starts=True).starts)


def test_descriptors_bound_the_number_of_jobs(books):
    start(books, 2)
    for number in range(5):
        books.queue(entry(f"more-{number}"))
    books.files = 4
    assert starts(books) == 2
    books.files = None
    assert starts(books) == 5


def test_where_there_is_no_room_for_a_process_jobs_wait_for_others_to_end(books):
    *running, last = start(books, 4)
    last.busy = False
    assert books.crowd(last)
    assert books.crowded
    assert starts(books) == 0
    running[0].busy = False
    books.end(running[0])
    assert starts(books) == 1


@pytest.mark.parametrize("services", [0, 2])
def test_but_not_for_nobody_or_for_services(books, services):
    start(books, services, service=True)
    one = start(books, 1)[0]
    one.busy = False
    assert not books.crowd(one)


def test_who_is_lowered_may_always_be(books):
    one = start(books, 10)[0]
    books.budget = 50 * MIB
    books.allow(one, 10 * MIB)
    books.allow(one, 5 * MIB)
    with pytest.raises(RefusedError, match="budget of 50M"):
        books.allow(one, 11 * MIB)


class Watched(SimpleNamespace):
    """Notes that it was looked at."""

    looks = 0

    @property
    def busy(self):
        self.looks += 1
        return True

    @busy.setter
    def busy(self, _):
        pass


def test_where_nobody_wants_anything_nobody_is_looked_at(books):
    """Of thousands that run, each has news now and then."""
    one = Watched(**vars(entry("one")))
    books.queue(one)
    books.promise([one])
    assert not books.plan(0.0, starts=True).starts
    books.queue(entry("more"))
    assert not books.plan(0.0, starts=False).starts
    assert not one.looks
    assert books.plan(0.0, starts=True).starts == ("more",)
    assert one.looks


class TestCorrectedBooks:
    """What is corrected where something has happened is the same as if it were made up anew for each plan."""

    @staticmethod
    def anew(books, now):
        """The plan of books that have just been opened."""
        busy = [one for one in books._busy.values() if one.busy]
        slots = None if books.parallel is None else books.parallel + sum(one.job.service for one in busy)
        return plan(books._sorted, [books._holding(one, now) for one in busy], books.budget, slots)

    @pytest.mark.parametrize("seed", range(60))
    def test_any_history(self, seed):
        dice = random.Random(seed)
        books = Claims(SimpleNamespace(size=lambda size: size), dice.choice([None, 60 * MIB]), dice.choice([None, 3, 6]))
        waiting, running, made, started = [], [], 0, 0
        for now in range(150):
            match dice.choice(["come", "come", "end", "end", "leave", "news", "raise", "ask", "budget", "nothing"]):
                case "come":
                    one = entry(f"job-{made}", dice.randint(1, 25) * MIB, service=dice.random() < 0.1)
                    one.busy, one.held, made = False, 0, made + 1
                    books.queue(one)
                    waiting.append(one)
                case "end" if running:
                    one = running.pop(dice.randrange(len(running)))
                    one.busy, one.held, one.paused, one.asks = False, 0, None, None
                    books.end(one)
                case "leave" if waiting:
                    books.leave([waiting.pop(dice.randrange(len(waiting)))])
                case "news" if running:
                    books.touch(dice.choice(running))
                case "raise" if running:
                    one = dice.choice(running)
                    one.held = max(MIB, one.held + dice.choice([-MIB, MIB]))
                    books.touch(one)
                case "ask" if running:
                    one = dice.choice(running)
                    one.paused = SimpleNamespace(by="limit", until=now + 1)
                    books.touch(one)
                    books.ask(one, one.held + dice.randint(1, 10) * MIB)
                case "budget" if books.budget is not None:
                    books.budget += dice.choice([-5, 5]) * MIB
            expected, found = self.anew(books, float(now)), books.plan(float(now), starts=True)
            assert found == expected, now
            for name, size in found.grants:
                one = next(one for one in running if one.name == name)
                one.held, one.paused, one.asks = size, None, None
                books.touch(one)
            going = [one for one in waiting if one.name in found.starts]
            books.promise(going)
            for one in going:
                one.busy, one.held = True, one.limit
                books.touch(one)
                waiting.remove(one)
                running.append(one)
            started += len(going)
        assert started > 3

    def test_where_nothing_has_changed_nothing_is_planned_again(self, monkeypatch):
        plans = []

        def counted(*given):
            plans.append(given)
            return plan(*given)

        monkeypatch.setattr(claims, "plan", counted)
        books = Claims(SimpleNamespace(size=lambda size: size), 100 * MIB, None)
        running = start(books, 10)
        books.queue(entry("more"))
        for one in running:
            books.touch(one)
            assert not books.plan(0.0, starts=True).starts
        assert len(plans) == 1
        running[0].busy, running[0].held = False, 0
        books.end(running[0])
        assert books.plan(0.0, starts=True).starts == ("more",)
