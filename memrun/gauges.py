"""Thresholds on memory use, and memory pressure: what gauge.py's ears hear -> events.

A mark has two lines: it is passed upwards at `at`, and downwards a little below (2 %, at least 1 MiB, at most an eighth), so that
a job which trembles about a mark is told of once.

v1: the kernel has thresholds. Both lines of each mark are registered, and nothing here wakes up between them.

v2: it has none (its documentation of 2026 lists none still). What there is instead, and what was chosen:

 - memory.high as a ladder (set to the next mark, moved on at the event) is exact and free, but upwards only, reclaims
   page cache at each rung, and memory.high has an owner already: the trip wire of a pause.
 - PSI tells of waiting, not of growing.
 - A timer that sleeps longer the farther away the nearest mark is. The job cannot get there sooner than distance / speed; speed is
   taken as 256 MiB/s, or twice what it was just seen to do if that is more. Between 20 ms and 2 s. A look in which nothing
   has grown makes the next sleep half as long again, up to 2 s, so that a job which computes just below a mark is looked at 30
   times a minute, not 3000.
 - Idle (less than 0.2 % of a CPU since the last look, and no growth) there is nothing to look at: the group's CPU clock wakes us when
   the job has run for 2 ms again (perf_event_open, see gauge.Stir), so that there are no wake-ups at all. Where that is not
   allowed (it takes CAP_PERFMON), the sleep doubles with each look up to a minute: late by at most as long as the job had
   been idle. Touching the limit or the trip wire wakes us in any case.

Measured in 15 s with a mark at 80 %: idle no wake-up at all, on v1 (6.18) and on v2 (6.1, 2 emulated CPUs, perf); v1 beside a
job that computes far below its mark: 3.

A mark that page cache does not count for (`cache` False) is compared with need, use minus page cache. Need is never more than use, so
need is only read (it is dearer: memory.stat) when use has passed the mark. As use may stand there, full of cache, while need
grows, the timer is on in that state, on v1 too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import events
from memrun.cgroup import gauge
from memrun.errors import GroupError
from memrun.units import whole_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memrun.cgroup import Group

    Send = Callable[[events.Event], None]

MIB = 1 << 20
NEVER = float("inf")
SHORTEST, LONGEST, IDLE_LONGEST = 0.02, 2.0, 60.0  # seconds between looks
COALESCE = 0.005  # seconds between looks that the kernel asks for
SPEED = 256 * MIB  # bytes a second
FALLING = 4  # times as slow: nobody is in danger on the way down
GROWTH = 256 << 10  # bytes: one charge batch of a CPU is no growth
STILL = 0.002  # share of a CPU that is called idle
STIRRED = 0.0001, 0.002  # seconds of CPU after which it is not idle any more: at least, at most
FASTEST = 8 << 30  # bytes a second of CPU: what huge pages reach
PRESSED_EVERY = 1.0  # seconds


class Mark:
    """One threshold, and where the job stands against it. `at`: bytes, None is never; `hold`: seconds above until it counts.

    `cache` False: page cache does not count; `swap` True: what is swapped out does. It keeps what was told: after a new limit, `move` it and listen again.
    """

    __slots__ = ("at", "cache", "hold", "since", "swap", "told")

    def __init__(self, at: int | None, hold: float = 0.0, *, cache: bool = True, swap: bool = False) -> None:
        self.hold, self.cache, self.swap = hold, cache, swap
        self.move(at)
        self.since: float | None = None  # above since then
        self.told = False

    @property
    def low(self) -> int:
        """Bytes below which it has been passed downwards."""
        at = self.at or 0
        return at - min(max(MIB, at // 50), at // 8)

    def move(self, at: int | None) -> None:
        """The limit has changed, and the mark with it."""
        self.at: int | None = None if at is None else whole_pages(at)  # the kernel compares pages

    def step(self, now: float, value: int) -> bool | None:
        """True: passed upwards (and held); False: downwards; None: nothing new."""
        if self.at is None or value < (self.at if self.since is None else self.low):
            was, self.told, self.since = self.told, False, None
            return False if was else None
        if self.since is None:
            self.since = now
        if self.told or now < self.since + self.hold:
            return None
        self.told = True
        return True

    @property
    def due(self) -> float:
        """When a hold ends."""
        return NEVER if self.told or self.since is None else self.since + self.hold

    def distance(self, value: int) -> int:
        """Bytes to the line that is next."""
        if self.at is None:
            return 1 << 62
        return self.at - value if self.since is None else (value - self.low) * FALLING


class Rule:
    """Which pressure to listen for: low, medium or critical; default, hierarchy or local."""

    __slots__ = ("level", "mode")

    def __init__(self, level: str, mode: str = "default") -> None:
        self.level, self.mode = level, mode


class Pace:
    """How long until the next look. Figures come in, seconds go out."""

    __slots__ = ("distance", "ease", "idle", "pulse", "time", "usage")

    def __init__(self) -> None:
        self.time, self.usage, self.pulse = 0.0, 0, -1
        self.ease = SHORTEST
        self.distance = 0
        self.idle = False  # nothing was done between the last two looks

    def next(self, now: float, usage: int, pulse: int, distance: int) -> float:
        """Seconds; `pulse` is microseconds of work so far, `distance` bytes to the nearest line."""
        passed, grown = now - self.time, usage - self.usage
        first, slept = self.pulse < 0, self.idle
        self.idle = not first and abs(grown) < GROWTH and pulse - self.pulse <= passed * 1e6 * STILL
        speed = SPEED if first or passed <= 0 else max(SPEED, 2 * abs(grown) / passed)
        wanted = min(max(distance / speed, SHORTEST), LONGEST)
        if self.idle:
            self.ease = min(max(self.ease * 2, wanted), IDLE_LONGEST)
        elif grown < GROWTH and not (first or slept):
            self.ease = min(max(self.ease * 1.5, wanted), LONGEST)
        else:
            self.ease = wanted
        self.time, self.usage, self.pulse, self.distance = now, usage, pulse, distance
        return self.ease

    @property
    def budget(self) -> float:
        """Seconds of CPU that an idle job may use before somebody must look."""
        return min(max(self.distance / FASTEST, STIRRED[0]), STIRRED[1])


async def crossings(group: Group, marks: Sequence[Mark], send: Send) -> None:
    """Crossed for each mark passed, until the group is gone (v2: or empty). A mark that is above at the start has been passed upwards."""
    if not any(mark.at is not None for mark in marks):
        return
    try:
        ears = _Ears(group, marks)
    except GroupError as e:
        if e.errno in gauge.GONE:
            return
        raise
    try:
        while True:
            began = trio.current_time()
            await ears.wait(ears.look(send))
            ears.ear.take()
            if isinstance(ears.ear, gauge.Stir) and ears.ear.empty:
                ears.look(send)  # the last: what it had is given back, and nobody is left to take more
                return
            await trio.sleep_until(began + COALESCE)  # a storm of notices is one look
    except GroupError as e:
        if e.errno not in gauge.GONE:
            raise
    finally:
        ears.close()


class _Ears:
    """What listens to one group for `crossings`."""

    def __init__(self, group: Group, marks: Sequence[Mark]) -> None:
        self.group, self.marks = group, marks
        self.ear: gauge.Lines | gauge.Stir | gauge.Beat
        if (beats := group.beats()) >= 0:
            self.ear = gauge.Beat(beats)
        elif group.version == "v1":
            lines = [(line, mark.swap) for mark in marks if mark.at is not None for line in (mark.at, mark.low)]
            self.ear = gauge.Lines(group.path, lines)
        else:
            self.ear = gauge.Stir(group.path)
        self.pace = Pace()
        try:
            self.pulse = self.ear if isinstance(self.ear, gauge.Beat) else gauge.Pulse(group.path, group.version)
        except GroupError:
            self.ear.close()
            raise

    def close(self) -> None:
        self.ear.close()
        self.pulse.close()

    def look(self, send: Send) -> float:
        """Send what is new; returns how long nothing else can be (seconds)."""
        exact = isinstance(self.ear, gauge.Lines | gauge.Beat)
        now = trio.current_time()
        usage = self.group.usage()
        swapped = self.group.swapped() if any(mark.swap for mark in self.marks) else 0
        cache = 0
        if any(not mark.cache and mark.at is not None and usage + swapped * mark.swap >= mark.low for mark in self.marks):
            cache = max(0, usage - self.group.need())
        timed = []
        for index, mark in enumerate(self.marks):
            full = usage + swapped * mark.swap
            value = full if mark.cache else full - cache
            passed = mark.step(now, value)
            if passed is not None:
                send(events.Crossed(now, index, passed))
            if mark.at is not None and (not exact or (not mark.cache and full >= mark.low)):
                timed.append(max(0, mark.distance(value)))
        held = min(mark.due for mark in self.marks) - now
        if not timed:
            return held
        return min(held, self.pace.next(now, usage + swapped - cache, self.pulse.read(), min(timed)))

    async def wait(self, seconds: float) -> None:
        """Until then, or until the kernel has news."""
        exact = isinstance(self.ear, gauge.Lines | gauge.Beat)
        if isinstance(self.ear, gauge.Stir) and self.pace.idle and self.ear.arm(self.pace.budget):
            seconds = min(mark.due for mark in self.marks) - trio.current_time()
        if exact or self.pace.idle:
            with trio.move_on_after(max(0, seconds)):
                await trio.lowlevel.wait_readable(self.ear.fd)
        else:  # what memory.events has to say of a busy job is not worth a hundred wake-ups a second
            await trio.sleep(max(0, seconds))


async def pressures(group: Group, rules: Sequence[Rule], send: Send) -> None:
    """Pressed for each rule, at most once a second, until the group is gone. MemrunError where the kernel cannot tell."""
    ears: list[gauge.Counter | gauge.Psi] = []
    try:
        ears.extend(gauge.pressure(group.path, group.version, rule.level, rule.mode) for rule in rules)
    except GroupError as e:
        if e.errno not in gauge.GONE:
            raise
    else:
        async with trio.open_nursery() as nursery:
            for index, ear in enumerate(ears):
                nursery.start_soon(_pressure, group.path, index, ear, send)
    finally:
        for ear in ears:
            ear.close()


async def _pressure(path: str, index: int, ear: gauge.Counter | gauge.Psi, send: Send) -> None:
    while True:
        await trio.lowlevel.wait_readable(ear.fd)
        if gauge.gone(path):
            return
        send(events.Pressed(trio.current_time(), index))
        await trio.sleep(PRESSED_EVERY)
        ear.take()  # what came meanwhile is the same pressure; where it goes on, there is more
