"""What the command finds in its environment, and the files that it may come from. The parser is pure.

From the weakest to the strongest: memrun's own environment (all of it, or only the names in pass_environment), the variables of
the user that it is run as (HOME, USER, LOGNAME, SHELL), the files of env_file in their order, `environment`.

Files are read as systemd reads an EnvironmentFile: NAME=VALUE lines; empty lines and those that begin with # or ; say nothing;
'...' is taken as it stands; in "..." a backslash escapes itself, ", ` and $, and joins lines; outside of quotes it escapes anything, and
white space at the end is dropped. Nothing is expanded. Where systemd skips a line that it does not understand, this is an error:
a typo in a file of settings is nobody's wish.
"""

from __future__ import annotations

import os

from memrun.errors import FAILED, LaunchError
from memrun.identity import acting_as, as_whom, is_own_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from memrun.identity import Identity

LARGEST = 1 << 20  # bytes of a file; the kernel takes 2 MiB or so of arguments and environment
BLANK = " \t"


class EnvFileError(LaunchError):
    """An environment file cannot be read, or not be understood."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, FAILED, remedy)


def inherited(names: Sequence[str]) -> dict[str, str]:
    """Memrun's own environment; of that, only these names, if there are any."""
    return {name: os.environ[name] for name in names if name in os.environ} if names else dict(os.environ)


def merged(base: Mapping[str, str], files: Iterable[Mapping[str, str]], more: Mapping[str, str]) -> dict[str, str]:
    """The later ones win."""
    found = dict(base)
    for each in files:
        found.update(each)
    found.update(more)
    return found


def read(path: str, who: Identity | None) -> dict[str, str]:
    """One environment file, read with the rights of the user that the command is run as. '-FILE' need not exist."""
    optional = path.startswith("-")
    path = path.removeprefix("-")
    if not is_own_descriptor(path):
        return parse(os.fsdecode(_content(path, who, optional=optional)), path)
    if path not in _read_once:  # a pipe says it only once, and a second attempt wants it, too
        _read_once[path] = parse(os.fsdecode(_content(path, None, optional=optional)), path)
    return _read_once[path]


_read_once: dict[str, dict[str, str]] = {}


def _content(path: str, who: Identity | None, *, optional: bool) -> bytes:
    try:
        content = acting_as(who, lambda: _read(path))
    except FileNotFoundError as e:
        if optional:
            return b""
        raise EnvFileError(f"cannot read the environment file {path}{as_whom(who)}: {e.strerror}") from None
    except OSError as e:
        raise EnvFileError(f"cannot read the environment file {path}{as_whom(who)}: {e.strerror}") from None
    if len(content) > LARGEST:
        raise EnvFileError(f"the environment file {path} is larger than 1M")
    return content


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(LARGEST + 1)


def parse(text: str, where: str) -> dict[str, str]:
    """The variables in it; `where` is the file's name, for complaints."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    found: dict[str, str] = {}
    at = 0
    while (at := _past(text, at, BLANK + "\n")) < len(text):
        end = _until_end(text, at)
        if text[at] in "#;":
            at = end
            continue
        name, equals, _ = text[at:end].partition("=")
        if not equals or not is_name(name.rstrip(BLANK)):
            what = f"{where}, line {_line(text, at)}: {text[at:end][:40]!r} is not NAME=VALUE"
            raise EnvFileError(what, "A shell's 'export' has no place there" if name.startswith("export ") else "")
        found[name.rstrip(BLANK)], at = _value(text, at + len(name) + 1, where)
    return found


def is_name(name: str) -> bool:
    """What can be a variable's name: more than a shell's, but nothing that looks like a mistake."""
    return bool(name) and "=" not in name and "\0" not in name and not any(c.isspace() for c in name)


def _past(text: str, at: int, which: str) -> int:
    while at < len(text) and text[at] in which:
        at += 1
    return at


def _until_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _value(text: str, at: int, where: str) -> tuple[str, int]:
    """From behind the '=' to the end of the line, or of the last line that it goes on in."""
    said: list[str] = []
    keep, bare = 0, False  # `keep`: what lies behind it is white space; `bare`: quotes mean nothing any more
    while at < len(text) and text[at] != "\n":
        c = text[at]
        if c in "'\"" and not bare:
            piece, at = _quoted(text, at, where)
            said += piece
            keep = len(said)
            continue
        if c == "\\":
            at += 1
            said += text[at : at + 1].strip("\n")
            keep, bare = len(said), True
        elif bare or c not in BLANK:
            said.append(c)
            bare = True
            keep = keep if c in BLANK else len(said)
        at += 1
    value = "".join(said[:keep])
    if "\0" in value:
        raise EnvFileError(f"{where}, line {_line(text, at)}: there is a NUL in it")
    return value, at


def _quoted(text: str, at: int, where: str) -> tuple[list[str], int]:
    quote, begin = text[at], at
    said: list[str] = []
    at += 1
    while at < len(text) and text[at] != quote:
        if quote == '"' and text[at] == "\\" and at + 1 < len(text):
            at += 1
            said += {"\n": ""}.get(text[at], text[at] if text[at] in '\\"`$' else "\\" + text[at])
        else:
            said.append(text[at])
        at += 1
    if at >= len(text):
        raise EnvFileError(f"{where}, line {_line(text, begin)}: the quote that begins there does not end")
    return said, at + 1
