"""The books of a budget: what is bounded besides memory, and what a person may be given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from memrun.batch.claims import Claims
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
