"""Whether everything fits into the budget, before anything is started: who could never run is told now.

What is known only where it runs (a share of a machine that was not given) is not judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memrun.units import Share, Size, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memrun.jobfile.expand import Variant
    from memrun.jobfile.needs import Needs
    from memrun.jobfile.source import Problems
    from memrun.jobfile.tables import Head, Setting, Table


@dataclass(frozen=True, slots=True)
class Room:
    """What there is to share out. `whole`: bytes that shares are of; `budget`: bytes, None is infinity (or not known)."""

    whole: int | None
    asked: Size
    budget: int | None

    def of(self, size: Size) -> int | None:
        """Bytes; None for infinity, and for what cannot be known."""
        return (None if self.whole is None else size.of(self.whole)) if isinstance(size, Share) else size

    @property
    def said(self) -> str:
        """'the budget of 8G (80%)'."""
        share = f" ({self.asked!r})" if isinstance(self.asked, Share) else ""
        return f"the budget of {format_size(self.budget)}{share}"


def room(head: Head, whole: int | None) -> Room:
    """Of a batch on a machine of that size."""
    there = Room(whole, head.memory, None)
    return Room(whole, head.memory, there.of(head.memory))


def judge(table: Table, room: Room, problems: Problems) -> None:
    """The limits of one table against the budget and each other."""
    limit, ceiling = table.settings.get("limit"), table.settings.get("ceiling")
    if room.asked is not None and (limit is None or limit.value is None):
        _unlimited(table, limit, problems)
        return
    if limit is None:
        return
    size, most = room.of(limit.value), room.of(ceiling.value) if ceiling else None  # type: ignore[arg-type]
    if size is not None and room.budget is not None and size > room.budget:
        _say(table, limit, f"{format_size(size)} is more than {room.said}: it could never run", problems)
    if size is not None and most is not None and most < size and ceiling is not None:
        _say(table, ceiling, f"{format_size(most)} is less than the limit of {format_size(size)}", problems)
    elif most is not None and room.budget is not None and most > room.budget and ceiling is not None:
        problems.note(ceiling.source, ceiling.path, f"{format_size(most)} is more than {room.said}, where growing will end")


def _unlimited(table: Table, limit: Setting | None, problems: Problems) -> None:
    if "limit" in table.spoilt:
        return
    if limit is None:
        said = 'is needed: jobs share the memory of [batch] by their limits. For jobs without, [batch] memory = "infinity"'
        problems.add(table.source, table.path("limit"), said)
    else:
        _say(table, limit, 'infinity never fits into a budget. For jobs without a limit, [batch] memory = "infinity"', problems)


def _say(table: Table, setting: Setting, what: str, problems: Problems) -> None:
    """At the job where it says so itself; where its defaults do, there, with the job's name."""
    own = setting.path[0] == "jobs"
    problems.add(setting.source, setting.path, what if own else f"{what} (jobs.{table.name})")


def beside_services(
    batch: Sequence[Variant], services: Sequence[Variant], found: Mapping[str, Needs], room: Room
) -> list[tuple[Table, str]]:
    """(table, what is wrong) for jobs that cannot run because services hold too much for good. Those that a service waits
    for run before it."""
    if room.budget is None or not services:
        return []
    held = {service.name: _size(service, room) for service in services}
    total = sum(held.values())
    if total > room.budget:
        said = f"the services together hold {format_size(total)}, which is more than {room.said}"
        return [(services[0].table, said)]
    before = {service.name: _before(service.name, found) for service in services} if batch else {}
    wrong: dict[str, tuple[Table, str]] = {}
    for variant in batch:
        size = _size(variant, room)
        if size + total <= room.budget or size > room.budget or variant.table.name in wrong:
            continue
        beside = sum(its for name, its in held.items() if variant.name not in before[name])
        if size + beside > room.budget:
            left = f"{format_size(room.budget - beside)} of {room.said}"
            said = f"{format_size(size)} can never fit: the services hold {format_size(beside)}, which leaves {left}"
            wrong[variant.table.name] = (variant.table, said)
    return list(wrong.values())


def _size(variant: Variant, room: Room) -> int:
    limit = variant.table.settings.get("limit")
    return 0 if limit is None else room.of(limit.value) or 0  # type: ignore[arg-type]


def _before(name: str, found: Mapping[str, Needs]) -> set[str]:
    """Everything that has to come before a job."""
    seen: set[str] = set()
    rest = [name]
    while rest:
        for need in found.get(rest.pop(), ()):
            if need.job not in seen:
                seen.add(need.job)
                rest.append(need.job)
    return seen
