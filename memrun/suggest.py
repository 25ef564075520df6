"""What limit to give the next run, made of what earlier ones used. Pure.

- A success below its limit shows what the job needs: its peak. A fifth on top, because the next input is not the last one.
- A success right at its limit shows that this limit is enough (what the kernel took back meanwhile was page cache), and nothing more: with a
  fifth on top, whoever follows the advice would be told a larger limit after every run of a job that reads many files.
- A kill at a limit that no success went beyond shows that this one is too small, not by how much: half of it again is a guess, and called one.

Only the latest runs count: a program that was mended should not be paid for for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memrun.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Run = Mapping[str, object]

LATEST = 30  # runs that are looked at
MARGIN = 1.2
BEYOND = 1.5  # from a limit that was too small
CLOSE = 0.97  # of the limit: a peak above this is at it (charges come in batches)
DEADLY = frozenset({"oom-kill", "patience", "exhausted"})


@dataclass(frozen=True, slots=True)
class Advice:
    """`limit`: bytes. `why`: lines for people."""

    limit: int
    why: tuple[str, ...]


def suggest(runs: Sequence[Run]) -> Advice | None:
    """From the runs of one job, oldest first; None where they tell nothing (none came to an end, or no kernel told a peak)."""
    latest = runs[-LATEST:]
    good = [run for run in latest if run.get("result") == "success" and _size(run, "peak")]
    peaks = [_size(run, "peak") for run in good if not _is_tight(run)]
    tight = [_size(run, "limit") for run in good if _is_tight(run)]
    deaths = [_size(run, "limit") for run in latest if run.get("result") in DEADLY and _size(run, "limit")]
    beyond = max([*peaks, *tight], default=0)
    killed = max((limit for limit in deaths if limit >= beyond), default=0)
    size = max(max(peaks, default=0) * MARGIN, max(tight, default=0), killed * BEYOND)
    if not size:
        return None
    lines = [_good(latest, [_size(run, "peak") for run in good])] if good else []
    if deaths:
        lines.append(f"{len(deaths)} ran out of memory, at {_span(deaths)}")
    if killed:
        lines.append(f"how much more than {format_size(killed)} it needs, no run has shown: half of that again is a guess")
    elif tight:
        lines.append(f"{len(tight)} went well right at the limit, so some of that is page cache, and less may do")
    return Advice(round_up(int(size)), tuple(lines))


def _good(latest: Sequence[Run], peaks: list[int]) -> str:
    since = str(latest[0].get("started") or "")[:10]
    some = f"{len(peaks)} of {len(latest)} runs" if len(latest) > 1 else "the only run"
    return f"{some}{f' since {since}' if since else ''} succeeded, with a peak of {_span(peaks)}"


def _span(sizes: list[int]) -> str:
    low, high = format_size(min(sizes)), format_size(max(sizes))
    return high if low == high else f"{low} to {high}"


def _is_tight(run: Run) -> bool:
    limit = _size(run, "limit")
    return limit > 0 and _size(run, "peak") >= limit * CLOSE


def _size(run: Run, key: str) -> int:
    """Bytes; 0 where that is not known, or infinite."""
    value = run.get(key)
    return max(0, value) if isinstance(value, int) else 0


def round_up(size: int) -> int:
    """To what a person would write: a whole number of M below 100M, of 10M below 1G, of 100M below 10G, then of G."""
    mega, giga = 1 << 20, 1 << 30
    step = mega if size < 100 * mega else 10 * mega if size < giga else 100 * mega if size < 10 * giga else giga
    return max(mega, -(-size // step) * step)
