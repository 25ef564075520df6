"""--lock and --jitter: nothing is started before its turn, and the turn is over when nothing of the job is left."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MEMRUN = [sys.executable, "-m", "memrun"]


@pytest.fixture
def lock(tmp_path):
    return f"{tmp_path}/lock"


@pytest.fixture
def name():
    return f"test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def holding():
    """holding(*options) -> a memrun whose job holds the lock until its stdin is closed."""
    started = []

    def hold(*options, command=("sh", "-c", "echo in; read -r _")):
        one = subprocess.Popen(
            [*MEMRUN, *options, "--", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(one)
        assert one.stdout.readline() == "in\n"
        return one

    yield hold
    for one in started:
        one.stdin.close()
        one.wait(20)
        one.stdout.close()
        one.stderr.close()


def test_an_overlapping_run_is_refused_and_told_who_has_it(memrun, holding, name, tmp_path):
    first = holding("--lock", name)
    report = tmp_path / "report"
    report.write_text("the last one's")
    done = memrun("--lock", name, "--report", str(report), "--", "echo", "hi")
    assert (done.returncode, done.stdout) == (75, "")
    assert (
        done.stderr == f"memrun: not started: another run has the lock {name} (pid {first.pid}). --lock-wait TIME waits for it\n"
    )
    assert report.read_text() == "the last one's"  # it is the holder's to write
    first.stdin.close()
    assert first.wait(20) == 1
    assert memrun("--lock", name, "--", "echo", "hi").stdout == "hi\n"
    assert not os.path.exists(f"/run/memrun/{name}.lock" if os.geteuid() == 0 else f"/tmp/memrun-{os.geteuid()}/{name}.lock")


def test_the_lock_is_called_as_the_job_is(memrun, holding, name):
    holding("--lock", "--name", name)
    done = memrun(f"--lock={name}", "--lock-wait", "50ms", "--", "true")
    assert done.returncode == 75
    assert f"another run has the lock {name} (pid " in done.stderr
    assert done.stderr.endswith(", also after 0.05 s\n")


def test_who_waits_gets_it_when_it_is_free(holding, lock, memrun):
    first = holding("--lock", lock)
    waiting = [
        subprocess.Popen([*MEMRUN, "--lock", lock, "--lock-wait", "1m", "--", "true"], stderr=subprocess.PIPE) for _ in range(3)
    ]
    assert [one.poll() for one in waiting] == [None] * 3
    first.stdin.close()
    assert [one.communicate(timeout=20)[1] for one in waiting] == [b""] * 3
    assert [one.returncode for one in waiting] == [0] * 3
    assert Path(lock).read_text() == ""


def test_a_lock_that_flock_has_is_named_as_the_kernel_does(memrun, lock):
    with open(lock, "w") as f:
        f.write("precious")
        f.flush()
        fcntl.flock(f, fcntl.LOCK_EX)
        done = memrun("--lock", lock, "--", "true")
        assert (done.returncode, f"(pid {os.getpid()})" in done.stderr) == (75, True)
    assert memrun("--lock", lock, "--", "true").returncode == 0
    assert Path(lock).read_text() == "precious"


def test_kill_9_releases_it_once_nothing_of_the_job_is_left(memrun, holding, lock):
    first = holding("--lock", lock, command=("sh", "-c", "echo in; echo $$; exec sleep 1000"))
    job = first.stdout.readline().strip()
    first.kill()
    done = memrun("--lock", lock, "--lock-wait", "20s", "--", "sh", "-c", f"! grep -qs 'State:.[RSDT]' /proc/{job}/status")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("what", ["jitter", "lock"])
def test_a_signal_ends_the_wait_at_once(number, what, lock, holding, tmp_path):
    if what == "lock":
        holding("--lock", lock)
    words = ["--jitter", "100000h"] if what == "jitter" else ["--lock", lock, "--lock-wait", "infinity"]
    record = tmp_path / "report"
    one = subprocess.Popen([*MEMRUN, *words, "--report", str(record), "--", "true"], stderr=subprocess.PIPE, text=True)
    _until_it_waits(one.pid)
    one.send_signal(number)
    said = one.communicate(timeout=20)[1]
    assert one.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert "stopped " in said
    assert (json.loads(record.read_text())["result"], said.count("\n")) == ("stopped", 1)


def test_who_waits_does_not_outlive_a_kill_9(holding, lock):
    holding("--lock", lock)
    one = subprocess.Popen([*MEMRUN, "--lock", lock, "--lock-wait", "infinity", "--", "true"])
    _until_it_waits(one.pid)
    (queued,) = Path(f"/proc/{one.pid}/task/{one.pid}/children").read_text().split()
    pidfd = os.pidfd_open(int(queued))
    one.kill()
    one.wait()
    assert select.select([pidfd], [], [], 20)[0], "the copy that waits for the lock is still there"
    os.close(pidfd)


def _until_it_waits(pid):
    """Until it sits in sigtimedwait, with TERM blocked; where the kernel does not tell, until it sleeps for a while."""
    deadline, asleep = time.monotonic() + 20, 0
    while time.monotonic() < deadline and asleep < 50:
        try:
            if Path(f"/proc/{pid}/syscall").read_text().startswith("128 "):  # rt_sigtimedwait on x86-64
                return
        except FileNotFoundError:
            asleep = asleep + 1 if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "S" else 0
        time.sleep(0.005)
    assert asleep, "it does not wait"


def test_a_little_jitter(memrun):
    done = memrun("--jitter", "50ms", "--", "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


@pytest.mark.parametrize("kind", ["link", "nowhere"])
def test_what_cannot_be_a_lock(memrun, lock, kind):
    if kind == "link":
        os.symlink("/etc/passwd", lock)
    place = lock if kind == "link" else f"{lock}/x"
    done = memrun("--lock", place, "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"memrun: cannot open the lock {place}: ")


def test_a_batch_has_a_lock_as_well(memrun, holding, tmp_path, name):
    file = tmp_path / "x.toml"
    file.write_text('[jobs.a]\ncommand = "true"\nlimit = "20M"\n')
    first = holding("--lock", name)
    done = memrun("up", f"--lock={name}", str(file))
    assert (done.returncode, f"(pid {first.pid})" in done.stderr) == (75, True)
    first.stdin.close()
    first.wait(20)
    assert memrun("up", f"--lock={name}", "--lock-wait", "10s", "--jitter=10ms", "-q", str(file)).returncode == 0
    assert memrun("up", "--lock", str(file), "-q").returncode == 0  # the file, not the lock's name
