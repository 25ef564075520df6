"""What is said: the verdict in one line, the record in a file.

One line says what happened, to what, at which limit, with which peak, after how long, which process was the largest, and
what to do about it. Every figure is the kernel's own. Names come from programs that may be hostile: nothing that a
terminal would obey gets through.
"""

from __future__ import annotations

import os

from memrun import signals
from memrun.errors import MemrunError
from memrun.units import format_duration, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.identity import Identity
    from memrun.record import Record


def clean(text: str) -> str:
    """Printable on one line of anybody's terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def verdict(record: Record, limit: str = "--limit {}") -> str:
    """One line for stderr, without the 'memrun: '; '' for a success. `limit`: how the user says what the limit is."""
    if record.result == "success" and not record.interference:
        return ""
    said = f"{clean(record.name)}: {record.result}: {what(record)} after {format_duration(record.elapsed)}"
    if record.note:
        said += f" ({record.note})"
    if record.interference:
        said += f"; {record.interference}"
    return f"{said}; {'; '.join(more)}" if (more := _more(record, limit)) else said


def summary(record: Record) -> str:
    """One line for a log, in which a success is news as well."""
    success = f"{clean(record.name)}: success after {format_duration(record.elapsed)}{_peak(record, ' (peak {})')}"
    return verdict(record) or success


def fields(record: Record) -> dict[str, str]:
    """What can be asked for in a journal. Sizes in bytes, times in seconds."""
    known = {
        "NAME": clean(record.name), "RESULT": record.result, "STATUS": record.status, "LIMIT": record.limit, "PEAK": record.peak,
        "ELAPSED": round(record.elapsed, 3), "SIGNAL": record.signal, "ATTEMPTS": len(record.attempts) or 1,
    }  # fmt: skip
    return {f"MEMRUN_{key}": str(value) for key, value in known.items() if value is not None}


def what(record: Record) -> str:
    """What became of it, in a few words."""
    limit = format_size(record.limit)
    if record.result == "success":
        return "ended well"
    if record.result == "oom-kill":
        return f"killed at the limit of {limit}{_peak(record, ' (peak {})')}"
    if record.result == "host-oom":
        return f"killed because memory ran out outside of its limit of {limit}{_peak(record, ' (peak {})')}"
    if record.result == "timeout":
        return f"stopped because its time was up{_peak(record, ' (peak {})')}"
    if record.result == "signal" and record.signal is not None:
        return f"died of {signals.name(record.signal)}, not for memory{_peak(record, ' (peak {})')}"
    if record.result == "exit-code":
        return f"exited with status {record.exit_code}"
    if record.result == "patience" and record.patience is not None:
        missed = "resumed" if record.awaited == "resume" else "raised"
        return f"killed because nobody {missed} it within {format_duration(record.patience)}{_peak(record, ' (peak {})')}"
    if record.result == "detached":
        return "put back where they were, and left alone,"
    if record.result == "launch":
        ran = record.exit_code is not None or record.signal is not None
        return f"could not be started{' again' if ran else ''}"
    return f"ended with status {record.status}"


def _peak(record: Record, form: str) -> str:
    return "" if record.peak is None else form.format(format_size(record.peak))


def _more(record: Record, form: str) -> list[str]:
    more = []
    if record.result in {"oom-kill", "host-oom"} and record.largest:
        first = record.largest[0]
        rss = first["rss"]
        more.append(
            f"largest: {clean(str(first['name']))} (pid {first['pid']}) {format_size(rss if isinstance(rss, int) else 0)}"
        )
    if record.result not in {"oom-kill", "host-oom", "exhausted"} and record.oom_kills:
        more.append(f"{record.oom_kills} killed for memory before that")
    if record.may_have_failed and record.result in {"exit-code", "signal"}:
        more.append("it may have seen ENOMEM: it has used all of its limit")
    if record.limit is not None and _wants_more(record):
        more.append(f"give it more: {form.format(format_size(record.limit * 2))}")
    elif record.result == "host-oom":
        more.append("run less beside it, or raise the limit of the group that memrun is in")
    return more


def _wants_more(record: Record) -> bool:
    if record.result == "patience":
        return record.awaited == "raise"
    return record.result == "oom-kill" or (record.result == "exhausted" and record.oom_kills > 0 and record.oom_events > 0)


def check_writable(path: str, who: Identity | None = None, what: str = "report") -> None:
    """Complain of a file that could not be written *before* anything is started."""
    wrong = _as(who, path, lambda: _why_not(path).encode(errors="surrogateescape")).decode(errors="surrogateescape")
    if wrong:
        raise MemrunError(f"cannot write the {what}{_said(who)}: {wrong}")


def _why_not(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path):
        return f"{path} is a directory"
    if _in_place(path):
        return "" if os.access(path, os.W_OK) else f"{path} cannot be written to"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} is not a directory that can be written to"


def write(path: str, text: str, who: Identity | None = None) -> None:
    """The whole file or nothing of it: a reader never sees half a record. `who`: whom the command was run as; the file is his, and
    written with his rights, since he may have put a symlink there."""

    def act() -> None:
        try:
            if _in_place(path):
                _write_to(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), text)
            else:
                _replace(path, text)
        except OSError as e:
            raise MemrunError(f"cannot write the report {path}{_said(who)}: {os.strerror(e.errno or 0)}") from None

    _as(who, path, act)


def _as(who: Identity | None, path: str, act: Callable[[], bytes | None]) -> bytes:
    if who is None:
        return act() or b""
    from memrun import identity  # there already

    return identity.acting_as(None if identity.is_own_descriptor(path) else who, act)


def _said(who: Identity | None) -> str:
    if who is None:
        return ""
    from memrun.identity import as_whom

    return as_whom(who)


def _in_place(path: str) -> bool:
    """A pipe, a device, /dev/stdout, >(...): written to, never replaced (as root that would take /dev/stdout from everybody)."""
    if os.path.islink(path) and os.path.abspath(path).startswith(("/dev/", "/proc/")):
        return True
    return os.path.exists(path) and not os.path.isfile(path)


def _replace(path: str, text: str) -> None:
    part, fd = _begin(f"{path}.{os.getpid()}.part")
    try:
        _write_to(fd, text)
        os.replace(part, path)
    except OSError:
        os.unlink(part)
        raise


def _begin(part: str) -> tuple[str, int]:
    """A new file, ours: `part`, or where somebody has planted one that we cannot remove, with a number behind it. One that is there is of a
    memrun that had our pid and was killed."""
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    for name in (part, *(f"{part}{number}" for number in range(1, 10))):
        try:
            return name, os.open(name, how, 0o666)
        except FileExistsError:
            if _is_removed(name):
                return name, os.open(name, how, 0o666)
    return part, os.open(part, how, 0o666)


def _is_removed(path: str) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


def _write_to(fd: int, text: str) -> None:
    # A name that is no UTF-8 has lone surrogates in it: written as JSON's own escape of them.
    with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as f:
        f.write(text)


def to_json(record: Record) -> str:
    """The record as the documented JSON object, a line end at its end."""
    import json  # 3 ms that only a run with --report has to pay

    return json.dumps(record.as_dict(), indent=2, ensure_ascii=False) + "\n"
