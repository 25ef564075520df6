"""One table, many jobs: matrix, array and foreach, and the names that the jobs get.

The three combine as a product, in that order, the last varying fastest. `matrix` is GitHub's: every combination, less those that
any table of its `exclude` matches (a part of a combination is enough).

A name becomes a directory of the kernel, a file of a log, a word on a command line: `align[sample=a,3]`. So values are shown with only
letters, digits and ._-@:+ in it; what is thereby the same, or too long, ends in a part of its hash. The bound of 128 bytes leaves
room for what is put behind it where 255 is the most ('.7' of an attempt, '.log.3' of a log).
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
import os
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memrun.errors import JobFileError, UsageError
from memrun.jobfile.source import read_text
from memrun.jobfile.tables import as_text
from memrun.options import nearest
from memrun.templates import LATER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memrun.jobfile.source import Problems
    from memrun.jobfile.tables import Table

MOST_JOBS = 10_000  # of one file with all that it includes
LONGEST = 128  # bytes of a job's name
LONGEST_VALUE = 48  # characters of one value in it
ALWAYS = ("job", "here", *LATER)  # variables that every job has
WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
RANGE = re.compile(r"\s*(\d{1,9})(?:\s*-\s*(\d{1,9})(?:\s*:\s*(\d{1,9}))?)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Value:
    """One value on one axis: `key` is '' for arrays and foreach; `shown` stands in the job's name, `variables` in templates."""

    key: str
    raw: str
    shown: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Variant:
    """One job of a table."""

    table: Table
    name: str
    values: tuple[Value, ...]
    variables: Mapping[str, str]


class _Wrong(Exception):  # noqa: N818  (goes no further than this room)
    """(key or keys, what is wrong)."""


def variants(table: Table, left: int, problems: Problems) -> list[Variant]:
    """All jobs of a table; with a problem and none where it makes no sense, or there are more than `left`."""
    try:
        axes = [*_matrix(table), *_array(table), *_foreach(table)]
        _count(axes, left)
        chosen = _without(table, itertools.product(*axes), problems)
    except _Wrong as e:
        keys, what = e.args
        problems.add(table.source, table.path(*keys), what)
        return []
    named = _names(table.name, chosen)
    return [Variant(table, name, values, _variables(table, name, values)) for name, values in zip(named, chosen, strict=True)]


def _count(axes: Sequence[Sequence[Value]], left: int) -> None:
    number = math.prod(len(axis) for axis in axes)
    if number > left:
        raise _Wrong((), f"makes {number} jobs: there may be {MOST_JOBS} in all")


def _variables(table: Table, name: str, values: Sequence[Value]) -> dict[str, str]:
    found = {"job": name, "here": table.source.folder}
    for value in values:
        found |= value.variables
    return found


def _matrix(table: Table) -> list[list[Value]]:
    axes = []
    taken = {*ALWAYS, "include", *(("index",) if "array" in table.raw else ())}
    taken |= {"item", "name", "stem"} if "foreach" in table.raw else set()
    for key, values in _given(table).items():
        if not WORD.fullmatch(key) or key in taken:
            why = "has a meaning of its own here" if key in taken else "is not a variable: letters, digits and _"
            raise _Wrong(("matrix", key), why)
        texts = [as_text(value) for value in values]
        _no_doubles(("matrix", key), texts)
        shown = _distinct(texts, texts)
        axes.append([Value(key, text, f"{key}={name}", {key: text}) for text, name in zip(texts, shown, strict=True)])
    return axes


def _given(table: Table) -> dict[str, list[object]]:
    """The variables of the matrix."""
    matrix: Mapping[str, list[object]] = table.raw.get("matrix", {})  # type: ignore[assignment]
    if matrix and set(matrix) == {"exclude"}:
        raise _Wrong(("matrix",), "has no variable")
    return {key: values for key, values in matrix.items() if key != "exclude"}


def _no_doubles(keys: tuple[str, ...], texts: Sequence[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        if "\0" in text:
            raise _Wrong(keys, "holds a NUL byte")
        if text in seen:
            raise _Wrong(keys, f"holds {text!r} twice")
        seen.add(text)


def _without(table: Table, combinations: Iterable[tuple[Value, ...]], problems: Problems) -> list[tuple[Value, ...]]:
    """Those that no table of `exclude` matches."""
    found = list(combinations)
    excluded: list[dict[str, object]] = table.raw.get("matrix", {}).get("exclude", [])  # type: ignore[attr-defined]
    known = _given(table)
    for partial in excluded:
        for key in partial:
            if key not in known:
                raise _Wrong(("matrix", "exclude"), str(UsageError(f"{key!r} is no variable of the matrix", nearest(key, known))))
        wanted = {(key, as_text(value)) for key, value in partial.items()}
        kept = [values for values in found if not wanted <= {(value.key, value.raw) for value in values}]
        if len(kept) == len(found):
            problems.note(table.source, table.path("matrix", "exclude"), f"{_said(partial)} excludes nothing")
        found = kept
    if not found:
        raise _Wrong(("matrix", "exclude"), "leaves no combination")
    return found


def _said(partial: Mapping[str, object]) -> str:
    return ",".join(f"{key}={as_text(value)}" for key, value in partial.items())


def _array(table: Table) -> list[list[Value]]:
    given = table.raw.get("array")
    if given is None:
        return []
    numbers = [int(number) for number in given] if isinstance(given, list) else _numbers(str(given))
    texts = [str(number) for number in numbers]
    if not texts or any(number < 0 for number in numbers):
        raise _Wrong(("array",), "holds no number" if not texts else "holds a number below 0")
    _no_doubles(("array",), texts)
    return [[Value("", text, text, {"index": text}) for text in texts]]


def _numbers(text: str) -> list[int]:
    """'1-100', '1-9:2', '1,3,5', and such with commas between."""
    found: list[int] = []
    for part in text.split(","):
        match = RANGE.fullmatch(part)
        if match is None:
            slurm = "; for how many at a time there is parallel in [batch]" if "%" in part else ""
            raise _Wrong(("array",), f"{text!r} is no range of numbers{slurm}. Ranges look like 1-100, 1-9:2 or 1,3,5")
        first, last, step = (int(number) if number else None for number in match.groups())
        assert first is not None
        last = first if last is None else last
        if last < first or step == 0:
            raise _Wrong(("array",), f"{part.strip()} goes nowhere")
        if (last - first) // (step or 1) + len(found) >= MOST_JOBS:
            raise _Wrong(("array",), f"makes more than {MOST_JOBS} jobs")
        found += range(first, last + 1, step or 1)
    return found


def _foreach(table: Table) -> list[list[Value]]:
    given = table.raw.get("foreach")
    if given is None:
        return []
    items = _files(table, given) if isinstance(given, str) else _lines(table, given["lines"])  # type: ignore[index]
    _no_doubles(("foreach",), items)
    names = [os.path.basename(item.rstrip("/")) or item for item in items]
    shown = _distinct(names if isinstance(given, str) else items, items)
    return [[_item(item, name, label) for item, name, label in zip(items, names, shown, strict=True)]]


def _item(item: str, name: str, label: str) -> Value:
    return Value("", item, label, {"item": item, "name": name, "stem": os.path.splitext(name)[0]})


def _files(table: Table, pattern: str) -> list[str]:
    if not pattern or "\0" in pattern:
        raise _Wrong(("foreach",), f"{pattern!r} is no pattern of files")
    found = sorted(set(itertools.islice(glob.iglob(pattern, root_dir=table.source.folder, recursive=True), MOST_JOBS + 1)))
    if not found:
        raise _Wrong(("foreach",), f"{pattern} matches no file")
    return found


def _lines(table: Table, name: str) -> list[str]:
    try:
        text = read_text(os.path.join(table.source.folder, name))
    except JobFileError as e:
        raise _Wrong(("foreach",), f"{name} {str(e).rpartition(chr(0))[2]}") from None
    found = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]
    if not found:
        raise _Wrong(("foreach",), f"{name} holds no line")
    return found


def _distinct(texts: Sequence[str], whole: Sequence[str]) -> list[str]:
    """How values stand in names: made harmless and kept apart. `whole`: what tells values apart whose text is the same."""
    plain = [_harmless(text) for text in texts]
    if len(set(plain)) < len(plain) and texts is not whole:
        return _distinct(whole, whole)
    times = Counter(plain)
    return [
        f"{name[: LONGEST_VALUE - 9]}.{_hash(one)}" if times[name] > 1 or len(name) > LONGEST_VALUE else name
        for name, one in zip(plain, whole, strict=True)
    ]


def _harmless(text: str) -> str:
    return "".join(c if c.isalnum() or c in "._-@:+" else "_" for c in text) or "_"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def _names(table: str, chosen: Sequence[tuple[Value, ...]]) -> list[str]:
    return [_short(table + (f"[{','.join(value.shown for value in values)}]" if values else "")) for values in chosen]


def _short(name: str) -> str:
    if len(name.encode()) <= LONGEST:
        return name
    return f"{name.encode()[: LONGEST - 10].decode(errors='ignore')}.{_hash(name)}]"
