"""Job files as they are on disk: read, parsed, and with what they include; every problem is collected with its place.

`include` stands at the top level of a file, relative to it; a pattern may match nothing, a plain name must be there. A file that is
included twice is read once; a circle is refused.
"""

from __future__ import annotations

import glob
import os
import re
import stat
from dataclasses import dataclass, field

from memrun.errors import JobFileError
from memrun.jobfile.lines import Place, line_of, scan
from memrun.report import clean

MOST_BYTES = 8 << 20  # of one file
MOST_FILES = 1000
DEEPEST = 24  # tables in tables: a job file needs five
LARGEST = 1 << 63  # TOML's integers have 64 bits
SYNTAX = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


@dataclass(slots=True)
class Problems:
    """What is wrong, each with file, line, table and key; and `notes`, which are no reason to refuse."""

    found: dict[tuple[int, int, str], None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, source: Source, path: Place, what: str) -> None:
        """`path`: ('jobs', 'align', 'limit', ...)."""
        line = line_of(source.lines, path)
        self.found[source.rank, line, f"{source.place(line)} {where(path)}{what}"] = None

    def note(self, source: Source, path: Place, what: str) -> None:
        """The same for what is only worth knowing."""
        self.notes[clean(f"{source.place(line_of(source.lines, path))} {where(path)}{what}")] = None

    def check(self) -> None:
        """JobFileError with all of them, in the order of the files; nothing if there is none."""
        if self.found:
            raise JobFileError([clean(said) for _, _, said in sorted(self.found)])


@dataclass(slots=True)
class Source:
    """One file. `shown`: its name for people, `folder`: what its relative paths are relative to."""

    shown: str
    path: str
    rank: int
    text: str = ""
    document: dict[str, object] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    parent: Source | None = None

    @property
    def folder(self) -> str:
        """Absolute."""
        return os.path.dirname(self.path)

    def place(self, line: int) -> str:
        """'jobs.toml:12:', as compilers say it."""
        return f"{self.shown}:{line}:" if line else f"{self.shown}:"


def where(path: Place) -> str:
    """'[jobs.align] limit: ' for a path of keys."""
    tables = 2 if path[:1] == ("jobs",) else 1
    parts = [str(part) for part in path]
    if len(path) == 1 and path[0] not in {"jobs", "batch", "defaults"}:
        return f"{parts[0]}: "
    head = f"[{'.'.join(_key(part) for part in parts[:tables])}] " if parts else ""
    return head + (f"{'.'.join(parts[tables:])}: " if parts[tables:] else "")


def _key(part: str) -> str:
    return part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else f'"{part}"'


def read_all(path: str, problems: Problems) -> list[Source]:
    """The file and all that it includes, itself first."""
    if not path or "\0" in path:
        raise JobFileError([f"{path!r} is not a file name"])
    known: dict[str, Source] = {}
    first = Source(path, os.path.abspath(path), 0)
    _read_into(known, first, problems)
    return list(known.values())


def _read_into(known: dict[str, Source], source: Source, problems: Problems) -> None:
    known[os.path.realpath(source.path)] = source
    if not _fill(source, problems):
        return
    for pattern in _includes(source, problems):
        for path in _named(source, pattern, problems):
            real = os.path.realpath(path)
            if real in _ancestry(source):
                circle = " -> ".join([*reversed(list(_ancestry(source).values())), os.path.basename(path)])
                problems.add(source, ("include",), f"goes in a circle: {circle}")
            elif real not in known and len(known) < MOST_FILES:
                below = os.path.relpath(path, source.folder)
                shown = os.path.join(os.path.dirname(source.shown), below)
                _read_into(known, Source(shown, path, len(known), parent=source), problems)
            elif real not in known:
                problems.add(source, ("include",), f"brings more than {MOST_FILES} files")


def _ancestry(source: Source) -> dict[str, str]:
    """Real path -> name of a file and of those that included it, itself first."""
    chain: dict[str, str] = {}
    at: Source | None = source
    while at is not None:
        chain[os.path.realpath(at.path)] = os.path.basename(at.path)
        at = at.parent
    return chain


def _includes(source: Source, problems: Problems) -> list[str]:
    given = source.document.get("include", [])
    patterns = [given] if isinstance(given, str) else given
    if not isinstance(patterns, list):
        return []  # the schema complains
    for pattern in (p for p in patterns if isinstance(p, str) and (not p or "\0" in p)):
        problems.add(source, ("include",), f"{pattern!r} is not a file name")
    return [p for p in patterns if isinstance(p, str) and p and "\0" not in p]


def _named(source: Source, pattern: str, problems: Problems) -> list[str]:
    path = os.path.join(source.folder, pattern)
    if not glob.has_magic(pattern):
        return [os.path.normpath(path)]
    found = sorted(glob.glob(pattern, root_dir=source.folder, recursive=True))
    if not found:
        problems.note(source, ("include",), f"{pattern} matches no file")
    return [os.path.normpath(os.path.join(source.folder, name)) for name in found]


def _fill(source: Source, problems: Problems) -> bool:
    """Read and parse; False with a problem where that does not work."""
    try:
        source.text = read_text(source.path)
        source.document = _parsed(source.text)
    except JobFileError as e:
        place = source.parent
        line, _, what = str(e).rpartition("\0")
        if place is not None and not line:
            problems.add(place, ("include",), f"{source.shown}: {what}")
        else:
            problems.found[source.rank, int(line or 0), f"{source.place(int(line or 0))} {what}"] = None
        return False
    source.lines = scan(source.text)
    return True


def read_text(path: str) -> str:
    """A text file of bounded size. JobFileError says what is wrong with it (after a line number and a NUL where there is one)."""
    return _decoded(_bytes(path))


def _bytes(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe that nobody writes to must not hold us up
    except OSError as e:
        raise JobFileError([f"cannot be read: {e.strerror}"]) from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise JobFileError(["is a directory" if stat.S_ISDIR(mode) else "is not a regular file"])
        with open(fd, "rb", closefd=False) as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as e:
        raise JobFileError([f"cannot be read: {e.strerror}"]) from None
    finally:
        os.close(fd)
    if len(data) > MOST_BYTES:
        raise JobFileError([f"is larger than {MOST_BYTES >> 20} MiB: that is no job file"])
    return data


def _decoded(data: bytes) -> str:
    """A leading byte-order mark is no harm. Complaints may begin with a line number and a NUL."""
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as e:
        raise JobFileError([f"{data.count(10, 0, e.start) + 1}\0is not UTF-8 text: byte {data[e.start]:#04x}"]) from None
    if "\0" in text:
        raise JobFileError(["is not a text file: it holds NUL bytes"])
    return text


def _parsed(text: str) -> dict[str, object]:
    import tomli  # the standard library has none before Python 3.11

    try:
        document: dict[str, object] = tomli.loads(text)
    except tomli.TOMLDecodeError as e:
        what, line, column = (SYNTAX.match(str(e)) or re.match("(.*)()()", str(e), re.DOTALL)).groups()  # type: ignore[union-attr]
        line, column = line or str(text.rstrip().count("\n") + 1), f", column {column}" if column else ""
        raise JobFileError([f"{line}\0this is not TOML: {what[:1].lower()}{what[1:]}{column}"]) from None
    except RecursionError:
        raise JobFileError(["is nested too deeply: that is no job file"]) from None
    except ValueError as e:  # an integer of thousands of digits
        raise JobFileError([f"this is not TOML: {e}"]) from None
    _tame(document)
    return document


def _tame(document: object) -> None:
    """What follows recurses, and writes numbers: neither may go on for ever."""
    level = [document]
    for _ in range(DEEPEST):
        for value in level:
            if isinstance(value, int) and abs(value) > LARGEST:
                raise JobFileError(["this is not TOML: an integer has more than 64 bits"])
        level = [
            below
            for value in level
            for below in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return
    raise JobFileError(["is nested too deeply: that is no job file"])
