"""What earlier runs used: a line of JSON for each run, kept for `memrun history` and `memrun suggest`.

The file is its user's alone (0600): command lines may tell more than one wants to. It is root's in /var/lib/memrun, others' in
$XDG_STATE_HOME/memrun, or where $MEMRUN_HISTORY says (nothing: none is kept). At 1 MiB it becomes FILE.1, and a new one begins: some 3,000 to 6,000 runs.

A memory of runs must never cost one: where it cannot be written (a full disk, a place that is read-only or somebody else's) there is
just no line, and nobody waits for a lock. Lines are appended in one write each, so runs that end at the same time do not mix theirs.
"""

from __future__ import annotations

import os
import stat

from memrun.flatjson import written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.record import Record

KEYS = ("name", "result", "status", "limit", "peak", "elapsed", "started", "ended")  # of a record, as they are
LARGEST = 1 << 20  # bytes of a file
COMMAND = 300  # characters of a command line: to know it again by
FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def state_directory() -> str:
    """Where this user's memruns keep what outlives a boot. Relative where $XDG_STATE_HOME is."""
    if os.geteuid() == 0:
        return "/var/lib/memrun"
    return f"{os.environ.get('XDG_STATE_HOME') or os.path.expanduser('~/.local/state')}/memrun"


def place() -> str:
    """Where it is kept; '' for nowhere."""
    asked = os.environ.get("MEMRUN_HISTORY")
    if asked is not None:
        return asked
    folder = state_directory()
    return f"{folder}/history" if folder.startswith("/") else ""


def keep(record: Record) -> None:
    """Remember a run of the command line."""
    _keep({**{key: getattr(record, key) for key in KEYS}, "attempts": max(1, len(record.attempts))}, record.command)


def keep_job(record: Mapping[str, object], result: str, attempts: int, file: str) -> None:
    """Remember a job of a file, whose record is known as a JSON object. `file`: the job file's full path."""
    known = {key: record.get(key) for key in KEYS}
    command = record.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    _keep({**known, "result": result, "attempts": attempts, "file": file}, words)


def _keep(entry: Mapping[str, object], command: list[str]) -> None:
    """One line, or none where that cannot be."""
    path = place()
    if not path:
        return
    values = {**entry, "command": " ".join(command)[:COMMAND]}
    try:
        _append(path, f"{written(values)}\n".encode())
    except OSError:
        return


def _append(path: str, line: bytes) -> None:
    try:
        fd = os.open(path, FLAGS, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        fd = os.open(path, FLAGS, 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return  # somebody else's: what we ran is none of his business
        os.write(fd, line)
        if found.st_size + len(line) > LARGEST:
            _begin_anew(path, found)
    finally:
        os.close(fd)


def _begin_anew(path: str, full: os.stat_result) -> None:
    """Two that come here at once: the second finds a new file already, and leaves it. Between look and rename there is a gap of some
    microseconds, in which a new one could be taken for the full one: its few lines are then all that is lost, and .1 with them."""
    now = os.stat(path, follow_symlinks=False)
    if (now.st_dev, now.st_ino) == (full.st_dev, full.st_ino):
        os.rename(path, f"{path}.1")
