"""Text in the cells of a terminal: how wide it is, how it is made to fit, how it becomes a table.

A name's tail tells one job of a matrix from the next, so what does not fit loses its middle. Wide (East Asian) characters take two
cells, combining ones none.
"""

from __future__ import annotations

import os

from memrun.report import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

GAP = "…"


def is_live(fd: int) -> bool:
    """Whether this is a terminal that can be painted on."""
    return os.isatty(fd) and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}


def width(text: str) -> int:
    """Cells that a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    import unicodedata

    if unicodedata.combining(character) or unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def fit(text: str, most: int) -> str:
    """Not wider than `most` cells: the middle goes."""
    if width(text) <= most:
        return text
    if most < 3:
        return _head(text, max(0, most))
    tail = _head(text[::-1], most // 2)[::-1]
    return _head(text, most - 1 - width(tail)) + GAP + tail


def cut(text: str, most: int) -> str:
    """Not wider than `most` cells: the end goes."""
    return text if width(text) <= most else _head(text, max(0, most - 1)) + (GAP if most > 0 else "")


def _head(text: str, most: int) -> str:
    taken = 0
    for index, character in enumerate(text):
        taken += _cells(character)
        if taken > most:
            return text[:index]
    return text


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """At least `cells` wide; `right`: to the right."""
    space = " " * (cells - width(text))
    return space + text if right else text + space


def plain(text: str) -> str:
    """A line of anybody's, tabs spread out, nothing in it that a terminal would obey."""
    return text if text.isprintable() else clean(text.expandtabs())


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int | None = None, right: Sequence[int] = ()) -> list[str]:
    """Lines of a table with a head. `right`: columns that are numbers. `most`: cells of a line; the first column gives way (down to
    ten cells) for all but the last, then the end of the line."""
    columns = [[plain(row[number]) for row in (head, *rows)] for number in range(len(head))]
    widths = [max(map(width, column)) for column in columns]
    if most is not None and (over := sum(widths[:-1]) + 2 * (len(widths) - 2) - most) > 0:
        widths[0] = max(min(widths[0], 10), widths[0] - over)
    columns[0] = [fit(cell, widths[0]) for cell in columns[0]]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = [pad(cell, widths[number], right=number in right) for number, cell in enumerate(cells)]
        line = "  ".join(padded).rstrip()
        lines.append(line if most is None else cut(line, most))
    return lines
