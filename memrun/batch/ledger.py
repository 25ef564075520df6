"""What is known of a job file's jobs, durably: an SQLite database beside the file, one writer at a time.

Every transition is written when it happens, and committed by whoever looks at the whole batch next, a moment later: then it outlives
a SIGKILL of memrun. After completions the commit is durable, on the disk, many of them together where they come together, because
an fsync is milliseconds in which nobody else is heard. WAL, so that others may read meanwhile; where the file system has no shared
memory for that (NFS, Lustre, 9p), a rollback journal that is ours alone.

The lock is flock(2) on the database itself, shared with the dead man's hand: after a SIGKILL it is free only when the hand has ended
the jobs and removed their groups, so that no job can run twice at the same time, whoever starts `up` again however quickly.
SQLite's own locks are POSIX ones, which do not see it.

Where: `.jobs.toml.memrun` beside `jobs.toml`; where nothing can be written there, or SQLite cannot work there at all, in
$XDG_STATE_HOME/memrun (root: /var/lib/memrun). It says which machine runs the file: another one is refused by that name.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import sqlite3
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from memrun.batch import hosts
from memrun.batch.store_path import elsewhere, place
from memrun.errors import MemrunError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    Found = TypeVar("Found")

SCHEMA = 1
TOGETHER = 0.1  # seconds in which completions share an fsync
RETRY = 1.0  # seconds until what could not be written is tried again
KEPT = 100_000  # statements that are kept for that
BUSY = 1.0  # seconds that another reader or writer may keep us from beginning
ROOM = 64 << 10  # bytes that it takes to begin
CLEANING = 15.0  # seconds that the hand of a memrun which was killed may take to clean up
TABLES = """
CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS jobs (
  name TEXT PRIMARY KEY, digest TEXT, state TEXT, result TEXT, why TEXT, launches INTEGER, next_limit INTEGER, record TEXT);
CREATE TABLE IF NOT EXISTS transitions (
  id INTEGER PRIMARY KEY, at REAL, job TEXT, attempt INTEGER, event TEXT, detail TEXT);
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier runs have left of a job. `state`: 'live' (interrupted, if nobody runs it), 'ended' or 'open' (it may run
    again); `launches`: attempts so far; `next_limit`: bytes that it had grown to, None where it had not."""

    digest: str
    state: str
    result: str
    why: str
    launches: int
    next_limit: int | None
    record: Mapping[str, object] | None


class Way(NamedTuple):
    """How the database is opened. `query`: of its URI; `wal`: in WAL mode, or with a rollback journal and nobody else in it."""

    query: str
    wal: bool


WAYS = (
    Way("", wal=True),
    Way("", wal=False),
    Way("?nolock=1", wal=False),  # NFS: our own flock(2) would keep SQLite out; it also keeps others out, so SQLite need not lock
)


class Ledger:
    """The database, locked. Where it cannot be written to any more (disk full), the run goes on, `remark` is told, once, and what there
    is to be written is kept until it can be."""

    def __init__(self, path: str, lock: int, pid: int, way: Way = Way("", wal=True)) -> None:  # noqa: B008  (a constant)
        self.path, self.lock = path, lock
        self.remark: Callable[[str], None] = _on_stderr
        self._pid = pid
        self._pending: list[tuple[str, tuple[object, ...]]] = []  # statements since the last commit
        self._broken, self._again, self._synced = False, 0.0, -math.inf
        self._base = sqlite3.connect(f"file:{quote(path)}{way.query}", uri=True, isolation_level=None, timeout=BUSY)
        try:
            self._prepare(way)
        except BaseException:
            self._base.close()
            raise

    def _prepare(self, way: Way) -> None:
        if not way.wal:
            self._base.execute(
                "PRAGMA locking_mode=EXCLUSIVE"
            )  # first: then even a WAL that is left there is read without shared memory
        self._check_schema()
        mode = "wal" if way.wal else "delete"
        if self._base.execute(f"PRAGMA journal_mode={mode}").fetchone()[0] != mode:
            raise sqlite3.OperationalError(f"journal_mode={mode} is not to be had")
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.execute(f"PRAGMA user_version={SCHEMA}")  # first: what has tables and no version is not ours
        self._base.executescript(TABLES)
        self.known()  # what cannot be read is said before anything is started
        self._about("pid", str(self._pid))
        self._about("host", hosts.here())
        self.commit()

    def _check_schema(self) -> None:
        """Before anything is written into what may be somebody else's."""
        found = self._base.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA:
            raise MemrunError(
                f"{self.path} was written by a newer memrun (schema {found})", "Use that one, or move the file away to begin anew"
            )
        if not found and self._base.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise sqlite3.DatabaseError("it is a database of something else")

    def _about(self, key: str, value: str) -> None:
        self._write("INSERT OR REPLACE INTO about VALUES (?, ?)", key, value)

    def _write(self, words: str, *values: object) -> None:
        self._pending.append((words, values))

    def known(self) -> dict[str, Known]:
        """All jobs that were ever run from this file."""
        return _known(self._base)

    def forget(self) -> None:
        """--fresh: nothing was ever run. Attempts are counted on, so that the logs of earlier ones are kept."""
        self._write("UPDATE jobs SET state = 'open', result = '', why = '', next_limit = NULL, record = NULL")
        self.commit()

    def note(self, job: str, attempt: int, event: str, detail: str = "") -> None:
        """One transition."""
        self._write(
            "INSERT INTO transitions (at, job, attempt, event, detail) VALUES (?, ?, ?, ?, ?)",
            time.time(),
            job,
            attempt,
            event,
            detail,
        )

    def launched(self, job: str, digest: str, attempt: int) -> None:
        """An attempt is about to be launched: from now on it is interrupted, if nothing else is known of it."""
        self._write(
            "INSERT INTO jobs (name, digest, state, result, why, launches) VALUES (?, ?, 'live', '', '', ?) ON CONFLICT (name) "
            "DO UPDATE SET digest = excluded.digest, state = 'live', result = '', why = '', launches = excluded.launches, record = NULL",
            job, digest, attempt,
        )  # fmt: skip

    def grown(self, job: str, limit: int | None) -> None:
        """What its next attempt's limit is to be, in bytes."""
        self._write("UPDATE jobs SET next_limit = ? WHERE name = ?", limit, job)

    def ended(self, job: str, result: str, why: str, record: Mapping[str, object] | None, *, again: bool = False) -> None:
        """A job is done with. `again`: it was not finished (or never started), and is to be run by the next `up`."""
        self._write(
            "INSERT INTO jobs (name, digest, state, result, why, launches, record) VALUES (?, '', ?, ?, ?, 0, ?) ON CONFLICT (name) "
            "DO UPDATE SET state = excluded.state, result = excluded.result, why = excluded.why, record = excluded.record",
            job, "open" if again else "ended", result, why, None if record is None else json.dumps(record),
        )  # fmt: skip

    def commit(self, *, durably: bool = False) -> float:
        """What was written is in the kernel's hands when this returns; `durably`: and on the disk, now or, where that was done a moment
        ago, in so many seconds: then this wants to be called again. What could not be written is kept, and tried
        again, though not at every commit."""
        now = time.monotonic()
        if self._broken and now < self._again:
            return math.inf
        try:
            if self._pending:
                self._base.execute("BEGIN")
                for words, values in self._pending:
                    self._base.execute(words, values)
                self._base.execute("COMMIT")
                self._pending, self._broken = [], False
            if durably and now < self._synced + TOGETHER:
                return self._synced + TOGETHER - now
            if durably and not self._broken:
                self._base.execute("PRAGMA synchronous=FULL")
                self._base.execute("INSERT OR REPLACE INTO about VALUES ('synced', ?)", (time.time(),))
                self._base.execute("PRAGMA synchronous=NORMAL")
                self._synced = time.monotonic()
        except sqlite3.Error as e:
            self._complain(e)
        return math.inf

    def _complain(self, e: sqlite3.Error) -> None:
        if not self._broken:
            self.remark(f"cannot record what happens in {self.path}: {e}; jobs that end now may be run again by the next up")
        self._broken, self._again = True, time.monotonic() + RETRY
        del self._pending[KEPT:]
        if self._base.in_transaction:
            self._base.execute("ROLLBACK")

    def close(self) -> None:
        """Let go; the database is one file again."""
        self._again, self._synced = 0.0, -math.inf
        self._about("host", "")  # nobody runs it now
        self.commit(durably=True)
        try:
            self._base.close()
        except sqlite3.Error as e:
            self.remark(f"cannot close {self.path}: {e}")
        os.close(self.lock)


def _known(base: sqlite3.Connection) -> dict[str, Known]:
    rows = base.execute("SELECT name, digest, state, result, why, launches, next_limit, record FROM jobs")
    return {
        name: Known(digest, state, result, why, launches, limit, json.loads(record) if record else None)
        for name, digest, state, result, why, launches, limit, record in rows
    }


def peek(job_file: str) -> dict[str, Known]:
    """What is known of its jobs, without a lock; nothing where there is no ledger (or none that can be read)."""
    for path in (place(job_file, make=False), elsewhere(job_file, make=False)):
        known = _read(path, _known)
        if known is not None:
            return known
    return {}


def _read(path: str, look: Callable[[sqlite3.Connection], Found]) -> Found | None:
    """What a look at a database finds while another memrun may be writing; None where it cannot be read. Without locks if need be: whoever has a
    rollback journal has the locks, too."""
    if not os.path.exists(path):
        return None
    for query in ("", "&nolock=1"):
        try:
            base = sqlite3.connect(f"file:{quote(path)}?mode=ro{query}", uri=True, timeout=0.1)
        except sqlite3.Error:
            continue
        try:
            return look(base)
        except (sqlite3.Error, ValueError):
            continue
        finally:
            base.close()
    return None


def _on_stderr(line: str) -> None:
    sys.stderr.write(f"memrun: {line}\n")


class Held:
    """The ledger of a job file, locked for us and all that we fork; closed with the last descriptor of it."""

    def __init__(self, job_file: str, path: str, lock: int) -> None:
        self._job_file, self._path, self._lock = job_file, path, lock

    def open(self, pid: int) -> Ledger:
        """To read and write, for who is known as `pid`. A database is not to be carried through a fork, a lock may be."""
        try:
            return self._opened(pid)
        except (sqlite3.Error, MemrunError, OSError, ValueError) as e:
            os.close(self._lock)
            if isinstance(e, MemrunError):
                raise
            if _is_full(self._path):
                raise MemrunError(
                    f"cannot keep the state of {self._job_file}: the disk of {self._path} is full", "Make room there"
                ) from None
            raise MemrunError(f"{self._path} is no state that memrun can use: {e}", "Move it away to begin anew") from None

    def _opened(self, pid: int) -> Ledger:
        """The first way that works. A database that is broken, or another's, is none the less for it: only what the file system refuses is a reason
        to try another way."""
        failed: sqlite3.Error | None = None
        for way in WAYS[1:] if hosts.is_network(self._path) else WAYS[:2]:
            try:
                return Ledger(self._path, self._lock, pid, way)
            except sqlite3.OperationalError as e:
                if _is_full(self._path):
                    raise
                failed = failed or e
        other = elsewhere(self._job_file)
        if other == self._path or failed is None:
            raise failed or sqlite3.OperationalError("it cannot be opened")
        made = Ledger(other, self._lock, pid)
        made.remark(f"the state of {self._job_file} is kept in {other}: {failed} beside the file")
        return made


def hold(job_file: str, *, take_over: bool = False) -> Held:
    """Lock the ledger of a job file; RefusedError names the pid of who has it. `take_over`: also where another machine has not said that it has ended."""
    try:
        path = place(job_file)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as e:
        raise MemrunError(f"cannot keep the state of {job_file}: {e.filename}: {os.strerror(e.errno or 0)}") from None
    try:
        _lock(job_file, path, lock)
        if not take_over:
            _look_elsewhere(job_file, path)
    except MemrunError:
        os.close(lock)
        raise
    return Held(job_file, path, lock)


def _is_full(path: str) -> bool:
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize < ROOM


def _lock(job_file: str, path: str, lock: int) -> None:
    """Refused while its holder lives; who was killed has a hand that is cleaning up, which is waited for."""
    until = time.monotonic() + CLEANING
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, machine = _holder(job_file, path)
            if machine not in {"", hosts.here()}:
                raise _busy(job_file, pid, machine) from None
            if pid is not None and _lives(pid):
                raise RefusedError(
                    f"{job_file} is being run already, by memrun with pid {pid}",
                    "memrun ps shows its jobs; memrun wait JOB waits for one",
                ) from None
            if time.monotonic() > until:
                raise RefusedError(
                    f"{job_file} is still being cleaned up after a memrun that was killed", "Try again in a moment"
                ) from None
            time.sleep(0.02)  # the only thing to do here is to wait for somebody else's process
        except OSError as e:
            raise MemrunError(
                f"cannot lock the state of {job_file}: {path}: {os.strerror(e.errno or 0)}",
                "Put the job file where files can be locked",
            ) from None
        else:
            return


def _busy(job_file: str, pid: int | None, machine: str) -> RefusedError:
    return RefusedError(
        f"{job_file} is being run already, on {hosts.name_of(machine)}, by memrun with pid {pid} there",
        f"memrun ps on {hosts.name_of(machine)} shows its jobs",
    )


def _look_elsewhere(job_file: str, path: str) -> None:
    """Where a lock does not reach other machines, what is stored there tells whether one of them runs the file."""
    pid, machine = _holder(job_file, path)
    if hosts.same_machine(machine) or hosts.locks_hold(path):
        return
    name = hosts.name_of(machine)
    raise RefusedError(
        f"{job_file} is being run on {name}, by memrun with pid {pid} there, or was when that died",
        f"Let it end there; if {name} is gone for good: memrun up --take-over {job_file}",
    )


def _holder(job_file: str, path: str) -> tuple[int | None, str]:
    """Pid and machine of who has it, or had it last. Machine '': nobody runs it, or an older memrun does."""

    def look(base: sqlite3.Connection) -> tuple[int | None, str]:
        found = dict(base.execute("SELECT key, value FROM about WHERE key IN ('pid', 'host')").fetchall())
        return (int(found["pid"]) if "pid" in found else None), str(found.get("host", ""))

    return _read(path, look) or _read(elsewhere(job_file, make=False), look) or (None, "")


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
