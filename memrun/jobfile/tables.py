"""The tables of a job file, each key judged by the conversion of the option that it names, and the defaults of its file beneath it.

A file's [defaults] are those of the file that includes it, with its own over them; paths in them are relative to the file that
they are written in, so every setting remembers where it comes from.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from memrun import marks
from memrun.errors import UsageError
from memrun.jobfile.schema import NOT_KEYS, violations
from memrun.options import BY_WORD, OPTIONS, Option
from memrun.units import Share, Size, parse_bytes, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from memrun.jobfile.lines import Place
    from memrun.jobfile.source import Problems, Source

FLAG = re.compile("--[a-z-]+")
BY_KEY = {option.key: option for option in OPTIONS if option.key not in NOT_KEYS}
LONGEST_NAME = 64  # bytes, of a table's: what memrun --name allows, less what marks variables
JOB_ONLY = ("command", "matrix", "array", "foreach", "depends_on")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: as written, what it means, and where it stands."""

    raw: object
    value: object
    source: Source
    path: Place


@dataclass(frozen=True, slots=True)
class Table:
    """One [jobs.NAME] with its settings; `raw` are the keys that make jobs of it (JOB_ONLY)."""

    name: str
    source: Source
    raw: Mapping[str, object]
    settings: Mapping[str, Setting]
    spoilt: frozenset[str] = frozenset()  # keys that are there, and wrong

    def path(self, *keys: str) -> Place:
        """Of one of its keys, for Problems.add."""
        return ("jobs", self.name, *keys)


@dataclass(slots=True)
class Head:
    """What [batch] says."""

    source: Source
    memory: Size = field(default_factory=lambda: Share(8000))
    parallel: int | None = None
    on_failure: str = "continue"


def tables(sources: Sequence[Source], problems: Problems) -> tuple[Head, list[Table]]:
    """[batch], and every table of every file in their order."""
    head = Head(sources[0])
    found: dict[str, Table] = {}
    defaults: dict[int, dict[str, Setting]] = {}
    for source in sources:
        bad = _violations(source, problems)
        inherited = defaults[source.parent.rank] if source.parent else {}
        defaults[source.rank] = inherited | _settings(source, ("defaults",), bad, problems)
        _batch(head, source, bad, problems)
        for name in _mapping(source.document.get("jobs")):
            table = _job(source, name, defaults[source.rank], bad, problems)
            if name in found:
                first = found[name].source
                problems.add(source, ("jobs", name), f"is there twice: first in {first.shown}")
            elif table is not None:
                found[name] = table
    return head, list(found.values())


def _violations(source: Source, problems: Problems) -> set[Place]:
    """Complain of what the schema does not allow; the paths of all that must not be looked into."""
    bad: set[Place] = set()
    for path, what in violations(source.document):
        problems.add(source, path, what)
        table = 2 if path[:1] == ("jobs",) else 1
        bad |= {path[:length] for length in range(table + 1, len(path) + 1)}  # one wrong part spoils a key, not its table
    return bad


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _batch(head: Head, source: Source, bad: set[Place], problems: Problems) -> None:
    given = {key: value for key, value in _mapping(source.document.get("batch")).items() if ("batch", key) not in bad}
    if source.rank and given:
        problems.add(
            source, ("batch",), f"belongs into the file that is run ({head.source.shown}), not into one that is included"
        )
        return
    if "memory" in given:
        try:
            head.memory = _budget(_typed(given["memory"]))
        except UsageError as e:
            problems.add(source, ("batch", "memory"), str(e))
    if isinstance(given.get("parallel"), (int, float)):
        head.parallel = int(given["parallel"])  # type: ignore[call-overload]
    head.on_failure = str(given.get("on_failure", head.on_failure))


def _budget(text: str) -> Size:
    size = parse_size(text)
    if size == 0:
        raise UsageError("a budget of 0 holds no job", "Write infinity for no budget")
    return size


def _job(source: Source, name: str, defaults: Mapping[str, Setting], bad: set[Place], problems: Problems) -> Table | None:
    """None where what it is cannot be told."""
    path: Place = ("jobs", name)
    keys = source.document["jobs"][name]  # type: ignore[index]
    if wrong := _misnamed(name):
        problems.add(source, path, wrong)
        return None
    if not isinstance(keys, dict):
        return None
    own = _settings(source, path, bad, problems)
    settings = {**defaults, **own}
    if "environment" in own and "environment" in defaults:
        both = [text for given in (defaults, own) for text in texts(given["environment"].raw)]
        settings["environment"] = replace(own["environment"], raw=list({text.partition("=")[0]: text for text in both}.values()))
    for first, second in (("log", "stdout"), ("log", "stderr")):
        _either(settings, first, second, problems)
    raw = {key: keys[key] for key in JOB_ONLY if key in keys and (*path, key) not in bad}
    if any("\0" in text for text in texts(raw.get("command", ""))):
        problems.add(source, (*path, "command"), "holds a NUL byte")
        del raw["command"]
    spoilt = frozenset(key for some in (keys, *_all_defaults(source)) for key in some if key not in settings)
    return Table(name, source, raw, settings, spoilt)


def _all_defaults(source: Source | None) -> Iterator[Mapping[str, object]]:
    while source is not None:
        yield _mapping(source.document.get("defaults"))
        source = source.parent


def _misnamed(name: str) -> str:
    if not name or len(name.encode()) > LONGEST_NAME or name[0] in ".-" or not all(c.isalnum() or c in "._-@:+" for c in name):
        return f"is not a name: names are up to {LONGEST_NAME} letters, digits and ._-@:+ and begin with none of .-"
    return ""


def _either(settings: dict[str, Setting], log: str, other: str, problems: Problems) -> None:
    """The job's own word goes before the defaults'; on the same level both make no sense."""
    if log in settings and other in settings:
        one, two = settings[log], settings[other]
        if len(one.path) == len(two.path):
            problems.add(two.source, two.path, f"goes to a file of its own, but {log} takes it, too")
        else:
            del settings[log if len(one.path) < len(two.path) else other]


def _settings(source: Source, path: Place, bad: set[Place], problems: Problems) -> dict[str, Setting]:
    """The converted keys of one table."""
    keys: object = source.document
    for part in path:
        keys = _mapping(keys).get(part)  # type: ignore[arg-type]
    found: dict[str, Setting] = {}
    for key, raw in _mapping(keys).items():
        if key in JOB_ONLY or (*path, key) in bad:
            continue
        try:
            value = convert(key, raw)
        except UsageError as e:
            problems.add(source, (*path, key), FLAG.sub(_as_key, str(e)))
        else:
            found[key] = Setting(raw, value, source, (*path, key))
    if "thresholds" in found or "at" in found:
        both = [found[key] for key in ("at", "thresholds") if key in found]
        found.pop("thresholds", None)
        found["at"] = Setting(both[0].raw, tuple(one for some in both for one in some.value), source, both[0].path)  # type: ignore[attr-defined]
    return found


def _as_key(found: re.Match[str]) -> str:
    """Conversions speak of the command line: --pass-env is pass_environment here."""
    option = BY_WORD.get(found.group())
    return option.key if option else found.group()


def convert(key: str, raw: object) -> object:
    """A key's value, in the shape that the schema allows -> what the option makes of it. UsageError says what was expected."""
    if key == "thresholds":
        return tuple(marks.threshold_of(table) for table in raw)  # type: ignore[attr-defined]
    if key == "pressure" and isinstance(raw, dict):
        return tuple(marks.pressures_of(raw))
    if key == "log_size":
        return _size_of_log(_typed(raw))
    if key == "log_keep":
        return int(raw)  # type: ignore[call-overload]
    if key == "log":
        return _file(str(raw))
    return converted(BY_KEY[key], texts(raw))


def _file(text: str) -> str:
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is not a file name")
    return text


def _size_of_log(text: str) -> int:
    size = parse_bytes(text)
    if size < 4096:
        raise UsageError(f"{text} is too small for a log", "At least 4K")
    return size


def converted(option: Option, given: Sequence[str]) -> object:
    """One value, or a tuple of them where the option may be given more than once."""
    if option.many:
        return tuple(option.convert(text) for text in given)
    return option.convert(given[0] if given else "")


def texts(raw: object) -> list[str]:
    """As it would be typed: a table as NAME=VALUE, a list as its elements."""
    if isinstance(raw, dict):
        return [f"{name}={as_text(value)}" for name, value in raw.items()]
    return [as_text(value) for value in raw] if isinstance(raw, list) else [_typed(raw)]


def as_text(value: object) -> str:
    """A TOML value as a word of a command, or in an environment."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _typed(value: object) -> str:
    """A TOML value as one would type it after an option."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        if math.isinf(value):
            return "infinity" if value > 0 else "-infinity"
        return f"{value:.12f}".rstrip("0").rstrip(".")  # 5e8 is a number of bytes, too
    return as_text(value)
