"""Who waits for whom: `depends_on` of tables -> Needs of jobs, and an order in which everything can be done.

A word names one job (`align[sample=a]`), a whole table (`align`), or all jobs of a table that have these values (`align[sample=a]` of a
matrix with more variables). With the variables of the job that waits in it, `align[sample={sample}]`, it is another one for each job;
it is taken apart before they are filled in, so that values may hold commas and brackets.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memrun.errors import UsageError
from memrun.jobs import Need
from memrun.options import nearest
from memrun.templates import fill, mistyped, words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from memrun.jobfile.expand import Value, Variant
    from memrun.jobfile.source import Problems
    from memrun.jobfile.tables import Table

MOST_NEEDS = 1_000_000  # in all: each is looked at when a job ends
SELECTED = re.compile(r"([^\[]*)\[(.*)\]", re.DOTALL)
Needs = tuple[Need, ...]


@dataclass(slots=True)
class Directory:
    """All jobs, to be found by name, by table, and by their values. `declared`: tables that are there, though perhaps wrong."""

    tables: dict[str, list[Variant]]
    declared: Collection[str]
    names: dict[str, Variant] = field(default_factory=dict)
    hints: int = 20  # each looks at every name, and nobody reads more
    index: dict[str, dict[tuple[str, str], set[int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = {variant.name: variant for some in self.tables.values() for variant in some}

    def find(self, word: str, variables: Mapping[str, str] | None = None) -> list[Variant]:
        """The jobs that a word means, for a job with these variables. Empty: there are none."""
        known = variables or {}
        filled = fill(word, known)
        if filled in self.names:
            return [self.names[filled]]
        if filled in self.tables:
            return self.tables[filled]
        match = SELECTED.fullmatch(word)
        if match is None:
            return []
        table, parts = fill(match[1], known).strip(), match[2].split(",")
        return self._having(table, [_pair(part, known) for part in parts]) if table in self.tables else []

    def _having(self, table: str, pairs: Iterable[tuple[str, str]]) -> list[Variant]:
        if table not in self.index:
            self.index[table] = _index(self.tables[table])
        chosen = set.intersection(*(self.index[table].get(pair, set()) for pair in pairs))
        return [self.tables[table][number] for number in sorted(chosen)]

    def like(self, word: str) -> str:
        """What was meant, perhaps."""
        self.hints -= 1
        if self.hints < 0:
            return ""
        table = word.partition("[")[0]
        if table in self.tables and "[" in word:
            names = [variant.name for variant in self.tables[table]]
            return nearest(word, names) or f"There is {names[0]}" if names else ""
        names = sorted(self.declared)
        return nearest(word, names) or f"Known are {', '.join(names[:20])}{' ...' if len(names) > 20 else ''}"


def _pair(part: str, variables: Mapping[str, str]) -> tuple[str, str]:
    key, equals, value = part.partition("=")
    return (fill(key, variables).strip(), fill(value, variables).strip()) if equals else ("", fill(part, variables).strip())


def _index(some: Sequence[Variant]) -> dict[tuple[str, str], set[int]]:
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, variant in enumerate(some):
        for value in variant.values:
            for text in _texts(value):
                found[value.key, text].add(number)
    return dict(found)


def _texts(value: Value) -> set[str]:
    return {value.raw.strip(), value.shown.removeprefix(f"{value.key}=" if value.key else ""), *value.variables.values()}


def needs(directory: Directory, services: Collection[str], problems: Problems) -> dict[str, Needs]:
    """What each job waits for, by its name. `services`: names of tables."""
    found: dict[str, Needs] = {}
    total = 0
    for some in directory.tables.values():
        if not some:
            continue
        table = some[0].table
        asked = _asked(table)
        alone = not any(words(word) for word, _ in asked)
        _mistyped(some[0], asked, problems)
        shared: Needs | None = None
        for variant in some:
            if shared is None or not alone:
                shared = _needs(variant, asked, directory, problems)
                _not_of_services(table, shared, directory, services, problems)
            found[variant.name] = shared
            total += len(shared)
        if total > MOST_NEEDS:
            problems.add(
                table.source, table.path("depends_on"), f"makes more than {MOST_NEEDS} dependencies: put a job in between"
            )
            return {}
    return found


def _asked(table: Table) -> list[tuple[str, str]]:
    given = table.raw.get("depends_on", [])
    if isinstance(given, dict):
        return list(given.items())
    return [(str(word), "succeeded") for word in (given if isinstance(given, list) else [given])]


def _mistyped(variant: Variant, asked: Sequence[tuple[str, str]], problems: Problems) -> None:
    for word, meant in mistyped([word for word, _ in asked], variant.variables):
        variant_path = variant.table.path("depends_on")
        problems.add(variant.table.source, variant_path, f"{{{word}}} is no variable here. Did you mean {{{meant}}}?")


def _needs(variant: Variant, asked: Sequence[tuple[str, str]], directory: Directory, problems: Problems) -> Needs:
    found: dict[str, Need] = {}
    for word, until in asked:
        chosen = directory.find(word, variant.variables)
        table = fill(word, variant.variables).partition("[")[0]
        broken = table in directory.declared and not directory.tables.get(table)
        if not chosen and not broken:
            filled = fill(word, variant.variables)
            said = str(UsageError(f"there is no job {filled!r}", directory.like(filled)))
            problems.add(variant.table.source, variant.table.path("depends_on"), said)
        found |= {other.name: Need(other.name, until) for other in chosen}
    return tuple(found.values())


def _not_of_services(table: Table, found: Needs, directory: Directory, services: Collection[str], problems: Problems) -> None:
    for need in found:
        name = directory.names[need.job].table.name
        if name in services and need.until != "started":
            said = f'{name} is a service (restart = "always"), which does not end. Write {{ {name} = "started" }}'
            problems.add(table.source, table.path("depends_on"), said)


def ordered(found: Mapping[str, Needs]) -> tuple[list[str], list[str]]:
    """(names in an order that respects the needs, names that no order can hold). Where there is a choice, as in the file."""
    left = {name: len(needs) for name, needs in found.items()}
    after: dict[str, list[str]] = defaultdict(list)
    for name, its in found.items():
        for need in its:
            after[need.job].append(name)
    ready = [name for name, count in left.items() if not count]
    done: list[str] = []
    for name in ready:  # it grows meanwhile
        done.append(name)
        for other in after[name]:
            left[other] -= 1
            if not left[other]:
                ready.append(other)
    return done, [name for name, count in left.items() if count]


def circles(found: Mapping[str, Needs], directory: Directory, problems: Problems) -> None:
    """A problem for each circle, said once for the tables that it goes through."""
    seen: set[frozenset[str]] = set()
    rest = dict(found)
    for _ in range(20):
        stuck = set(ordered(rest)[1])
        if not stuck:
            return
        circle = _circle({name: rest[name] for name in rest if name in stuck})
        tables = frozenset(directory.names[name].table.name for name in circle)
        if tables not in seen:
            table = directory.names[circle[0]].table
            said = f"goes in a circle: {' -> '.join([*circle, circle[0]])}"
            problems.add(table.source, table.path("depends_on"), said)
        seen.add(tables)
        rest = {name: its for name, its in rest.items() if directory.names[name].table.name not in tables}
        rest = {name: tuple(need for need in its if need.job in rest) for name, its in rest.items()}


def _circle(stuck: Mapping[str, Needs]) -> list[str]:
    """One, beginning with the job that comes first in the file."""
    at = next(iter(stuck))
    path: dict[str, None] = {}
    while at not in path:
        path[at] = None
        at = next(need.job for need in stuck[at] if need.job in stuck)
    circle = list(path)[list(path).index(at) :]
    first = circle.index(min(circle, key=list(stuck).index))
    return circle[first:] + circle[:first]
