"""`memrun history` and `memrun suggest`: what earlier runs used, and what limit the next one should get."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from memrun import errors, history
from memrun.report import clean
from memrun.units import format_duration, format_size
from memrun.views import cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    Entry = dict[str, object]

SHOWN = 20  # runs, if nobody says how many
HEAD = ("ENDED", "NAME", "RESULT", "LIMIT", "PEAK", "ELAPSED", "ATTEMPTS", "COMMAND")


def entries(name: str = "") -> Iterator[Entry]:
    """Oldest first, of one job (or of all of a matrix: `align` is every align[...]), or of all. Lines that are none are left out."""
    path = history.place()
    for part in (f"{path}.1", path) if path else ():
        try:
            with open(part, encoding="utf-8", errors="replace") as f:
                for line in f:
                    entry = _entry(line)
                    if entry is not None and (not name or _is(str(entry.get("name")), name)):
                        yield entry
        except OSError:
            continue


def _entry(line: str) -> Entry | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None  # the machine stopped in the middle of it
    return found if isinstance(found, dict) else None


def _is(name: str, asked: str) -> bool:
    return name == asked or name.startswith(f"{asked}[")


def show(name: str, most: int, *, as_json: bool) -> int:
    """The latest runs; `most`: how many, 0 for all."""
    found = list(entries(name))[-most:]
    if as_json:
        sys.stdout.write("".join(json.dumps(entry) + "\n" for entry in found))
        return errors.SUCCESS
    if not found:
        sys.stdout.write(f"{_nothing(name)}\n")
        return errors.SUCCESS
    rows = [_row(entry) for entry in found]
    for line in cells.table(HEAD, rows, _columns(), right=(3, 4)):
        sys.stdout.write(clean(line) + "\n")
    return errors.SUCCESS


def _columns() -> int | None:
    return os.get_terminal_size(1).columns or None if cells.is_live(1) else None


def _row(entry: Entry) -> tuple[str, ...]:
    elapsed = entry.get("elapsed")
    return (
        str(entry.get("ended") or "-")[:19],
        str(entry.get("name")),
        str(entry.get("result")),
        _size(entry.get("limit"), "infinity"),
        _size(entry.get("peak"), "-"),
        format_duration(elapsed) if isinstance(elapsed, (int, float)) else "-",
        str(entry.get("attempts", "-")),
        str(entry.get("command", "")),
    )


def _size(value: object, otherwise: str) -> str:
    return format_size(value) if isinstance(value, int) else otherwise


def advise(name: str, *, as_json: bool) -> int:
    """The size alone on stdout, for `--limit "$(memrun suggest NAME)"`; why, on stderr."""
    from memrun.suggest import suggest

    advice = suggest(list(entries(name)))
    if advice is None:
        raise errors.RefusedError(_nothing(name), "memrun history shows what is known; a run to the end is needed")
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "limit": advice.limit, "why": list(advice.why)}) + "\n")
        return errors.SUCCESS
    sys.stdout.write(f"{format_size(advice.limit)}\n")
    sys.stdout.flush()
    sys.stderr.write("".join(f"memrun: {clean(line)}\n" for line in advice.why))
    return errors.SUCCESS


def _nothing(name: str) -> str:
    if not history.place():
        return "no history is kept (MEMRUN_HISTORY is empty)"
    return f"nothing is known of earlier runs of {name!r}" if name else "no run has ended yet"
