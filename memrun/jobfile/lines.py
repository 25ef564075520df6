"""On which line of a TOML text a table or a key stands: the parser tells values, but not where they were.

A scan over statements only; values are skipped, strings and brackets respected. It is used for texts that the parser has
accepted, and only for what is said to people: where it finds nothing, the nearest line above is as good.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = tuple[str | int, ...]
BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
PART = re.compile(r'[ \t]*(?:"((?:[^"\\\n]|\\.)*)"|\'([^\'\n]*)\'|([A-Za-z0-9_-]+))[ \t]*(\.?)')
VALUE = re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[{\]}\n]|[^\[{\]}\n"\'#]+', re.DOTALL)  # fmt: skip


def scan(text: str) -> dict[Place, int]:
    """Path of keys -> line number, from 1. Keys inside inline tables are at the line of their outermost key."""
    found: dict[Place, int] = {}
    table: Place = ()
    at = line = seen = 0
    while True:
        at = _after(BLANK, text, at)
        line, seen = line + text.count("\n", seen, at), at
        if at >= len(text):
            return found
        header = text[at] == "["
        double = text.startswith("[[", at)
        keys, at = _keys(text, at + header + double)
        path = keys if header else (*table, *keys)
        for length in range(1, len(path) + 1):
            found.setdefault(path[:length], line + 1)
        if header:
            found[path] = line + 1
            table, at = path, _line_end(text, at)
        else:
            at = _past_value(text, at)


def line_of(found: dict[Place, int], path: Sequence[str | int]) -> int:
    """The line of the longest known beginning of a path; 0 where nothing of it is known."""
    for length in range(len(path), 0, -1):
        if tuple(path[:length]) in found:
            return found[tuple(path[:length])]
    return 0


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _keys(text: str, at: int) -> tuple[Place, int]:
    keys: list[str] = []
    while match := PART.match(text, at):
        double, single, bare, dot = match.groups()
        keys.append(_unescaped(double) if double is not None else single if single is not None else bare)
        at = match.end()
        if not dot:
            break
    return tuple(keys), at


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text  # TOML knows escapes that JSON does not


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _past_value(text: str, at: int) -> int:
    """Past the newline that ends the statement."""
    depth = 0
    while at < len(text):
        match = VALUE.match(text, at)
        if match is None:
            return _line_end(text, at + 1)
        at, part = match.end(), match.group()
        depth += (part in {"[", "{"}) - (part in {"]", "}"})
        if part == "\n" and depth <= 0:
            return at
    return at
