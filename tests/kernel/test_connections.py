"""Clients at the control socket that say nothing, never read, never leave or are dead: others are answered, and memrun sleeps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memrun import clients, connections, verbs, vigil
from memrun.errors import JobNameError, MemrunError

MEMRUN = [sys.executable, "-m", "memrun"]
MANY = 200  # more than may be connected, and than wait to be let in
IDLE = 0.5  # seconds that are looked at
BUSY = 0.1  # seconds of CPU in that time which nobody who sleeps needs


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(*options) -> (process, path of its socket), of a job named `it` that ends when its stdin is closed."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    with contextlib.ExitStack() as stack:

        def start(*options):
            words = ["--limit", "50M", "--name", "it", *options, "--", "sh", "-c", "echo up; read line"]
            process = subprocess.Popen([*MEMRUN, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.stdout.close)
            stack.callback(process.wait, timeout=30)
            stack.callback(process.stdin.close)
            assert process.stdout.readline() == "up\n"
            path = tmp_path / "memrun" / f"{process.pid}.sock"
            while not path.exists():
                assert process.poll() is None
                time.sleep(0.005)
            return process, str(path)

        yield start


@contextlib.contextmanager
def connected(path, number, said=b""):
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(number):
            wire = stack.enter_context(socket.socket(socket.AF_UNIX))
            wire.settimeout(None)  # waits where others wait to be let in
            wire.connect(path)
            with contextlib.suppress(BrokenPipeError):  # closed for one that came later
                wire.sendall(said)
            wires.append(wire)
        yield wires


def asked(*words):
    return subprocess.run([*MEMRUN, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


def rows():
    done = asked("ps", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [row["name"] for row in json.loads(done.stdout)]


def seconds_of_cpu(process):
    words = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


WAIT = b'{"verb": "wait", "name": "it"}\n'
EVENTS = b'{"verb": "events", "follow": true}\n'
loops = pytest.mark.parametrize("options", [[], ["--at", "40M=signal:USR1"]], ids=["vigil", "trio"])


@loops
@pytest.mark.parametrize("said", [b"", b'{"verb": '], ids=["silent", "slow"])
def test_who_says_nothing_keeps_nobody_out_and_memrun_asleep(job, options, said):
    process, path = job(*options)
    with connected(path, MANY, said):
        assert rows() == ["it"]
        before = seconds_of_cpu(process)
        time.sleep(IDLE)
        assert seconds_of_cpu(process) - before < BUSY
        done = asked("raise", "it", "60M")
        assert (done.returncode, done.stdout) == (0, "it: limit 50M -> 60M\n")


@loops
def test_the_silent_one_is_closed_and_not_the_one_that_asks(job, options):
    _, path = job(*options)
    most = connections.MOST if options else vigil.MOST
    with (
        connected(path, 1) as (silent,),
        connected(path, 1) as (asks,),
        asks.makefile("rb") as lines,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(most + 10):
            asks.sendall(b'{"verb": "ps"}\n')
            assert json.loads(lines.readline())["ok"]
            stack.enter_context(connected(path, 1))
        assert silent.recv(1) == b""
        asks.sendall(b'{"verb": "ps"}\n')
        assert json.loads(lines.readline())["ok"]


@loops
@pytest.mark.parametrize("question", [WAIT, EVENTS], ids=["wait", "events"])
def test_clients_that_wait_and_die_are_let_go_of(job, options, question):
    process, path = job(*options)
    with connected(path, 1, b'{"verb": "show", "name": "it"}\n') as (first,):
        assert first.recv(1)  # the event loop is there
    before = len(os.listdir(f"/proc/{process.pid}/fd"))
    for _ in range(3):
        with connected(path, connections.MOST, question):
            pass
        assert rows() == ["it"]
    until = time.monotonic() + 20
    while len(os.listdir(f"/proc/{process.pid}/fd")) > before:
        assert time.monotonic() < until, "descriptors of dead clients are held"
        time.sleep(0.01)


@loops
def test_as_many_wait_as_may_and_all_are_answered(job, options):
    process, path = job(*options)
    with connected(path, connections.MOST_WAITING, WAIT) as wires:
        assert rows() == ["it"]
        with connected(path, 1, WAIT) as (more,), more.makefile("rb") as lines:
            assert "wait here already" in json.loads(lines.readline())["error"]
        for wire in wires[:5]:
            wire.shutdown(socket.SHUT_WR)  # has nothing more to say, and still wants to know
        process.stdin.close()
        for wire in wires:
            with wire.makefile("rb") as lines:
                assert json.loads(lines.readline())["result"] == "exit-code"


def test_a_memrun_that_does_not_answer_is_named(job, monkeypatch, capsys):
    """Its jobs are not shown: that is no success of ps, and no proof that there is no such job."""
    process, _ = job()
    assert clients.jobs()[1] == []
    process.send_signal(signal.SIGSTOP)
    found = clients.jobs(0.1)
    process.send_signal(signal.SIGCONT)
    assert found == ([], [process.pid])
    monkeypatch.setattr(clients, "jobs", lambda: found)
    with pytest.raises(MemrunError, match=rf"memrun {process.pid} did not answer in time: its jobs are not shown"):
        verbs.act("ps", [])
    assert capsys.readouterr().out == ""
    with pytest.raises(JobNameError, match=rf"Nothing runs under memrun; but memrun {process.pid} did not answer in time"):
        clients.find("it")
