"""What may be said for an option: text -> a value, or a UsageError that says what was expected. Pure."""

from __future__ import annotations

from memrun.errors import UsageError
from memrun.units import Size, parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.marks import Pressure, Threshold

FLOOR = 512 << 10  # bytes: below this even /bin/true does not start (its own pages, page tables, one charge batch a CPU)

EVENTS = ("oom", "paused", "raised", "resumed", "restarted", "threshold", "pressure", "finished")  # that hooks can be for


def limit(text: str) -> Size:
    """A limit that a command can start in."""
    size = parse_size(text)
    if isinstance(size, int) and size < FLOOR:
        raise UsageError(f"a limit of {text} is below the floor of 512K: no command starts in so little", "")
    return size


def choice(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def convert(text: str) -> str:
        if text not in words:
            raise UsageError(f"{text!r} is not one of {', '.join(words)}", nearest(text, words))
        return text

    convert.words = words  # type: ignore[attr-defined]
    return convert


def switch(text: str) -> bool:
    """on or off."""
    if text not in {"on", "off"}:
        raise UsageError(f"{text!r} is neither on nor off")
    return text == "on"


def seconds(text: str) -> float:
    """A time that has an end, in seconds."""
    seconds = parse_duration(text)
    if seconds is None:
        raise UsageError("infinity is too long to wait here")
    return seconds


def timeout(text: str) -> float | None:
    """When to stop it; 0 is never, as in timeout(1)."""
    return parse_duration(text) or None


def factor(text: str) -> float:
    """From 1 to 1000: 2, 1.5, x3."""
    bare = text.strip().lower().removeprefix("x")
    number, dot, fraction = bare.partition(".")
    if not (number + fraction).isdecimal() or not (number + fraction).isascii() or (dot and not fraction) or len(bare) > 12:
        raise UsageError(f"{text!r} is not a factor", "Factors look like 2 or 1.5")
    if not 1 <= float(bare) <= 1000:
        raise UsageError(f"{text!r} is not a factor", "Factors run from 1 to 1000")
    return float(bare)


def count(text: str) -> int:
    """A number of attempts, 1 or more."""
    if not (text.isdecimal() and text.isascii()) or len(text) > 9 or int(text) < 1:
        raise UsageError(f"{text!r} is not a number of attempts", "At least 1")
    return int(text)


def name(text: str) -> str:
    """What a job may be called: it becomes part of a directory's name."""
    if not text or len(text) > 64 or text[0] in ".-" or not all(c.isalnum() or c in "._-@:+=,[]" for c in text):
        raise UsageError(f"{text!r} is not a name", "Names are up to 64 letters, digits and ._-@:+=,[] and begin with none of .-")
    return text


def lock(text: str) -> str:
    """A lock's name, or the path of a file; nothing: the job's own name."""
    return file(text) if "/" in text else name(text) if text else ""


def file(text: str) -> str:
    """Any file name; whether there is one is seen later."""
    if not text or "\0" in text:
        raise UsageError(f"{text!r} is not a file name")
    return text


def written(text: str) -> str:
    """A file to write, or - for standard output, as everywhere."""
    return "/dev/stdout" if text == "-" else file(text)


def flag(text: str) -> bool:
    """Nothing, or on or off."""
    return switch(text) if text else True


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number in this range."""

    def convert(text: str) -> int:
        digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or not lowest <= int(text) <= highest:
            raise UsageError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return int(text)

    return convert


def umask(text: str) -> int:
    """Permission bits in octal, as umask(1) prints them."""
    digits = text.removeprefix("0o")
    if not digits or len(digits) > 4 or digits.strip("01234567") or int(digits, 8) > 0o777:
        raise UsageError(f"{text!r} is not a umask", "Umasks are octal: 022, 077")
    return int(digits, 8)


def account(text: str) -> str:
    """A user or a group, by name or number; whether there is one is seen later."""
    if not text or any(c.isspace() or c in ":/\0" for c in text):
        raise UsageError(f"{text!r} is no name or number of a user or a group")
    return text


def hook(text: str) -> tuple[str, str]:
    """EVENT=COMMAND."""
    event, equals, command = text.partition("=")
    if event not in EVENTS:
        raise UsageError(f"{event!r} is no event", nearest(event, EVENTS) or f"There are: {', '.join(EVENTS)}")
    if not equals or not command.strip() or "\0" in command:
        raise UsageError(f"{text!r} has no command", f"Try: {event}='logger $MEMRUN_NAME: $MEMRUN_TEXT'")
    return event, command


def variable(text: str) -> str:
    """A variable's name."""
    if not text or "=" in text or "\0" in text:
        raise UsageError(f"{text!r} is not a variable's name", "To set one: --env NAME=VALUE" if "=" in text else "")
    return text


def setting(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not name or not equals or "\0" in text:
        raise UsageError(
            f"{text!r} is not KEY=VALUE", f"To hand on memrun's own: --pass-env {text}" if name and not equals else ""
        )
    return name, value


def mark(text: str) -> Threshold:
    """Of --at."""
    from memrun.marks import parse_at  # few runs have any

    return parse_at(text)


def pressure(text: str) -> Pressure:
    """Of --pressure."""
    from memrun.marks import parse_pressure

    return parse_pressure(text)


def nearest(word: str, known: object) -> str:
    """'Did you mean X?' for a word that is close to one that is known, else ''."""
    import difflib  # only when there is something to complain of

    bare = {str(k).lstrip("-"): k for k in known}  # type: ignore[attr-defined]  # dashes are common to all, and would count
    close = difflib.get_close_matches(word.lstrip("-"), bare, 1)
    return f"Did you mean {bare[close[0]]}?" if close else ""
