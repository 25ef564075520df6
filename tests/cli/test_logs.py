"""`memrun logs [-f]`: everything that a job writes, once, in order, through rotations and restarts, until it is over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from cli.fakerun import FakeRun

MEMRUN = [sys.executable, "-m", "memrun"]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = FakeRun(tmp_path)
    yield made
    made.close()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "logs" / "job.1.log"
    path.parent.mkdir()
    path.write_bytes(b"one\n")
    return path


class Following:
    """`memrun logs -f NAME`, and what it has printed."""

    def __init__(self, name="job"):
        self.process = subprocess.Popen([*MEMRUN, "logs", "-f", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.seen = b""

    def expect(self, text):
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, (self.seen, self.process.stderr.read())
            self.seen += data

    def end(self):
        rest, said = self.process.communicate(timeout=20)
        return self.process.returncode, self.seen + rest, said


@pytest.fixture
def following():
    started = []

    def start(name="job"):
        started.append(Following(name))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def logs(*words):
    return subprocess.run([*MEMRUN, "logs", *words], capture_output=True, timeout=20)


def append(path, data):
    with open(path, "ab") as f:
        f.write(data)


def test_all_of_the_current_attempt(fake, log):
    old = log.with_name("job.1.log.1")
    old.write_bytes(b"zero \xff\x1b[31m\n")
    fake.row(log=[str(old), str(log.with_name("gone.log")), str(log)])
    done = logs("job")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"zero \xff\x1b[31m\none\n", b"")


@pytest.mark.parametrize("answer", [{"ok": True, "result": "success", "status": 0}, None])
def test_followed_until_the_job_is_over_or_memrun_is_killed(fake, log, following, answer):
    fake.row(log=[str(log)])
    run = following()
    run.expect(b"one\n")
    append(log, b"two\n")
    run.expect(b"two\n")
    wire = fake.asked("wait")
    append(log, b"last words, without an end of line")
    if answer:
        fake.say(wire, answer)
    else:
        fake.close()
    assert run.end() == (0, b"one\ntwo\nlast words, without an end of line", b"")


def test_through_rotation_and_truncation(fake, log, following):
    fake.row(log=[str(log)])
    run = following()
    run.expect(b"one\n")
    append(log, b"before\n")
    log.rename(log.with_name("job.1.log.1"))
    log.write_bytes(b"after\n")
    run.expect(b"after\n")
    os.truncate(log, 0)
    append(log, b"cut\n")
    run.expect(b"cut\n")
    fake.say(fake.asked("wait"), {"ok": True})
    assert run.end() == (0, b"one\nbefore\nafter\ncut\n", b"")


def test_a_log_that_is_made_later(fake, log, following):
    log.unlink()
    fake.row(log=[str(log)])
    run = following()
    fake.asked("wait")
    log.write_bytes(b"here\n")
    run.expect(b"here\n")
    fake.say(fake.asked("wait"), {"ok": True})
    assert run.end()[:2] == (0, b"here\n")


def test_on_to_the_next_attempt(fake, log, following):
    second = log.with_name("job.2.log")
    fake.row(log=[str(log)])
    run = following()
    run.expect(b"one\n")
    second.write_bytes(b"again\n")
    fake.rows[0]["log"] = [str(second)]
    for word in ("settled", "launched"):
        fake.say(fake.asked("events"), {"event": word, "name": "job"})
    run.expect(b"again\n")
    append(second, b"more\n")
    run.expect(b"more\n")
    fake.say(fake.asked("wait"), {"ok": True})
    assert run.end() == (0, b"one\n\n==> " + bytes(second) + b" <==\nagain\nmore\n", b"")


def test_no_longer_than_somebody_reads(fake, log, following):
    fake.row(log=[str(log)])
    run = following()
    run.expect(b"one\n")
    run.process.stdout.close()
    assert run.process.wait(20) == 0
    assert run.process.stderr.read() == b""
    run.process.stderr.close()


def test_control_c_ends_it_as_it_ends_any_command(fake, log, following):
    fake.row(log=[str(log)])
    run = following()
    run.expect(b"one\n")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == (-signal.SIGINT, b"one\n", b"")


def test_what_the_memrun_refuses_is_said(fake, log, following):
    fake.row(log=[str(log)])
    run = following()
    fake.say(fake.asked("wait"), {"ok": False, "error": "it is none of mine", "remedy": ""})
    assert run.end() == (125, b"one\n", b"memrun: it is none of mine\n")


def test_where_the_output_went_when_there_is_no_log(fake, tmp_path):
    with open(tmp_path / "out", "wb") as f:
        job = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.DEVNULL)
    try:
        fake.row(pid=job.pid)
        done = logs("job")
    finally:
        job.kill()
        job.wait()
    said = f"memrun: job keeps no log: its stdout is {tmp_path}/out, its stderr is /dev/null. Try: tail -F {tmp_path}/out\n"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (125, b"", said)
    fake.rows[0].update(pid=job.pid, usage=None)
    assert logs("job").stderr == b"memrun: job keeps no log, and is not running at the moment\n"


@pytest.mark.parametrize("what", ["nothing", "a directory", "a pipe"])
def test_logs_that_cannot_be_read(fake, log, what):
    log.unlink()
    if what == "a directory":
        log.mkdir()
    elif what == "a pipe":
        os.mkfifo(log)
    fake.row("a\x1b[2J", log=[str(log)])
    done = logs("a\x1b[2J")
    said = {
        "nothing": f"a?[2J has not written a log: there is no {log}",
        "a directory": f"cannot read the log {log}: it is not a file",
        "a pipe": f"cannot read the log {log}: it is not a file",
    }
    assert (done.returncode, done.stdout, done.stderr.decode()) == (125, b"", f"memrun: {said[what]}\n")


@pytest.mark.parametrize("words", [(), ("a", "b"), ("--what", "a")])
def test_other_words(words):
    done = logs(*words)
    assert done.returncode == 125
    assert b"Usage: memrun logs [-f] NAME" in done.stderr
