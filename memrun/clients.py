"""The other side of the socket: find the memruns of this user, and ask them. Plain blocking sockets, no event loop.

Where the sockets are: $XDG_RUNTIME_DIR/memrun, or /run/memrun for root, or /tmp/memrun-UID: a directory of our own with mode
0700, never a link, or there is none. One socket for each memrun, PID.sock; those that nobody answers are swept by who looks.
"""

from __future__ import annotations

import os
import socket
import stat

from memrun.errors import JobNameError, MemrunError, RefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Words = dict[str, object]
ANSWER_IN = 5.0  # seconds until a memrun that listens must have answered what it can answer at once
LONGEST = 1 << 20  # bytes of one answer


def directory(*, make: bool = False) -> str | None:
    """The directory of this user's sockets; None where there is none that can be trusted."""
    me = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and _ours(runtime, me):
        place = f"{runtime}/memrun"
    elif me == 0:
        place = "/run/memrun"
    else:
        place = f"/tmp/memrun-{me}"  # noqa: S108  (made by us with 0700, and looked at before it is used)
    if make and not os.path.lexists(place):
        _make(place)
    return place if _ours(place, me) and stat.S_IMODE(os.lstat(place).st_mode) & 0o077 == 0 else None


def _make(place: str) -> None:
    try:
        os.mkdir(place, 0o700)
    except OSError:
        return  # the look that follows says so


def _ours(place: str, me: int) -> bool:
    try:
        found = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == me


def sockets() -> Iterator[tuple[int, str]]:
    """(pid, path) of each memrun that listens; stale ones are removed on the way."""
    place = directory()
    names = sorted(os.listdir(place)) if place else []
    for name in names:
        pid = name.removesuffix(".sock")
        if not name.endswith(".sock") or not pid.isdigit():
            continue
        path = f"{place}/{name}"
        try:
            connect(path).close()
        except ConnectionRefusedError:
            _sweep(path)
        except OSError:
            continue
        else:
            yield int(pid), path


def _sweep(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


def connect(path: str) -> socket.socket:
    """A connection, or OSError."""
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        wire.settimeout(ANSWER_IN)
        wire.connect(path)
    except OSError:
        wire.close()
        raise
    return wire


def ask(path: str, words: Words, timeout: float | None = ANSWER_IN) -> Words:
    """One question, one answer; RefusedError carries the other side's sentence."""
    answer = next(follow(path, words, timeout), None)
    if answer is None:
        raise MemrunError("that memrun has just ended")
    if not answer.get("ok"):
        raise RefusedError(str(answer.get("error", "it refused")), str(answer.get("remedy", "")))
    return answer


def follow(path: str, words: Words, timeout: float | None = None) -> Iterator[Words]:
    """One question, and every line that comes back."""
    import json

    try:
        with connect(path) as wire:
            wire.sendall(json.dumps(words).encode() + b"\n")
            wire.settimeout(timeout)
            with wire.makefile("rb") as lines:
                while line := lines.readline(LONGEST):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found
    except TimeoutError:
        raise MemrunError("no answer in time") from None
    except (OSError, ValueError) as e:
        raise MemrunError(f"cannot ask that memrun: {e}") from None


def jobs() -> list[tuple[str, Words]]:
    """(socket, row) of every job that runs under this user's memruns."""
    found: list[tuple[str, Words]] = []
    for _, path in sockets():
        try:
            rows = ask(path, {"verb": "ps"}).get("jobs")
        except MemrunError:
            continue
        found += [(path, row) for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
    return found


def find(name: str) -> tuple[str, str]:
    """(socket, job's own name) of the one job that answers to the name; `PID:NAME` where the name alone is ambiguous."""
    all_jobs = jobs()
    pid, colon, rest = name.partition(":")
    if colon and pid.isdigit():
        found = [(path, row) for path, row in all_jobs if row["name"] == rest and _pid(path) == pid]
    else:
        found = [(path, row) for path, row in all_jobs if row["name"] == name]
    if len(found) == 1:
        return found[0][0], str(found[0][1]["name"])
    if found:
        several = ", ".join(f"{_pid(path)}:{row['name']}" for path, row in found)
        raise JobNameError(f"{len(found)} jobs are called {name}", f"Say which: {several}")
    running = ", ".join(sorted({str(row["name"]) for _, row in all_jobs}))
    raise JobNameError(f"no job is called {name!r}", f"There are: {running}" if running else "Nothing runs under memrun")


def _pid(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".sock")
