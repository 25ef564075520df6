"""Sizes and durations, as people write them. Pure.

Suffixes are powers of two ("MB or MiB?" is asked of every tool that does not say), a bare number is bytes, a bare
duration is seconds. Integers all the way: a float cannot hold every size, and rounds what it cannot hold.
"""

from __future__ import annotations

import os

from memrun.errors import UsageError

POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
SECONDS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NO_LIMIT = {"infinity", "max", "-1"}
LARGEST = 1 << 60  # 1 EiB: beyond any machine, and with room below the kernels' own 2^63
PAGE = os.sysconf("SC_PAGESIZE")  # bytes


def whole_pages(size: int) -> int:
    """Bytes, rounded down to what the kernel makes of a limit."""
    return size // PAGE * PAGE


class Share:
    """A part of a whole that is known only later: `50%` of the machine or of the enclosing limit."""

    __slots__ = ("hundredths",)

    def __init__(self, hundredths: int) -> None:
        self.hundredths = hundredths

    def of(self, whole: int) -> int:
        """Bytes, rounded down."""
        return whole * self.hundredths // 10000

    def __repr__(self) -> str:
        return f"{self.hundredths / 100:g}%"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Share) and other.hundredths == self.hundredths

    def __hash__(self) -> int:
        return hash(("Share", self.hundredths))


Size = int | None | Share  # bytes | infinity | to be worked out


def parse_size(text: str) -> Size:
    """Bytes; None for infinity; a Share for a percentage. UsageError says what was expected."""
    bare = text.strip().lower()
    if bare in NO_LIMIT:
        return None
    number, suffix = _split(bare)
    if suffix == "%":
        return _share(text, number)
    letter = suffix.removesuffix("b").removesuffix("i") if suffix != "b" else ""
    if letter not in POWERS or suffix in {"i", "ib"} or not number:
        raise UsageError(f"{text!r} is not a size", "Sizes look like 5M, 1.5G, 512KiB, 50% or infinity")
    size = _scaled(number, 1 << POWERS[letter])
    if size > LARGEST:
        raise UsageError(f"{text!r} is more memory than any machine has", "Write infinity for no limit")
    return size


def parse_bytes(text: str) -> int:
    """A size that must be a plain number of bytes."""
    size = parse_size(text)
    if not isinstance(size, int):
        raise UsageError(f"{text!r} is not a number of bytes", "Sizes look like 5M, 1.5G or 512KiB")
    return size


def adjusted(text: str, now: int | None, whole: int) -> int | None:
    """A new limit from an old one (bytes, None is infinity): absolute, `+2G`, `-1G`, `x1.5`, or a share of `whole`."""
    bare = text.strip()
    if not bare or bare[0] not in "+-xX" or bare == "-1":
        size = parse_size(bare)
        return size.of(whole) if isinstance(size, Share) else size
    if now is None:
        raise UsageError(f"{text!r} is relative, and the limit is infinity", "Give a size")
    if bare[0] in "xX":
        number, suffix = _split(bare[1:])
        if not number or suffix:
            raise UsageError(f"{text!r} is not a factor", "Factors look like x2 or x1.5")
        return min(LARGEST, _scaled(number, now))
    step = parse_bytes(bare[1:])
    return max(0, now - step) if bare[0] == "-" else min(LARGEST, now + step)


def _share(text: str, number: str) -> Share:
    share = Share(_scaled(number, 100)) if number else Share(0)
    if not 0 < share.hundredths <= 10000:
        raise UsageError(f"{text!r} is not a share", "Percentages run from above 0% to 100%")
    return share


def _split(text: str) -> tuple[str, str]:
    """'1.5gib' -> ('1.5', 'gib'); the number is empty where there is none that is plain digits with one point."""
    end = 0
    while end < len(text) and text[end] in "0123456789.":
        end += 1
    number, suffix = text[:end], text[end:].strip()
    if number.count(".") > 1 or not number.strip(".") or len(number) > 40:
        number = ""
    return number, suffix


def _scaled(number: str, factor: int) -> int:
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    return int((whole or "0") + fraction) * factor // scale


def parse_duration(text: str) -> float | None:
    """Seconds; None for infinity. '90', '1.5h', '1h30m', '250ms'."""
    rest = text.strip().lower()
    if rest == "infinity":
        return None
    total, seen = 0.0, False
    while rest:
        number, rest = _split_number(rest)
        unit, rest = _split_unit(rest)
        bare = unit == "" and not seen and not rest
        if not number or (unit not in SECONDS and not bare):
            raise UsageError(f"{text!r} is not a duration", "Durations look like 90, 90s, 1h30m, 250ms or infinity")
        total, seen = total + float(number) * SECONDS.get(unit, 1.0), True
    if not seen or total > 1e10:
        raise UsageError(f"{text!r} is not a duration", "Durations look like 90, 90s, 1h30m, 250ms or infinity")
    return total


def _split_number(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end] in "0123456789.":
        end += 1
    number = text[:end] if text[:end].count(".") <= 1 and text[:end].strip(".") else ""
    return number, text[end:].lstrip()


def _split_unit(text: str) -> tuple[str, str]:
    end = 0
    while end < len(text) and text[end].isalpha():
        end += 1
    return text[:end], text[end:].lstrip()


def format_size(size: int | None) -> str:
    """'5M' where that is exact, else three significant digits ('4.97M'); 'infinity' for None."""
    if size is None:
        return "infinity"
    shown = abs(size)
    for letter in "EPTGMK":
        unit = 1 << POWERS[letter.lower()]
        if shown >= unit:
            if shown % unit == 0:
                return f"{size // unit}{letter}"
            scaled = size / unit
            digits = 2 if abs(scaled) < 10 else 1 if abs(scaled) < 100 else 0
            return f"{scaled:.{digits}f}{letter}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """'0.03 s', '4.2 s', '3 min 20 s', '2 h 5 min': what a person reads at a glance."""
    if seconds < 0.1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
