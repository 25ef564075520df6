"""How a job's use of memory went, in a few characters. Pure.

Points are MOST at the most: when there is one more, each two become their larger one, and the next are taken half as often. So a run of a
second and one of a week cost the same room, and the wake-ups for it get rarer by themselves: 60 in the first 3 seconds, 30
for each doubling after that (some 370 in an hour's run).
A point is the use at its time, or the kernel's peak where that has risen since the point before: no record is missed between
two points, however short it was.
"""

from __future__ import annotations

MOST = 60
BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*%#"


class Curve:
    """`gap`: seconds to the next point."""

    __slots__ = ("_peak", "gap", "points")

    def __init__(self) -> None:
        self.points = [0]  # before it began
        self.gap = 0.05
        self._peak = 0

    def add(self, use: int, peak: int | None) -> None:
        """One more point. `peak` since the attempt's beginning, None where the kernel does not tell."""
        if peak is not None:
            use, self._peak = (max(use, peak) if peak > self._peak else use), peak
        self.points.append(use)
        if len(self.points) >= MOST:
            self.points = [max(self.points[at : at + 2]) for at in range(0, MOST, 2)]
            self.gap *= 2


def drawn(points: list[int], top: int, *, plain: bool = False) -> str:
    """A character for each; `top`: where the highest one is full."""
    marks = PLAIN if plain else BLOCKS
    return "".join(marks[min(len(marks) - 1, point * len(marks) // max(1, top))] for point in points)
