"""Admission: each rule by an example, and the promises by going through all small cases."""

from __future__ import annotations

import bisect
import random
from itertools import chain, combinations, product
from time import process_time

import pytest

from memrun.batch.plan import Claim, Holding, Plan, order, plan


def claims(*sizes, most=0):
    return [Claim(f"c{n}", size, n, most) for n, size in enumerate(sizes)]


def holding(*sizes):
    return [Holding(f"h{n}", size) for n, size in enumerate(sizes)]


def starts(*args):
    return plan(*args).starts


def names(*numbers):
    return tuple(f"c{n}" for n in numbers)


def test_as_many_as_fit_oldest_first():
    assert starts(claims(3, 3, 3), [], 7, None) == names(0, 1)
    assert starts(claims(3, 3, 3), holding(3), 7, None) == names(0)
    assert starts(claims(1, 1, 1), holding(1), 7, 3) == names(0, 1)
    assert starts(claims(1), holding(1), 7, 1) == ()
    assert plan([], [], 7, 1) == Plan()


def test_no_bounds():
    asks = [Holding("h", 1, asks=1 << 60)]
    assert plan(claims(5, 5), asks, None, None) == Plan(names(0, 1), (("h", 1 << 60),))
    assert plan(claims(5, 5), asks, None, 2) == Plan(names(0), (("h", 1 << 60),))
    assert plan(claims(5), holding(1, 1), None, 1) == Plan()


def test_age_then_size():
    waiting = [Claim("small", 1, 1), Claim("large", 4, 1), Claim("old", 2, 0), Claim("also", 1, 1)]
    kept: list[Claim] = []
    for claim in waiting:
        bisect.insort(kept, claim, key=order)
    assert [claim.name for claim in kept] == ["old", "large", "also", "small"]
    assert starts(kept, [], 6, None) == ("old", "large")


def test_what_is_younger_goes_past_only_where_it_cannot_delay():
    # the head of 6 has room for 4 beside it: the 3 that run or 1 + 3
    assert starts(claims(6, 1), holding(3, 3), 10, None) == names(1)
    assert starts(claims(6, 2), holding(3, 3), 10, None) == ()  # 3 + 2 would be in its way when the other 3 has ended
    assert starts(claims(6, 1, 1), holding(3, 3), 10, None) == names(1)
    assert starts(claims(6, 4), holding(6), 10, None) == names(1)
    assert starts(claims(6, 5), holding(6), 11, None) == names(1)


def test_places_are_kept_for_the_head():
    assert starts(claims(6, 1), holding(5, 3), 10, 3) == names(1)  # one of two ends before the 6 fits: its place is free then
    assert starts(claims(6, 1, 1), holding(5), 10, 2) == names(1)
    assert starts(claims(6, 1, 1), holding(1, 3, 4), 12, 4) == names(1)
    assert starts(claims(6, 1), holding(1, 1, 1, 8), 13, 5) == names(1)
    assert starts(claims(9, 1), holding(1, 1, 9), 12, 3) == ()
    held = [Holding("a", 2, asks=8), Holding("b", 4)]  # 3 may pass a: not the first claim, which fits otherwise and needs a place
    assert starts(claims(4, 1, 1), held, 11, 4) == names(1)
    assert starts(claims(4, 1, 1), held, 11, 3) == ()


def test_a_job_that_may_grow_counts_as_it_may_become():
    assert starts(claims(6, 1, most=2), holding(3, 3), 10, None) == ()
    assert starts(claims(6, 1, most=4), holding(6), 10, None) == names(1)
    assert starts(claims(3, most=10), holding(3), 10, None) == names(0)  # nobody waits: it need not fit with all it may become
    grown = [Holding("a", 5), Holding("b", 1, most=3)]
    assert starts(claims(7, 1), grown, 10, None) == ()  # b may become 3, all that is left beside the 7


def test_grants_come_before_starts_and_oldest_first():
    held = [Holding("a", 2, asks=4, since=2), Holding("b", 2, asks=4, since=1), Holding("c", 2)]
    assert plan(claims(1), held, 8, None) == Plan((), (("b", 4),))
    assert plan(claims(1), held, 11, None) == Plan(names(0), (("b", 4), ("a", 4)))


def test_what_is_younger_than_a_head_that_asks():
    held = [Holding("a", 2, asks=6), Holding("b", 5), Holding("c", 1, asks=2, since=1)]
    assert plan([], held, 10, None).grants == (("c", 2),)  # 4 beside a: c with 2 is in nobody's way
    held = [Holding("a", 2, asks=6), Holding("b", 3), Holding("d", 2), Holding("c", 1, asks=3, since=1)]
    assert plan([], held, 10, None) == Plan()  # when b has ended: d 2 + c 1 leave the 6 for a, d 2 + c 3 would not


def test_starts_past_a_head_that_asks():
    held = [Holding("a", 5, asks=12), Holding("b", 6), Holding("c", 6)]
    assert starts(claims(2, 1), held, 20, None) == names(0)  # 12 and one 6 leave 2
    assert starts(claims(3, 1, 1), held, 20, None) == ()  # the 3 waits for a, and nobody may take what it will get
    assert starts(claims(1, 1, 1), held, 20, None) == names(0, 1)


def test_the_head_may_be_behind_one_that_only_others_who_ask_can_help():
    held = [Holding("a", 2, asks=9, since=0), Holding("b", 3, asks=6, since=1), Holding("c", 4)]
    assert plan(claims(1), held, 10, None) == Plan()  # b gets its 6 when c ends; the 1 that is free is kept for it
    assert plan(claims(1), [*held[:2], Holding("c", 4, fixed=True)], 10, None).gives_way == ("a",)


def test_a_deadlock_waits_until_nobody_runs():
    held = [Holding("a", 4, asks=8, loss=60), Holding("b", 4, asks=8, loss=5), Holding("c", 1)]
    assert plan(claims(1), held, 10, None) == Plan()  # and nothing is started: c's end is waited for
    done = plan(claims(1), held[:2], 10, None)
    assert (done.starts, done.grants, done.gives_way) == ((), (), ("b",))
    assert (
        done.why
        == "2 jobs are held at their limits and wait for each other's memory; this one had the least work to lose (5.0 s)"
    )
    after = [held[0]]
    assert plan([Claim("b", 8, 0), *claims(1)], after, 10, None) == Plan(names(0), (("a", 8),))


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([(3, 9, 1), (3, 9, 2), (3, 9, 3)], (0, 1)),  # two have to
        ([(1, 9, 1), (5, 9, 2), (3, 8, 3)], (1,)),  # the first would not be enough, and is not needed
        ([(3, 9, 1), (6, 7, 2)], (0,)),
        ([(1, 7, 1), (6, 9, 2), (2, 9, 3, True)], (1,)),  # the first gets what it asks when the second ends
    ],
)
def test_the_smallest_loss_that_helps(held, expected):
    asks = [Holding(str(n), size, asks, loss=loss, firm=bool(firm)) for n, (size, asks, loss, *firm) in enumerate(held)]
    assert plan([], asks, 9, None).gives_way == tuple(map(str, expected))


def test_who_gives_way_against_all_the_ways_there_are():
    rng = random.Random(3)
    for _ in range(3000):
        sizes = [rng.randrange(1, 6) for _ in range(rng.randrange(1, 5))]
        free = rng.randrange(3)
        held = [
            Holding(str(n), size, size + free + rng.randrange(1, 6), loss=rng.randrange(4), firm=rng.random() < 0.3)
            for n, size in enumerate(sizes)
        ]
        budget = sum(sizes) + free

        def helps(ends, held=held, free=free, budget=budget):
            freed = free + sum(one.size for one in ends)
            return any(one.asks <= budget and one.asks - one.size <= freed for one in held if one not in ends)

        able = [one for one in held if not one.firm and one.asks <= budget]
        ways = [way for way in subsets(able) if helps(way)]
        done = tuple(one for one in held if one.name in plan([], held, budget, None).gives_way)
        assert bool(done) == bool(ways), held
        if done:
            assert helps(done), held
            assert not any(helps([one for one in done if one is not other]) for other in done), held
            assert max(one.loss for one in done) == min(max(one.loss for one in way) for way in ways), held


def test_firm_ones_do_not_give_way():
    held = [Holding("a", 4, asks=8, loss=1, firm=True), Holding("b", 4, asks=8, loss=9)]
    assert plan([], held, 8, None).gives_way == ("b",)
    assert plan([], [held[0], Holding("b", 4, asks=8, firm=True)], 8, None) == Plan()


def test_nobody_gives_way_where_that_helps_nobody():
    service, paused = Holding("s", 4, fixed=True), Holding("a", 2, asks=6)
    assert plan([], [service, paused], 8, None) == Plan()
    assert plan([], [service, paused, Holding("b", 2, asks=7)], 8, None) == Plan()
    assert plan([], [service, paused, Holding("b", 1, asks=3, since=1)], 9, None).grants == (("b", 3),)
    assert plan([], [Holding("s", 4, fixed=True, asks=5), Holding("b", 4, asks=6)], 8, None).gives_way in {("b",), ("s",)}


def test_who_waits_for_something_outside_keeps_nothing_from_the_others():
    service = Holding("s", 4, fixed=True)
    assert starts(claims(6, 3, 1), [service], 8, None) == names(1, 2)
    assert starts(claims(9, 8, 1), [], 8, None) == names(1)  # can never fit: refused elsewhere, and in nobody's way here
    assert starts(claims(2, 1), [service, Holding("a", 2, asks=6)], 8, None) == names(0)
    assert starts(claims(2, 1), [service, Holding("a", 2, asks=60)], 8, None) == names(0)


def test_a_service_may_be_granted_too():
    held = [Holding("s", 2, asks=4, fixed=True), Holding("a", 3, asks=5, since=1), Holding("b", 3, asks=6, since=2, loss=1)]
    assert plan(claims(1), held, 10, None) == Plan((), (("s", 4),), ("a",), plan([], held, 10, None).why)


def test_more_admitted_than_there_is():
    # the budget was made smaller while they ran
    assert plan(claims(1), holding(5, 5), 8, None) == Plan()
    assert plan(claims(1), [*holding(5), Holding("a", 5, asks=6)], 8, None) == Plan()


def subsets(of):
    of = list(of)
    return chain.from_iterable(combinations(of, n) for n in range(len(of) + 1))


def sums(group):
    return sum(size for _, size in group)


def small_cases():
    for budget, slots in product((5, 7), (None, 2, 3, 4)):
        for running in chain.from_iterable(product((1, 2, 3, 4), repeat=n) for n in range(4)):
            if sum(running) > budget or tuple(sorted(running)) != running or (slots is not None and len(running) > slots):
                continue
            for waiting in product((1, 2, 3, 5), repeat=3):
                yield running, waiting, budget, slots


def test_backfill_delays_the_head_in_no_order_of_ends_and_leaves_nothing_out():
    """X is what is left of the others when the head could start without the backfill: it can with it, too."""
    for running, waiting, budget, slots in small_cases():
        places = slots or 99
        started = starts(claims(*waiting), holding(*running), budget, slots)
        numbers = [int(name[1:]) for name in started]
        head = next((n for n in range(3) if n not in numbers), None)
        if head is None:
            continue
        before = list(enumerate(running)) + [(10 + n, waiting[n]) for n in numbers if n < head]
        past = [(10 + n, waiting[n]) for n in numbers if n > head]
        assert sums(before) + sums(past) <= budget, (running, waiting)
        assert len(before) + len(past) <= places, (running, waiting)
        full = sums(before) + waiting[head] > budget or len(before) >= places
        assert full, (running, waiting, budget, slots)
        moments = [x for x in subsets(before) if sums(x) + waiting[head] <= budget and len(x) < places]
        for x in moments:
            assert sums(x) + sums(past) + waiting[head] <= budget, (running, waiting, budget, slots)
            assert len(x) + len(past) < places, (running, waiting, budget, slots)
        for n in range(head + 1, 3):
            if n not in numbers and slots is None and sums(before) + sums(past) + waiting[n] <= budget:
                assert any(sums(x) + sums(past) + waiting[n] + waiting[head] > budget for x in moments)


def head_starts(waiting, lasts, running, budget, *, backfill):
    """When the first that has to wait now starts. `lasts`: how long each of running + waiting runs."""
    ends = {f"h{n}": lasts[n] for n in range(len(running))}
    sizes = {f"h{n}": size for n, size in enumerate(running)}
    line, now, head = claims(*waiting), 0, None
    while line:
        started = starts(line, [Holding(name, sizes[name]) for name in ends], budget, None)
        first = next((claim.name for claim in line if claim.name not in started), None)
        if head is None:
            head = first
        elif head in started:
            return now
        for claim in line[:]:
            if claim.name == first and not backfill:
                break
            if claim.name in started:
                line.remove(claim)
                sizes[claim.name] = claim.size
                ends[claim.name] = now + lasts[len(running) + int(claim.name[1:])]
        if head is None:
            return 0
        now = min(ends.values())
        ends = {name: end for name, end in ends.items() if end > now}
    return now


def test_the_head_starts_as_early_as_in_the_same_world_without_backfill():
    for running in product((1, 2, 3), repeat=2):
        for waiting in product((1, 2, 3), repeat=3):
            for lasts in product((1, 2, 4), (1, 3), (1, 5), (1, 2), (1, 4)):
                args = (waiting, lasts, running, 5 if sum(running) == 5 else 4 + (sum(running) > 4) * 2)
                assert head_starts(*args, backfill=True) <= head_starts(*args, backfill=False), args


def test_sizes_that_have_no_common_divisor_are_rounded_on_the_safe_side():
    rng = random.Random(5)
    for _ in range(40):
        running = [rng.randrange(1 << 20, 1 << 31) for _ in range(8)]
        budget = sum(running) + rng.randrange(1 << 28)
        head = rng.randrange(budget - sum(running) + 1, budget)
        line = claims(head, *(rng.randrange(1 << 16, 1 << 27) for _ in range(200)))
        past = sum(claim.size for claim in line if claim.name in starts(line, holding(*running), budget, None))
        best = max(total for x in subsets(running) if (total := sum(x)) <= budget - head)
        assert best + past <= budget - head


@pytest.mark.parametrize("sizes", ["one", "few", "many"])
def test_an_ordinary_call_is_quick(sizes):
    rng = random.Random(1)
    pick = {"one": lambda: 1 << 30, "few": lambda: rng.randrange(1, 9) << 29, "many": lambda: rng.randrange(1 << 20, 1 << 33)}[
        sizes
    ]
    held = [Holding(f"h{n}", pick()) for n in range(1000)]
    line = sorted((Claim(f"c{n}", pick(), n) for n in range(5000)), key=order)
    line.insert(0, Claim("head", 1 << 36, -1))
    budget = sum(one.size for one in held) + (3 << 30)
    took = []
    for _ in range(15):
        before = process_time()
        plan(line, held, budget, None)
        took.append(process_time() - before)
    print(f"{sizes}: {min(took) * 1e3:.2f} ms")
    assert min(took) < 0.01  # about 0.5 ms on an idle machine
