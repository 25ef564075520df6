"""Who of a batch may start, and who of those held at their limit may have more: pure, called on every event of a batch.

The budget bounds the *limits* of all that has been admitted. Nothing is known of how long anything takes, so nothing here guesses.

The rule
 1. Grants before starts: a held job keeps memory that does nothing until it has more. Oldest ask first.
 2. Starts by age, and of one age the larger first (a large one is harder to place later, and a small one fits behind it).
 3. The oldest that does not fit is the *head*: of the asks one, of the claims one. What is younger goes first ("backfill") only
    where that cannot delay a head, whatever the order in which the admitted ones end. For a head of size H, let room = budget - H:
    it fits as soon as the rest X of the holdings has sum(X) <= room. So z may be there too if sum(X) + z <= room for *every* such X,
    that is if z <= room - M, where M is the largest sum of a subset of the holdings that is <= room. This is its *leeway*. To
    take z out of it leaves room - M - z: one subset sum is enough for any number of z. It is a bit-set: bit n of an int is
    "n can be summed up to". Places need no such care: somebody has to end before the head has its memory, and leaves a place.
 4. Who could not even fit when all had ended that end by themselves waits for something outside (a service, a person who paused
    a job): no head, it is passed over, and nothing is kept from the others for its sake. It is a head again once that has changed.
 5. When none of the asks can be met even by all running jobs' ends, held jobs wait for each other. Nothing is started then, and
    when the last that runs has ended, some give way: those with the least work to lose, and no more of them than it takes. They
    are to be started anew *with the limit they asked for*.

A job that may be paused and then ask for more (`most`) is more than its size: behind a head it is counted as it is and as large
as it may become, so that jobs which slip past a head cannot grow in its way.

Why nobody waits for ever. Say a claim H is the head from some moment on (older ones come only as retries, and attempts are
finite). Those admitted before are finitely many, ask finitely often (up to their ceilings) and end. Let Z be those that went past H and
have not ended: sum(most of Z) <= room. For when z joins, Z is one of the subsets that M is the largest of, so
sum(Z) + z <= M + z <= room. When those from before have ended, only Z is left, and H fits. For an ask as head it is the same, and
an ask that is no head (5.) is served or becomes one: no start is made, so the running ones end, then a grant or a giving way
follows.
Why giving way ends: each time a job starts anew with a larger limit; at its ceiling it never asks again. And it always
helps: somebody can be granted what they ask at once, and nobody can take it, for nothing else runs and grants come first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

from memrun.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORK, COARSEST = 1 << 21, 1 << 12  # bits that a subset sum may go over (about a tenth of a millisecond); least bits of one
ENDLESS = 1 << 62  # more than all the bytes and places there are


@dataclass(frozen=True, slots=True)
class Claim:
    """Waits to be started: for the first time, or anew with a larger limit.

    `size`: bytes of its limit; `since`: rank of its age, smaller is older; `most`: bytes that it may come to ask for while it
    runs, where that is more.
    """

    name: str
    size: int
    since: int
    most: int = 0


@dataclass(frozen=True, slots=True)
class Holding:
    """Has been admitted, and has not ended (one that has been told to end is here until its group is empty, without an ask).

    `asks`: bytes; it is held at its limit and goes on with that one, exactly (clipped by the asker to ceiling and budget).
    `since`: rank of that ask, `loss`: seconds of work that starting anew would throw away, `fixed`: ends only from outside (a
    service, or paused by a person), `firm`: must not be chosen to give way, `most`: as in a Claim.
    """

    name: str
    size: int
    asks: int | None = None
    since: int = 0
    loss: float = 0.0
    fixed: bool = False
    firm: bool = False
    most: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. `grants`: (name, bytes); `gives_way`: to be stopped and started anew with what they ask, for the reason `why`."""

    starts: tuple[str, ...] = ()
    grants: tuple[tuple[str, int], ...] = ()
    gives_way: tuple[str, ...] = ()
    why: str = ""


def order(claim: Claim) -> tuple[int, int, str]:
    """Key of the order in which `plan` wants those who wait: keep them so with bisect.insort."""
    return claim.since, -claim.size, claim.name


def plan(waiting: Sequence[Claim], holding: Sequence[Holding], budget: int | None, slots: int | None) -> Plan:
    """What may be done at once. `waiting`: in `order`; `budget`: bytes, `slots`: jobs at a time (None: no bound). Names are unique.

    The sum of the sizes of what holds, starts and is granted never exceeds the budget by anything that is decided here.
    """
    places = ENDLESS if slots is None else slots
    if budget is None:
        starts = tuple(claim.name for claim in waiting[: max(0, places - len(holding))])
        return Plan(starts, tuple((held.name, held.asks) for held in holding if held.asks is not None))
    scene = _Scene(holding, budget, places)
    scene.grant()
    gives_way = () if scene.head or not scene.asking else _least_lost(scene.asking, scene.drained)
    if not gives_way:
        scene.start(waiting)
    if scene.running or not gives_way:
        return Plan(tuple(scene.starts), tuple(scene.grants))
    return Plan((), tuple(scene.grants), tuple(held.name for held in gives_way), _why(len(scene.asking), gives_way))


class _Scene:
    """The holdings, as they become while grants and starts are chosen."""

    def __init__(self, holding: Sequence[Holding], budget: int, slots: int) -> None:
        self.budget, self.slots = budget, slots
        self.sizes = {held.name: (held.size, max(held.size, held.most)) for held in holding}
        self.free = budget - sum([held.size for held in holding])
        asks = [held for held in holding if held.asks is not None and held.asks <= budget]
        self.asking = sorted(asks, key=lambda held: (held.since, -held.size, held.name))  # and are not granted it
        ended = [held.size for held in holding if held.asks is None and not held.fixed]
        self.running = bool(ended)
        self.drained = self.free + sum(ended)  # free when all have ended that end by themselves
        self.head: Holding | None = None
        self.past_ask = ENDLESS  # bytes that may be taken without delaying that one
        self.grants: list[tuple[str, int]] = []
        self.starts: list[str] = []

    def grant(self) -> None:
        """Oldest first; again from the oldest on after each that was passed over for a younger one."""
        while (held := self._next_ask()) is not None:
            self.asking.remove(held)
            size, more = held.asks or 0, _more(held)
            self.grants.append((held.name, size))
            self.sizes[held.name] = (size, max(size, held.most))
            self.free -= more
            self.drained += -more if held.fixed else held.size
            self.running = self.running or not held.fixed
            self.past_ask -= more

    def _next_ask(self) -> Holding | None:
        """Who is granted next, and who is the head of the asks."""
        head = None
        for held in self.asking:
            if head is None:
                if _more(held) <= self.free:
                    return held
                if _more(held) <= self.drained:
                    head = held
                    if head is not self.head:
                        self.head, self.past_ask = head, self._leeway(head.asks or 0, head.name)
            elif _more(held) <= min(self.free, self.past_ask):
                return held
        self.head = head
        return None

    def start(self, waiting: Sequence[Claim]) -> None:
        """In the order given, up to the first that has to wait; then what delays neither that one nor the head of the asks."""
        # Those that are held and not head wait for something outside; with a head there is a way for all of them.
        reach = self.drained + (sum([held.size for held in self.asking if not held.fixed]) if self.head else 0)
        line = iter(waiting)
        for claim in line:
            if self.free <= 0 or self.past_ask <= 0 or len(self.sizes) >= self.slots:
                return
            if claim.size <= self.free and (self.head is None or _full(claim) <= self.past_ask):
                self._admit(claim)
            elif claim.size <= reach:
                self._backfill(line, claim)
                return

    def _backfill(self, line: Iterable[Claim], head: Claim) -> None:
        past = self._leeway(head.size)
        # One that waits for memory finds a place by the end that makes room for it; who waits only for the asks' head needs one.
        places = self.slots - len(self.sizes) - (head.size <= self.free)
        for claim in line:
            bound = min(self.free, past, self.past_ask)
            if bound <= 0 or places <= 0:
                return
            if claim.size <= bound and _full(claim) <= min(past, self.past_ask):
                self._admit(claim)
                past -= _full(claim)
                places -= 1

    def _admit(self, claim: Claim) -> None:
        self.starts.append(claim.name)
        self.sizes[claim.name] = (claim.size, _full(claim))
        self.free -= claim.size
        self.past_ask -= _full(claim)

    def _leeway(self, need: int, name: str = "") -> int:
        """Bytes that may be taken past a head that needs so many; `name`: of one that holds already."""
        room = self.budget - need
        return room - _largest([sizes for other, sizes in self.sizes.items() if other != name], room)


def _more(held: Holding) -> int:
    return (held.asks or 0) - held.size


def _full(claim: Claim) -> int:
    return max(claim.size, claim.most)


def _largest(rest: list[tuple[int, int]], room: int) -> int:
    """The largest sum <= room of some of the holdings, each as it is or as it may become; never too small.

    Exact where the sizes' common divisor is not too fine; else each size is rounded down, and each of those that can be in
    the sum counted as if it had lost a whole unit by that.
    """
    counts = Counter([sizes for sizes in rest if 0 < sizes[0] <= room])
    if not counts:
        return 0
    finest = max(COARSEST, WORK // len(counts))
    unit, lost = gcd(*[size for sizes in counts for size in sizes if size <= room]), 0
    if room // unit > finest:
        unit, lost = -(-room // finest), _how_many(rest, room)
    top = room // unit
    every, sums = (1 << top + 1) - 1, 1
    for (size, grown), count in counts.items():
        if sums >> top:
            break
        if size < grown <= room:
            for _ in range(count):
                sums |= (sums << size // unit | sums << grown // unit) & every
            continue
        left, step = min(count, room // size), 1
        while left > 0:  # 1 + 2 + 4 + ... of the same size: every number of them
            step = min(step, left)
            sums |= (sums << step * (size // unit)) & every
            left, step = left - step, step * 2
    return min(room, (sums.bit_length() - 1 + lost) * unit)


def _how_many(rest: list[tuple[int, int]], room: int) -> int:
    """The largest number of them that fits into a room."""
    for count, size in enumerate(sorted([size for size, _ in rest])):
        room -= size
        if room < 0:
            return count
    return len(rest)


def _least_lost(asking: Sequence[Holding], free: int) -> tuple[Holding, ...]:
    """Who should end so that one of the others gets what it asks; nobody if that would help nobody.

    As many as it takes, by the work lost (of equals the one that asked last first); then those are let off without whom it is
    enough, the greatest loss first.
    """
    ranked = sorted((held for held in asking if not held.firm), key=lambda held: (held.loss, -held.since, held.name))
    stay = list(asking)
    for index, held in enumerate(ranked):
        free += held.size
        stay.remove(held)
        one = min(ranked[: index + 1], key=lambda held: held.asks or 0)
        if stay and min(map(_more, stay)) <= free:
            return _without_the_needless(ranked[: index + 1], stay, free)
        if (one.asks or 0) <= free:  # it has what it asks if all before it end, but not itself
            return _without_the_needless(
                [other for other in ranked[: index + 1] if other is not one], [*stay, one], free - one.size
            )
    return ()


def _without_the_needless(ends: list[Holding], stay: list[Holding], free: int) -> tuple[Holding, ...]:
    while True:
        least = min(map(_more, stay))
        needless = next((held for held in reversed(ends) if min(least, _more(held)) <= free - held.size), None)
        if needless is None:
            return tuple(ends)
        ends.remove(needless)
        stay.append(needless)
        free -= needless.size


def _why(asking: int, gives_way: Sequence[Holding]) -> str:
    loss, whom = format_duration(sum(held.loss for held in gives_way)), "this one" if len(gives_way) == 1 else "these"
    return f"{asking} jobs are held at their limits and wait for each other's memory; {whom} had the least work to lose ({loss})"
