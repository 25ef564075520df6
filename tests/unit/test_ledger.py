"""What is known of a job file's jobs survives, whatever happens to who wrote it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from memrun.batch import ledger, store_path
from memrun.errors import MemrunError, RefusedError


@pytest.fixture
def file(tmp_path):
    (tmp_path / "jobs.toml").touch()
    return str(tmp_path / "jobs.toml")


def take(file):
    return ledger.hold(file).open(os.getpid())


def test_what_was_written_is_known_again(file):
    book = take(file)
    book.launched("a", "d1", 1)
    book.ended("a", "success", "", {"peak": 5})
    book.launched("b", "d2", 3)
    book.grown("b", 700)
    book.ended("c", "skipped", "needs x", None, again=True)
    book.commit(durably=True)
    book.close()
    known = ledger.peek(file)
    book = take(file)
    assert book.known() == known
    book.close()
    assert known["a"] == ledger.Known("d1", "ended", "success", "", 1, None, {"peak": 5})
    assert known["b"] == ledger.Known("d2", "live", "", "", 3, 700, None)
    assert known["c"] == ledger.Known("", "open", "skipped", "needs x", 0, None, None)


def test_a_write_outlives_a_sigkill_as_soon_as_it_is_committed(file):
    program = (
        "import os, sys; from memrun.batch import ledger; book = ledger.hold(sys.argv[1]).open(os.getpid()); book.launched('a', 'd', 1); "
        "book.ended('a', 'success', '', {}); book.commit(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, file]).returncode == -9
    assert ledger.peek(file)["a"].result == "success"


def test_fresh_forgets_all_but_the_number_of_attempts(file):
    book = take(file)
    book.launched("a", "d1", 4)
    book.ended("a", "success", "", {})
    book.forget()
    assert book.known()["a"] == ledger.Known("d1", "open", "", "", 4, None, None)
    book.close()


def test_the_second_is_refused_with_the_pid_of_the_first(file):
    book = take(file)
    with pytest.raises(RefusedError, match=f"pid {os.getpid()}"):
        take(file)
    book.close()
    take(file).close()


def test_who_was_killed_is_waited_for_until_its_hand_has_let_go(file, monkeypatch):
    book = take(file)
    hand = os.dup(book.lock)
    book._about("pid", "4194305")  # nobody's
    book.commit()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        os.close(hand)
        fcntl.flock(book.lock, fcntl.LOCK_UN)

    monkeypatch.setattr(ledger.time, "sleep", sleep)
    take(file).close()
    assert len(slept) == 1
    book.close()


def test_a_full_disk_is_said_once_and_ends_nothing(file):
    book, remarks = take(file), []
    book.remark = remarks.append
    book._base.execute("PRAGMA max_page_count = 1")
    for number in range(2000):
        book.note("a", 1, "event", "x" * 1000 + str(number))
    book.commit(durably=True)
    assert len(remarks) == 1
    assert "full" in remarks[0]
    book.close()


@pytest.mark.parametrize("text", [b"this is no database" * 100, b"SQLite format 3\0" + b"x" * 5000])
def test_something_else_is_refused(file, text):
    with open(ledger.place(file), "wb") as f:
        f.write(text)
    with pytest.raises(MemrunError, match="no state that memrun can use"):
        take(file)


def test_that_of_a_newer_memrun_is_refused(file):
    take(file).close()
    base = sqlite3.connect(ledger.place(file))
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(MemrunError, match="newer"):
        take(file)


def test_where_nothing_can_be_written_beside_the_file(file, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    place = ledger.place(file)
    assert place.startswith(str(tmp_path / "state/memrun/jobs.toml-"))
    assert ledger.place(file + "2") != place


def test_a_link_in_its_place_is_not_followed(file, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("")
    monkeypatch.setattr(store_path, "_state_directory", lambda make: str(tmp_path / "state"))
    os.symlink(tmp_path / "secret", tmp_path / ".jobs.toml.memrun")
    assert ledger.place(file).startswith(str(tmp_path / "state/jobs.toml-"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_somebody_else_put_there_is_not_believed(file, tmp_path, monkeypatch):
    """But for the job file's owner, who says what is run anyway."""
    monkeypatch.setattr(store_path, "_state_directory", lambda make: str(tmp_path / "state"))
    beside = tmp_path / ".jobs.toml.memrun"
    beside.touch()
    os.chown(beside, 4201, 4201)
    assert ledger.place(file).startswith(str(tmp_path / "state/jobs.toml-"))
    os.chown(file, 4201, 4201)
    assert ledger.place(file) == str(beside)


@pytest.mark.parametrize("words", ["CREATE TABLE jobs (id INT)", "CREATE TABLE photos (name TEXT)"])
def test_a_database_of_something_else_is_refused_and_left_as_it_is(file, words):
    path = ledger.place(file)
    base = sqlite3.connect(path)
    base.execute(words)
    base.commit()
    base.close()
    before = Path(path).read_bytes()
    with pytest.raises(MemrunError, match="something else"):
        take(file)
    assert Path(path).read_bytes() == before


def test_a_record_that_cannot_be_read_is_said_before_anything_starts(file):
    take(file).close()
    base = sqlite3.connect(ledger.place(file))
    base.execute("INSERT INTO jobs VALUES ('a', 'd', 'ended', 'success', '', 1, NULL, '{')")
    base.commit()
    base.close()
    with pytest.raises(MemrunError, match="Move it away"):
        take(file)
    assert ledger.peek(file) == {}


def test_no_room_beside_the_file_is_called_that(file, monkeypatch):
    monkeypatch.setattr(ledger, "ROOM", 1 << 60)
    Path(ledger.place(file)).write_bytes(b"no database")
    with pytest.raises(MemrunError, match="is full"):
        take(file)


def test_where_locks_do_not_reach_other_machines_what_is_stored_tells(file, monkeypatch):
    book = take(file)
    book._about("host", "far/some-boot/1")
    book.commit()
    base, lock = book._base, book.lock
    base.close()
    os.close(lock)  # as if that machine were not heard of any more
    take(file).close()  # here locks do reach: nobody has it
    path = ledger.place(file)
    with sqlite3.connect(path) as base:
        base.execute("INSERT OR REPLACE INTO about VALUES ('host', 'far/some-boot/1')")
    base.close()
    monkeypatch.setattr(ledger.hosts, "_mount", lambda path: ("9p", "rw,relatime,trans=virtio"))
    with pytest.raises(RefusedError, match=r"being run on far, by memrun with pid .* --take-over"):
        take(file)
    held = ledger.hold(file, take_over=True)
    book = held.open(os.getpid())
    book.close()
    take(file).close()  # it has said that it has ended


def serves(book, file):
    """It keeps what it is told, is read by others meanwhile, and keeps a second memrun out; then it is closed."""
    book.launched("a", "d1", 1)
    book.commit()
    assert ledger.peek(file)["a"].state == "live"
    with pytest.raises(RefusedError, match=f"pid {os.getpid()}"):
        take(file)
    book.close()


def test_on_a_network_file_system_no_shared_memory_is_wanted_and_no_lock_of_sqlite_s(file, monkeypatch):
    monkeypatch.setattr(ledger.hosts, "_mount", lambda path: ("nfs4", "rw,local_lock=none"))
    book = take(file)
    assert book._base.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert not os.path.exists(book.path + "-shm")
    serves(book, file)


def test_where_sqlite_cannot_work_beside_the_file_the_state_is_kept_elsewhere(file, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("memrun.history.os.geteuid", lambda: 1000)
    real = ledger.Ledger._prepare

    def prepare(book, way):
        if not book.path.startswith(str(tmp_path / "state")):
            raise sqlite3.OperationalError("disk I/O error")
        real(book, way)

    monkeypatch.setattr(ledger.Ledger, "_prepare", prepare)
    book = take(file)
    assert book.path.startswith(str(tmp_path / "state"))
    assert "is kept in" in capsys.readouterr().err
    serves(book, file)
