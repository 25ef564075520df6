"""The other side of a memrun's socket may be gone by the time that it is asked, and is there before it is found."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
from pathlib import Path

import pytest

from memrun import clients, door, names, verbs
from memrun.errors import JobNameError, MemrunError


def test_one_that_ended_after_it_was_found(tmp_path):
    with pytest.raises(MemrunError, match="has just ended"):
        clients.ask(str(tmp_path / "7.sock"), {"verb": "wait"})
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(tmp_path / "8.sock"))  # its memrun was killed: nobody listens
    with pytest.raises(MemrunError, match="has just ended"):
        clients.ask(str(tmp_path / "8.sock"), {"verb": "wait"})


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where sockets are: names.directory()."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = names.directory(make=True)
    assert found is not None
    return Path(found)


@pytest.mark.parametrize("moment", ["chmod", "rename"])
def test_who_looks_while_one_begins_to_listen_does_not_take_it_away(place, monkeypatch, moment):
    """What refuses him is a dead one's: so nobody may find it before it listens."""
    real, seen = getattr(os, moment), []

    def looked(*words):
        seen.append(list(clients.sockets()))
        real(*words)
        seen.append(list(clients.sockets()))

    monkeypatch.setattr(door.os, moment, looked)
    opened, why = door.open_door()
    monkeypatch.undo()
    assert (seen[0], why) == ([], "")
    assert [file.name for file in place.iterdir()] == [f"{os.getpid()}.sock"]
    clients.connect(opened.path).close()
    opened.close()
    assert not list(place.iterdir())


def test_what_dead_ones_left_is_swept(place):
    for number in (os.getpid(), 1 << 22):  # the second is more than any process has
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.bind(str(place / f"{number}.new"))
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(place / f"{1 << 22}.sock"))
    (place / "gone.name").write_text(f"{1 << 22}\n")
    assert list(clients.sockets()) == []
    assert [file.name for file in place.iterdir()] == [f"{os.getpid()}.new"]


def test_a_name_that_is_only_being_swept_is_to_be_had(place, monkeypatch):
    with open(place / "mine.name", "w") as swept:
        fcntl.flock(swept, fcntl.LOCK_EX)
        monkeypatch.setattr(names.time, "sleep", lambda _: (os.unlink(swept.name), swept.close()))
        claim = names.Claim("mine", insist=True)
    assert claim.path == str(place / "mine.name")
    claim.release()
    names.sweep(str(place / "mine.name"))  # released in that very moment: nothing is made of it
    assert not list(place.iterdir())


def test_a_name_that_is_taken_is_refused(place):
    claim = names.Claim("mine", insist=True)
    with pytest.raises(JobNameError, match=f"a job called mine is running already .memrun {os.getpid()}."):
        names.Claim("mine", insist=True)
    assert names.Claim("mine", insist=False).path == ""
    claim.release()


ROW = {"name": "job"}  # an older or newer memrun's: whatever else is in it
STRANGE = [
    b"", b"\n", b"no answer\n", b"[]\n", b"[" * 100_000 + b"\n", b'{"ok": true', b'{"ok": true, "jobs": 7, "event": 7, "rows": 7}\n',
    b'{"ok": true, "jobs": [7, {}, {"name": 7}], "rows": [7, {}], "event": {}, "status": "x", "to": "x"}\n',
    json.dumps({"ok": True, "jobs": [ROW], "rows": [ROW], "event": "launched", "to": None}).encode() + b"\n",
    json.dumps({"ok": True, "jobs": [ROW | dict.fromkeys(clients.COLUMNS, "\ud800\x1b[2J")]}).encode() + b"\n",
    json.dumps({"ok": True, "jobs": [ROW | {"log": ["/a\0b", "/\ud800", "", 7, "/dev/null/x"]}]}).encode() + b"\n",
    json.dumps({"ok": False, "error": [], "remedy": 7}).encode() + b"\n",
]  # fmt: skip


@pytest.fixture(params=STRANGE, ids=range(len(STRANGE)))
def stranger(place, request):
    """Listens where memruns do, and answers whatever it is asked with these words."""
    with socket.socket(socket.AF_UNIX) as ears:
        ears.bind(str(place / f"{os.getpid()}.sock"))
        ears.listen(20)

        def answer():
            while True:
                try:
                    wire, _ = ears.accept()
                except OSError:
                    return
                with wire, contextlib.suppress(OSError):
                    if wire.recv(4096):
                        wire.sendall(request.param)

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        ears.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "words", ["ps", "ps --json", "show job", "events", "events -f job", "wait job", "raise job 5M", "reclaim job", "logs -f job"]
)  # fmt: skip
def test_what_answers_may_be_no_memrun_of_this_version(stranger, words, capsys):
    verb, *more = words.split()
    try:
        status = verbs.act(verb, more)
    except MemrunError as e:
        assert e.what
        status = e.status
    assert isinstance(status, int)
    assert "\x1b" not in capsys.readouterr().out
