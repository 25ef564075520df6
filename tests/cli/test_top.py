"""`memrun top` on a real pty: it ends when it is told to, and gives the terminal back as it was."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from cli.fakerun import FakeRun

MEMRUN = [sys.executable, "-m", "memrun"]
LEAVE = "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = FakeRun(tmp_path)
    made.row("align[sample=a]", state="PAUSED")
    yield made
    made.close()


class Top:
    """`memrun top` with a terminal of its own."""

    def __init__(self, term="xterm"):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [*MEMRUN, "top"],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            env={**os.environ, "TERM": term},
        )
        self.seen = ""

    def expect(self, text):
        deadline = time.monotonic() + 20
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self.master, 1 << 16).decode()
        _, _, self.seen = self.seen.partition(text)

    def end(self):
        status = self.process.wait(20)
        assert termios.tcgetattr(self.slave) == self.before
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def top():
    started = []

    def start(**known):
        started.append(Top(**known))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("key", "number", "status"),
    [
        ("q", None, 0),
        ("Q", None, 0),
        ("\x04", None, 0),
        ("", signal.SIGINT, 0),
        ("", signal.SIGTERM, 143),
        ("", signal.SIGHUP, 129),
    ],
)
def test_it_ends_and_gives_the_terminal_back(fake, top, key, number, status):
    run = top()
    run.expect("align[sample=a]")
    os.write(run.master, key.encode())
    if number:
        run.process.send_signal(number)
    run.expect(LEAVE)
    assert run.end() == status


def test_it_stays_live(fake, top):
    run = top()
    run.expect("PAUSED")
    fake.rows[0]["state"] = "RUNNING"
    run.expect("RUNNING")
    os.write(run.master, b"x")  # any other key: look again at once
    fake.rows.clear()
    run.expect("nothing runs")
    os.write(run.master, b"q")
    assert run.end() == 0


def test_suspended_and_continued(fake, top):
    run = top()
    run.expect("PAUSED")
    run.process.send_signal(signal.SIGTSTP)
    _, status = os.waitpid(run.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    run.expect(LEAVE)
    assert termios.tcgetattr(run.slave) == run.before
    run.process.send_signal(signal.SIGCONT)
    run.expect("PAUSED")
    os.write(run.master, b"q")
    assert run.end() == 0


def test_elsewhere_it_is_ps_once(fake, top):
    said = subprocess.run([*MEMRUN, "top"], capture_output=True, text=True, timeout=20)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout == subprocess.run([*MEMRUN, "ps"], capture_output=True, text=True, timeout=20).stdout
    assert "align[sample=a]  PAUSED" in said.stdout
    run = top(term="dumb")
    run.expect("align[sample=a]  PAUSED")
    assert run.end() == 0
    assert "\x1b" not in run.seen


def test_it_takes_no_words(top):
    done = subprocess.run([*MEMRUN, "top", "web"], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("memrun: memrun top wants other words. Usage: memrun top")
