"""A job file: TOML text -> the frozen values of memrun/jobs.py, or every problem that it has, at once.

The order of work: read the file and what it includes (source), hold it against the schema and convert its values (schema, tables), make
jobs of tables (expand), find out who waits for whom (needs), see whether everything fits (fit), and put the jobs together (assemble).
Each step takes what the one before could make sense of, so that one mistake hides no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memrun.errors import UsageError
from memrun.jobfile import assemble, expand, fit, needs
from memrun.jobfile.schema import schema
from memrun.jobfile.source import Problems, read_all
from memrun.jobfile.tables import tables
from memrun.jobs import Batch, Job
from memrun.units import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from memrun.jobfile.expand import Variant
    from memrun.jobfile.source import Source
    from memrun.jobfile.tables import Head, Table

__all__ = ["Loaded", "examine", "load", "schema"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A batch, what is worth knowing about it, its budget in bytes (None: infinity, or not known), and what percentages are of."""

    batch: Batch
    notes: tuple[str, ...]
    budget: int | None
    whole: int | None


def load(path: str, *, only: Sequence[str] = (), whole: int | None = None) -> Batch:
    """The jobs of a file; of `only`: these (names, tables) and what they wait for. `whole`: bytes that percentages are of.

    JobFileError holds every problem; UsageError is about `only`.
    """
    return examine(path, only=only, whole=whole).batch


def examine(path: str, *, only: Sequence[str] = (), whole: int | None = None) -> Loaded:
    """The same, with notes."""
    problems = Problems()
    sources = read_all(path, problems)
    _not_too_many(sources, problems)
    head, found = tables(sources, problems)
    room = fit.room(head, whole)
    if room.budget is not None and whole is not None and room.budget > whole:
        problems.note(
            head.source, ("batch", "memory"), f"{format_size(room.budget)} is more than the {format_size(whole)} that there are"
        )
    for table in found:
        fit.judge(table, room, problems)
    directory = needs.Directory(_expanded(found, problems), _declared(sources))
    if not directory.declared and not problems.found:
        problems.add(sources[0], (), "holds no job: [jobs.NAME] is missing")
    waits = _needs(directory, problems)
    _fit(directory, waits, room, head, problems)
    jobs = _assembled(directory, waits, problems)
    problems.check()
    chosen = _chosen(jobs, only, directory, path)
    batch = Batch(sources[0].path, tuple(chosen), head.memory, head.parallel, head.on_failure)
    return Loaded(batch, tuple(problems.notes), room.budget, whole)


def _not_too_many(sources: Sequence[Source], problems: Problems) -> None:
    number = len(_declared(sources))
    if number > expand.MOST_JOBS:
        problems.add(sources[0], (), f"holds {number} jobs: there may be {expand.MOST_JOBS} in all")
        problems.check()


def _declared(sources: Sequence[Source]) -> list[str]:
    return [name for source in sources if isinstance(jobs := source.document.get("jobs"), dict) for name in jobs]


def _expanded(found: Sequence[Table], problems: Problems) -> dict[str, list[Variant]]:
    left = expand.MOST_JOBS
    by_table: dict[str, list[Variant]] = {}
    for table in found:
        some = expand.variants(table, left, problems)
        left -= len(some)
        by_table[table.name] = some
        if some and "command" in table.raw:
            assemble.look_at_templates(some[0], problems)
    return by_table


def _needs(directory: needs.Directory, problems: Problems) -> dict[str, needs.Needs]:
    services = {name for name, some in directory.tables.items() if some and assemble.is_service(some[0].table)}
    waits = needs.needs(directory, services, problems)
    needs.circles(waits, directory, problems)
    return waits


def _fit(directory: needs.Directory, waits: Mapping[str, needs.Needs], room: fit.Room, head: Head, problems: Problems) -> None:
    everyone = list(directory.names.values())
    services = [variant for variant in everyone if assemble.is_service(variant.table)]
    batch = [variant for variant in everyone if not assemble.is_service(variant.table)]
    for table, what in fit.beside_services(batch, services, waits, room):
        problems.add(table.source, table.path("limit"), what)
    if head.parallel is not None and len(services) + bool(batch) > head.parallel:
        said = f"{head.parallel} at a time are all taken by the services ({len(services)}), which do not end"
        problems.add(head.source, ("batch", "parallel"), said)


def _assembled(directory: needs.Directory, waits: Mapping[str, needs.Needs], problems: Problems) -> list[Job]:
    jobs = []
    for order, variant in enumerate(directory.names.values()):
        if "command" not in variant.table.raw:
            continue
        try:
            jobs.append(assemble.job(variant, order, waits.get(variant.name, ())))
        except UsageError as e:
            problems.add(variant.table.source, variant.table.path(), f"{e} ({variant.name})")
    return jobs


def _chosen(jobs: Sequence[Job], only: Sequence[str], directory: needs.Directory, path: str) -> list[Job]:
    """Those that were asked for and, in turn, what they wait for."""
    if not only:
        return list(jobs)
    by_name = {job.name: job for job in jobs}
    rest: list[str] = []
    for word in only:
        found = directory.find(word)
        if not found:
            raise UsageError(f"there is no job {word!r} in {path}", directory.like(word))
        rest += [variant.name for variant in found]
    wanted: set[str] = set()
    while rest:
        name = rest.pop()
        if name not in wanted:
            wanted.add(name)
            rest += [need.job for need in by_name[name].needs]
    return [job for job in jobs if job.name in wanted]
