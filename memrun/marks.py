"""What `--at 80%=restart` and `--pressure medium=log` say: option values and job-file tables -> values. Pure.

    --at        WHERE[ with swap][ for TIME]=ACTION     80%=log   500M=signal:USR1   "90% for 30s=restart"   1G=exec:./tell.sh
    --pressure  LEVEL[,MODE]=ACTION         medium=log   critical,hierarchy=stop

Only the first `=` divides, so that a command may hold as many as it likes. Loaded before the command starts: no
dataclasses, no re.
"""

from __future__ import annotations

from memrun import signals
from memrun.errors import UsageError
from memrun.units import Share, format_duration, format_size, parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ACTIONS = ("log", "signal", "exec", "stop", "restart", "pause", "kill")
TAKES = {"signal": "NAME", "exec": "COMMAND"}
LEVELS = ("low", "medium", "critical")
MODES = ("default", "hierarchy", "local")
TELLING = {"log", "signal", "exec"}  # actions that take nothing from the job
AT_LOOKS = "Thresholds look like 80%=log, 500M=signal:USR1 or '90% for 30s=restart'"
PRESSURE_LOOKS = "Pressure looks like medium=log or critical,hierarchy=stop"


class Action:
    """What is to be done: one word of ACTIONS, with the signal's number or the command where it takes one."""

    __slots__ = ("command", "do", "signal")

    def __init__(self, do: str, signal: int = 0, command: str = "") -> None:
        self.do, self.signal, self.command = do, signal, command

    def __str__(self) -> str:
        return f"signal:{signals.name(self.signal)[3:]}" if self.signal else f"exec:{self.command}" if self.command else self.do

    def __repr__(self) -> str:
        return f"Action({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Action) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))


class Threshold:
    """At so much memory (bytes, or a Share of the job's limit), held for so many seconds, do that.

    `swap`: of memory and swap together, and of both limits together.
    """

    __slots__ = ("action", "at", "hold", "swap")

    def __init__(self, at: int | Share, action: Action, hold: float = 0.0, *, swap: bool = False) -> None:
        self.at, self.action, self.hold, self.swap = at, action, hold, swap

    @property
    def follows(self) -> bool:
        """Whether a new limit moves it."""
        return isinstance(self.at, Share)

    @property
    def cache(self) -> bool:
        """Whether page cache counts. It does where the user is only told; it is no reason to stop, restart, pause or kill."""
        return self.action.do in TELLING

    def resolve(self, limit: int | None, swap: int | None = 0) -> int | None:
        """Bytes, under that limit and with so much swap on top. None: it cannot be crossed (a share of infinity)."""
        if isinstance(self.at, Share):
            if limit is None or (self.swap and swap is None):
                return None
            return self.at.of(limit + (swap or 0) * self.swap)
        return self.at

    @property
    def where(self) -> str:
        """'80%', '500M for 30.0 s': for people."""
        at = repr(self.at) if isinstance(self.at, Share) else format_size(self.at)
        with_swap = f"{at} with swap" if self.swap else at
        return f"{with_swap} for {format_duration(self.hold)}" if self.hold else with_swap

    def __repr__(self) -> str:
        return f"Threshold({self.where}={self.action})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Threshold) and other.facts == self.facts

    @property
    def facts(self) -> tuple[int | Share, Action, float, bool]:
        """All that it is."""
        return self.at, self.action, self.hold, self.swap

    def __hash__(self) -> int:
        return hash(self.facts)


class Pressure:
    """At that level of memory pressure, heard in that mode, do that."""

    __slots__ = ("action", "level", "mode")

    def __init__(self, level: str, action: Action, mode: str = "default") -> None:
        self.level, self.action, self.mode = level, action, mode

    def __repr__(self) -> str:
        mode = "" if self.mode == "default" else f",{self.mode}"
        return f"Pressure({self.level}{mode}={self.action})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pressure) and repr(other) == repr(self)

    def __hash__(self) -> int:
        return hash(repr(self))


def parse_action(text: str) -> Action:
    """'log', 'signal:USR1', 'exec:CMD', 'stop', 'restart', 'pause', 'kill'."""
    word, colon, rest = text.strip().partition(":")
    word, rest = word.strip(), rest.strip()
    if word not in ACTIONS:
        raise UsageError(f"{word!r} is not something to do", _nearest(word, ACTIONS))
    if word in TAKES and not rest:
        raise UsageError(f"{word!r} does not say what", f"Write {word}:{TAKES[word]}")
    if word not in TAKES and colon:
        raise UsageError(f"{word!r} takes nothing after it, but got {rest!r}", f"Write {word}")
    if "\0" in rest:
        raise UsageError(f"{rest!r} is not a command")
    return Action(word, signals.parse(rest) if word == "signal" else 0, rest if word == "exec" else "")


def parse_at(text: str) -> Threshold:
    """The value of --at. UsageError says what was expected."""
    where, equals, action = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} does not say what to do", AT_LOOKS)
    at, hold, swap = _where(where)
    return Threshold(at, parse_action(action), hold, swap=swap)


def _where(text: str) -> tuple[int | Share, float, bool]:
    size, *rest = text.split() or [""]
    swap = rest[:2] == ["with", "swap"]
    rest = rest[2:] if swap else rest
    if not rest:
        return _size(size), 0.0, swap
    word, *time = rest
    if word != "for":
        raise UsageError(f"{word!r} is not known after {size!r}", "Did you mean for?" if _nearest(word, ("for",)) else AT_LOOKS)
    return _size(size), _hold(" ".join(time)), swap


def _size(text: str) -> int | Share:
    size = parse_size(text)
    if size is None:
        raise UsageError(f"{text!r} is never reached", AT_LOOKS)
    if size == 0:
        raise UsageError(f"{text!r} is always reached", AT_LOOKS)
    return size


def _hold(text: str) -> float:
    hold = parse_duration(text)
    if hold is None:
        raise UsageError(f"{text!r} never ends", "Write a time, such as 30s")
    return hold


def parse_pressure(text: str) -> Pressure:
    """The value of --pressure. UsageError says what was expected."""
    where, equals, action = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} does not say what to do", PRESSURE_LOOKS)
    return _pressure(where, parse_action(action))


def _pressure(where: str, action: Action) -> Pressure:
    level, comma, mode = (part.strip() for part in where.partition(","))
    if level not in LEVELS:
        raise UsageError(f"{level!r} is not a level of pressure ({', '.join(LEVELS)})", _nearest(level, LEVELS))
    if comma and mode not in MODES:
        raise UsageError(f"{mode!r} is not a mode of pressure ({', '.join(MODES)})", _nearest(mode, MODES))
    return Pressure(level, action, mode or "default")


def threshold_of(table: Mapping[str, object]) -> Threshold:
    """A job file's {at = "80%", do = "log", for = "30s", swap = true}; `at` and `for` may be numbers (bytes, seconds)."""
    _known(table, ("at", "do", "for", "swap"))
    swap = table.get("swap", False)
    if not isinstance(swap, bool):
        raise UsageError(f"'swap' is not true or false: {swap!r}")
    hold = _hold(_word(table, "for")) if "for" in table else 0.0
    return Threshold(_size(_word(table, "at")), parse_action(_word(table, "do")), hold, swap=swap)


def pressures_of(table: Mapping[str, object]) -> list[Pressure]:
    """A job file's {medium = "log", "critical,hierarchy" = "stop"}, in its order."""
    return [_pressure(where, parse_action(_word(table, where))) for where in table]


def _known(table: Mapping[str, object], keys: tuple[str, ...]) -> None:
    for key in table:
        if key not in keys:
            raise UsageError(f"{key!r} is not a key of a threshold ({', '.join(keys)})", _nearest(str(key), keys))


def _word(table: Mapping[str, object], key: str) -> str:
    value = table.get(key)
    if value is None:
        raise UsageError(f"a threshold wants {key!r}", 'Write {at = "80%", do = "log"}')
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and key in {"at", "for"}
    if not isinstance(value, str) and not number:
        raise UsageError(f"{key!r} is not text: {value!r}")
    return str(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # only when there is something to complain of

    close = difflib.get_close_matches(word, list(known), 1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(known)}"
