"""The thresholds of one run, attempt by attempt: where they are under its limit, which have been told of, and which its peak tells of afterwards.

Listening begins with the event loop, up to a tenth of a second after the command (a second on a slow machine), and v2 is looked
at rather than listened to (gauges.py): a job that has passed a mark and ended by then has passed it all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from memrun import gauges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.cgroup import Group
    from memrun.gauges import Send
    from memrun.marks import Threshold


class Thresholds:
    """`told` of each that was passed upwards; at the `end` of an attempt it is all forgotten."""

    def __init__(self, marks: Sequence[Threshold]) -> None:
        self._marks = marks
        self._told: set[int] = set()
        self._top: int | None = 0  # bytes: the largest limit of this attempt
        self._scope: trio.CancelScope | None = None

    async def listen(self, group: Group, send: Send) -> None:
        """Crossed, for as long as the group is there. Shares are of its limit, so a new limit moves them."""
        found = [
            gauges.Mark(mark.resolve(group.limit, group.swap), mark.hold, cache=mark.cache, swap=mark.swap)
            for mark in self._marks
        ]
        while True:
            self._note(group.limit)
            with trio.CancelScope() as self._scope:
                await gauges.crossings(group, found, send)
                await trio.sleep_forever()
            for one, mark in zip(found, self._marks, strict=True):
                one.move(mark.resolve(group.limit, group.swap))

    def move(self) -> None:
        """A limit is another: shares of it have to be worked out again."""
        if self._scope is not None and any(mark.follows for mark in self._marks):
            self._scope.cancel()

    def told(self, index: int) -> None:
        """That one was passed is known."""
        self._told.add(index)

    def end(self, peak: int | None, limit: int | None) -> tuple[int, ...]:
        """Which (by index) this attempt has passed without anybody's knowing, its peak (bytes) being above them. Shares are of the largest limit that it
        had, so that nothing is said that was not; and of some a peak tells nothing: it knows no duration, has page cache in it, and no swap."""
        self._note(limit)
        told, top = self._told, self._top
        self._told, self._top = set(), 0
        lines = [mark.resolve(top) if mark.cache and not (mark.hold or mark.swap) else None for mark in self._marks]
        return tuple(at for at, line in enumerate(lines) if line is not None and at not in told and (peak or 0) >= line)

    def _note(self, limit: int | None) -> None:
        self._top = None if limit is None or self._top is None else max(limit, self._top)
