"""Who of a batch waits for whom: whether what a job needs has come true, or never can. Looks, changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.batch.entries import Entry
    from memrun.jobs import Need


def met(need: Need, entries: Mapping[str, Entry]) -> bool:
    """Whether the other job has got so far. One that is not in the file any more holds up nobody."""
    other = entries.get(need.job)
    if other is None:
        return True
    if need.until == "started":
        return other.started or (other.outcome is not None and other.outcome.before)
    return other.outcome is not None and (need.until == "finished" or other.outcome.ok)


def hopeless(entry: Entry, entries: Mapping[str, Entry]) -> str:
    """Why it can never start; '' where it can."""
    if entry.stopped:
        return "it was stopped before it could start"
    for need in entry.job.needs:
        other = entries.get(need.job)
        if other is not None and other.outcome is not None and not met(need, entries):
            return f"it needs {need.job}, which ended as {other.outcome.result}"
    return ""
