"""The other side of the socket: find the memruns of this user, and ask them. Plain blocking sockets, no event loop.

One socket for each memrun, PID.sock, in the directory that names.py knows; those that nobody answers are swept by who looks.
What answers need not be a memrun of this version: an older one goes on after an upgrade, and a job of this user's may listen there, too.
"""

from __future__ import annotations

import os
import socket
import struct

from memrun.errors import JobNameError, MemrunError, RefusedError
from memrun.names import SOCKET, UNBORN, directory, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    import selectors
    from collections.abc import Iterator

Words = dict[str, object]
ANSWER_IN = 5.0  # seconds until a memrun that listens must have answered what it can answer at once
SHOWN = 20  # names in an error
COLUMNS = ("file", "state", "pid", "limit", "usage", "peak", "attempt", "since")  # of a row, besides its name
LONGEST = 1 << 24  # bytes of one answer: `ps` of a batch has some 400 for each job


class UnansweredError(MemrunError):
    """A memrun that listens has said nothing for as long as it was given."""


def sockets() -> Iterator[tuple[int, str]]:
    """(pid, path) of each memrun that listens; stale ones are removed on the way."""
    place = directory()
    names = sorted(os.listdir(place)) if place else []
    for name in names:
        pid, _, kind = name.rpartition(".")
        if kind == "name":
            sweep(f"{place}/{name}")
        elif f".{kind}" == UNBORN and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            _sweep(f"{place}/{name}")
        if f".{kind}" != SOCKET or not pid.isdigit():
            continue
        path = f"{place}/{name}"
        try:
            connect(path).close()
        except ConnectionRefusedError:
            _sweep(path)
        except BlockingIOError:
            yield int(pid), path  # too many are waiting to be let in: it is there, and whoever asks it will hear of that
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
    """A connection, or OSError: BlockingIOError where so many stand before the door that nobody is let in for ANSWER_IN. The kernel
    does that waiting; Python's own timeout would have it refuse at once."""
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(ANSWER_IN), 0))
        wire.connect(path)
        wire.settimeout(ANSWER_IN)
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
    try:
        with connect(path) as wire:
            wire.sendall(said(words))
            wire.settimeout(timeout)
            with wire.makefile("rb") as lines:
                while line := lines.readline(LONGEST):
                    yield heard(line)
    except (TimeoutError, BlockingIOError):
        raise UnansweredError("no answer in time") from None
    except (FileNotFoundError, ConnectionRefusedError):  # it was there when it was looked for
        raise MemrunError("that memrun has just ended") from None
    except (OSError, ValueError) as e:
        raise MemrunError(f"cannot ask that memrun: {e}") from None


def said(words: Words) -> bytes:
    """A question, as a memrun hears it."""
    import json

    return json.dumps(words).encode() + b"\n"


def heard(line: bytes) -> Words:
    """ValueError where it is not what a memrun says."""
    import json

    try:
        found = json.loads(line)
    except RecursionError:
        found = None
    if isinstance(found, dict):
        return found
    raise ValueError("what it says is no answer")


def follow_all(paths: list[str], words: Words) -> Iterator[Words]:
    """One question to several memruns, and every line that comes back from any, until all have ended."""
    import selectors

    with selectors.DefaultSelector() as lines:
        for path in paths:
            try:
                wire = connect(path)
                wire.sendall(said(words))
            except OSError:
                continue  # it has just ended
            lines.register(wire, selectors.EVENT_READ, bytearray())
        while lines.get_map():
            for key, _ in lines.select():
                yield from _lines_of(lines, key)


def _lines_of(lines: selectors.BaseSelector, key: selectors.SelectorKey) -> Iterator[Words]:
    """The whole lines that one of them has said by now; it is let go of when it has said all, or what no memrun says."""
    wire = key.fileobj
    assert isinstance(wire, socket.socket)
    try:
        data = wire.recv(1 << 16)
        key.data.extend(data)
        *whole, rest = bytes(key.data).split(b"\n")
        key.data[:] = rest
        yield from map(heard, whole)
    except (OSError, ValueError):
        data, rest = b"", b""
    if not data or len(rest) > LONGEST:
        lines.unregister(wire)
        wire.close()


def jobs(patience: float = ANSWER_IN) -> tuple[list[tuple[str, Words]], list[int]]:
    """(socket, row) of every job that runs under this user's memruns, and the pids of those that have not answered. `patience`: seconds
    for each memrun."""
    found: list[tuple[str, Words]] = []
    silent: list[int] = []
    for pid, path in sockets():
        try:
            found += [(path, row) for row in _rows(path, patience)]
        except UnansweredError:
            silent.append(pid)
        except MemrunError:
            continue
    return found, silent


def unanswered(silent: list[int]) -> str:
    """What is to be said of them."""
    return f"memrun {', '.join(map(str, silent))} did not answer in time" if silent else ""


def _rows(path: str, patience: float) -> list[Words]:
    rows = ask(path, {"verb": "ps"}, patience).get("jobs")
    found = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
    return [dict.fromkeys(COLUMNS) | row for row in found if isinstance(row.get("name"), str)]


def find(name: str) -> tuple[str, str]:
    """(socket, job's own name) of the one job that answers to the name; `PID:NAME` where the name alone is ambiguous."""
    path, found = row(name)
    return path, str(found["name"])


def row(name: str) -> tuple[str, Words]:
    """(socket, row) of the one job that answers to the name."""
    all_jobs, silent = jobs()
    pid, colon, rest = name.partition(":")
    if colon and pid.isdigit():
        found = [(path, row) for path, row in all_jobs if row["name"] == rest and _pid(path) == pid]
    else:
        found = [(path, row) for path, row in all_jobs if row["name"] == name]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(f"{_pid(path)}:{row['name']}" for path, row in found)
        raise JobNameError(f"{len(found)} jobs are called {name}", f"Say which: {several}")
    names = sorted({str(row["name"]) for _, row in all_jobs})
    running = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    there = f"There are: {running}" if running else "Nothing runs under memrun"
    raise JobNameError(f"no job is called {name!r}", f"{there}; but {unanswered(silent)}" if silent else there)


def row_of(path: str, name: str) -> Words:
    """The row that this memrun has of that job now."""
    return next((row for row in _rows(path, ANSWER_IN) if row["name"] == name), {"name": name})


def _pid(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(SOCKET)
