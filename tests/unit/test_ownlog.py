"""memrun's own lines: into the journal, syslog, a file; never waiting, never without a bound."""

from __future__ import annotations

import array
import fcntl
import os
import re
import socket

import pytest

from memrun import ownlog
from memrun.errors import MemrunError
from memrun.ownlog import ERROR, Log
from memrun.record import Record
from memrun.report import fields, summary


class Listener:
    """A journald, or a syslogd, as far as its socket goes."""

    def __init__(self, path):
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.bind(str(path))
        self.wire.setblocking(False)

    def raw(self):
        data, told, _, _ = self.wire.recvmsg(1 << 20, 64)
        if not told:
            return data
        fd = array.array("i", told[0][2])[0]
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        with os.fdopen(fd, "rb") as f:
            f.seek(0)
            return f.read()

    def entry(self):
        """As journald takes it apart."""
        rest, found = self.raw(), {}
        while rest:
            line, _, rest = rest.partition(b"\n")
            key, equals, value = line.partition(b"=")
            if not equals:
                size = int.from_bytes(rest[:8], "little")
                value, rest = rest[8 : 8 + size], rest[9 + size :]
            found[key.decode()] = value.decode()
        return found


@pytest.fixture
def listener(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    monkeypatch.setattr(ownlog, "JOURNAL", str(path))
    monkeypatch.setattr(ownlog, "SYSLOG", str(path))
    one = Listener(path)
    yield one
    one.wire.close()


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def log(clock):
    opened = []

    def open_log(target):
        opened.append(Log(target, None, clock))
        return opened[-1]

    yield open_log
    for one in opened:
        one.close()


def test_the_journal_gets_fields(listener, log):
    log("journal").say("a: oom-kill: so\nand so", ERROR, {"MEMRUN_NAME": "a", "MEMRUN_PEAK": "5"})
    assert listener.entry() == {
        "MESSAGE": "a: oom-kill: so\nand so", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "memrun", "SYSLOG_PID": str(os.getpid()),
        "MEMRUN_NAME": "a", "MEMRUN_PEAK": "5",
    }  # fmt: skip


def test_what_is_too_large_for_a_datagram_comes_in_a_sealed_file(listener, log):
    listener.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    log("journal").say("x" * (1 << 22))
    assert len(listener.entry()["MESSAGE"]) == 1 << 22


def test_a_record_s_fields():
    record = Record("a", ["x"])
    record.result, record.status, record.limit, record.peak, record.signal = "oom-kill", 137, 5 << 20, 4 << 20, 9
    assert fields(record) == {
        "MEMRUN_NAME": "a", "MEMRUN_RESULT": "oom-kill", "MEMRUN_STATUS": "137", "MEMRUN_LIMIT": "5242880",
        "MEMRUN_PEAK": "4194304", "MEMRUN_ELAPSED": "0.0", "MEMRUN_SIGNAL": "9", "MEMRUN_ATTEMPTS": "1",
    }  # fmt: skip
    record.result = "success"
    assert summary(record) == "a: success after 0.00 s (peak 4M)"


def test_syslog(listener, log):
    log("syslog").say("one\ntwo" + "x" * 9000, ERROR)
    data = listener.raw().decode()
    assert re.match(rf"<27>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d memrun\[{os.getpid()}\]: one \| twoxxx", data)
    assert len(data) < 8100


def test_a_socket_that_is_full_is_not_waited_for(listener, log):
    one = log("journal")
    said = 0
    while not one._missing:
        one.say("x" * 1000, always=True)
        said += 1
    for _ in range(said - 1):
        listener.raw()
    one.say("last", always=True)
    assert listener.entry()["MESSAGE"] == "1 lines are missing here: there were too many"
    assert listener.entry()["MESSAGE"] == "last"


def test_a_flood_is_bounded_and_counted(listener, log, clock):
    one = log("journal")
    listener.wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    got = []
    for number in range(1000):
        one.say(str(number))
        try:
            got.append(listener.entry()["MESSAGE"])
        except BlockingIOError:
            continue
    assert got == [str(number) for number in range(ownlog.BURST)]
    clock.now += 1
    one.say("later")
    assert [listener.entry()["MESSAGE"] for _ in range(2)] == ["950 lines are missing here: there were too many", "later"]
    for _ in range(10):
        one.say("x")
    one.say("the verdict", always=True)
    while (said := listener.entry()["MESSAGE"]) == "x":
        pass
    assert said == "6 lines are missing here: there were too many"
    assert listener.entry()["MESSAGE"] == "the verdict"


def test_no_journal_no_line_lost(log, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(ownlog, "JOURNAL", str(tmp_path / "none"))
    one = log("journal")
    one.say("first")
    one.say("second")
    said = capfd.readouterr().err.split("\n")
    assert said == [
        f"memrun: no line gets to {tmp_path}/none (No such file or directory): they are said here", "memrun: first", "memrun: second", "",
    ]  # fmt: skip


def test_a_file(log, tmp_path):
    path = tmp_path / "x.log"
    one = log(str(path))
    one.say("first\nsecond")
    path.rename(tmp_path / "moved")  # logrotate
    one.say("third")
    assert re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ memrun\[\d+\]: (first|second)\n){2}", (tmp_path / "moved").read_text())
    assert path.read_text().endswith(": third\n")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(MemrunError, match="symbolic link"):
        log(str(tmp_path / "link"))
