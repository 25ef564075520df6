"""--best-effort: no memory group is to be had (cgroupfs is read-only, as in a container), and a job is kept near its limit all the same."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

READ_ONLY = """
for place in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/mounts); do mount -o remount,bind,ro "$place" || exit 99; done
exec "$@"
"""
THERE = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh"]
MEMRUN = [sys.executable, "-m", "memrun"]
SOON = 20.0
EAT = """
import sys
size = int(sys.argv[1]) << 20
kept = bytearray(size)
for at in range(0, size, 4096): kept[at] = 1
print("ate", flush=True)
sys.stdin.read()
"""
FAMILY = """
import os, sys, time
def grow():  # a child, a grandchild in a session of its own, whose parent is gone
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        print("daemon", os.getpid(), flush=True)
        time.sleep(1000)
    os.wait()
grow()
child = os.fork()
if child == 0: time.sleep(1000)
print("child", child, flush=True)
print("self", os.getpid(), flush=True)
exec(sys.argv[1])
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="to make cgroupfs read-only takes root")


@pytest.fixture
def ask(memrun):
    """ask(verb, name, ...) -> what it said, of a job that runs, or will in a moment."""

    def go(verb, name, *words):
        deadline = time.monotonic() + SOON
        while (done := memrun(verb, name, *words)).returncode and "no job is called" in done.stderr:
            assert time.monotonic() < deadline, done.stderr
        assert done.returncode == 0, done.stderr
        return done.stdout

    return go


@pytest.fixture
def start():
    """start(*words) -> a memrun for which no group is to be had; ended after the test."""
    begun = []

    def go(*words, before=(), **options):
        known = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen([*THERE, *before, *MEMRUN, *words], **{**known, **options}))
        return begun[-1]

    yield go
    for one in begun:
        with one:  # which closes its pipes
            if one.poll() is None:
                one.terminate()
                one.wait(SOON)


def run(start, *words, **options):
    one = start(*words, **options)
    out, err = one.communicate(timeout=60)
    return subprocess.CompletedProcess(words, one.returncode, out, err)


def python(text, *words):
    return ["--", sys.executable, "-I", "-S", "-c", text, *words]


def family(one):
    """{'daemon': pid, 'child': pid, 'self': pid} of FAMILY, each with a pidfd."""
    pids = dict(one.stdout.readline().split() for _ in range(3))
    return {name: os.pidfd_open(int(pid)) for name, pid in pids.items()}


def gone(pidfds):
    """Whether all of them end; lets go of the descriptors."""
    ended = [bool(select.select([fd], [], [], SOON)[0]) for fd in pidfds.values()]
    for fd in pidfds.values():
        os.close(fd)
    return all(ended)


def below(pid):
    """(name, pid) of a process's children."""
    found = []
    for word in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{word}/stat") as f:
                head, _, tail = f.read().rpartition(")")
        except OSError:
            continue
        if int(tail.split()[1]) == pid:
            found.append((head.partition(" (")[2], int(word)))
    return found


def test_without_being_asked_nothing_is_run_without_a_limit(start, tmp_path):
    done = run(start, "--limit", "50M", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 125
    assert "read-only" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_killed_at_the_limit(start, tmp_path):
    record = tmp_path / "record.json"
    done = run(start, "--best-effort", "--limit", "40M", "--report", str(record), *python(EAT, "400"))
    found = json.loads(record.read_text())
    assert done.returncode == 137
    assert "oom-kill: killed at the limit of 40M" in done.stderr
    assert "may pass the limit" in done.stderr
    assert (found["result"], found["cgroup"], found["enforcement"]) == ("oom-kill", "sampled", "sampled")
    assert found["peak"] > 40 << 20
    assert found["largest"][0]["rss"] > 40 << 20


def test_started_again_with_more(start, tmp_path):
    record = tmp_path / "record.json"
    words = ["--best-effort", "--limit", "40M", "--on-oom", "restart", "--grow", "10", "--delay", "10ms", "--report", str(record)]
    done = run(start, *words, *python(EAT, "200"), stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, "ate\n"), done.stderr
    assert [attempt["result"] for attempt in json.loads(record.read_text())["attempts"]] == ["oom-kill", "success"]


def test_a_batch_takes_groups(memrun, tmp_path):
    """Where its jobs are within one budget, who overdraws it for a moment would be at others' cost."""
    (tmp_path / "jobs.toml").write_text('[jobs.one]\ncommand = "true"\nlimit = "20M"\nbest_effort = true\n')
    for words in (["--best-effort", "jobs.toml"], ["jobs.toml"]):
        done = memrun("up", *words, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (125, 1)
        assert "a batch shares out memory, and that takes memory groups" in done.stderr


def test_below_it_nothing_happens(start):
    done = run(start, "--best-effort", "-q", "--limit", "100M", *python(EAT, "40"), stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ate\n", "")


def test_where_a_group_is_to_be_had_it_is_taken(memrun, tmp_path):
    record = tmp_path / "record.json"
    assert memrun("--best-effort", "--limit", "50M", "--report", str(record), "--", "true").returncode == 0
    found = json.loads(record.read_text())
    assert found["cgroup"] in {"v1", "v2"}
    assert found["enforcement"] == "kernel"


def test_an_ordinary_user(start):
    plain = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    eat = ["--", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=10000"]
    done = run(start, "--best-effort", "--limit", "40M", *eat, before=plain, cwd="/")
    assert done.returncode == 137
    assert "oom-kill" in done.stderr


def test_paused_at_the_limit_and_raised(start, ask):
    name = f"held-{os.getpid()}"
    one = start("--best-effort", "--limit", "40M", "--on-oom", "pause", "--name", name, *python(EAT, "400"))
    assert any(" paused: " in line for line in iter(one.stderr.readline, ""))
    assert "40M -> 1G" in ask("raise", name, "1G")
    assert one.stdout.readline() == "ate\n"
    one.stdin.close()
    assert one.wait(SOON) == 0


def test_paused_are_all_of_them_though_they_fork(start, ask):
    storm = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True:\n  if os.fork() == 0: os._exit(0)"
    name = f"storm-{os.getpid()}"
    one = start("--best-effort", "--limit", "1G", "--name", name, *python(FAMILY, storm))
    pidfds = family(one)
    ask("pause", name)
    deadline = time.monotonic() + SOON  # a signal takes effect when its process is next on a processor
    while state(pidfds["self"]) != "T":
        assert time.monotonic() < deadline
    ask("resume", name)
    ask("kill", name)
    assert gone(pidfds)


def state(pidfd):
    """The state of the process that a pidfd is for, by its letter."""
    with open(f"/proc/self/fdinfo/{pidfd}") as f:
        pid = next(line.split()[1] for line in f if line.startswith("Pid:"))
    with open(f"/proc/{pid}/stat") as f:
        return f.read().rpartition(")")[2].split()[0]


def test_marks_are_passed(start):
    one = start("--best-effort", "--limit", "400M", "--at", "10%=stop", *python(EAT, "80"))
    said = one.stderr.read()
    assert "10%" in said
    assert one.wait(SOON) == 143, said


def test_a_daemon_is_its_own_and_ends_with_it(start):
    one = start("--best-effort", "--limit", "100M", *python(FAMILY, "sys.stdin.read()"))
    pidfds = family(one)
    one.stdin.close()
    assert gone(pidfds)
    assert one.wait(SOON) == 0


def test_a_daemon_is_waited_for_where_that_was_asked_for(start):
    one = start("--best-effort", "--wait-all", "--limit", "100M", *python(FAMILY, "sys.stdin.read(); os.kill(child, 9)"))
    pidfds = family(one)
    one.stdin.close()
    for name in ("child", "self"):
        assert select.select([pidfds[name]], [], [], SOON)[0]
    assert one.poll() is None
    signal.pidfd_send_signal(pidfds["daemon"], signal.SIGKILL)
    assert gone(pidfds)
    assert one.wait(SOON) == 0


def test_a_daemon_counts(start):
    text = FAMILY.replace('print("daemon"', 'x = bytearray(80 << 20); print("daemon"')
    done = run(start, "--best-effort", "--limit", "50M", *python(text, "time.sleep(1000)"))
    assert done.returncode == 137
    assert "oom-kill" in done.stderr


def the_inner_two(one):
    """Their pids. The sampler takes its name a moment after it was forked."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        for _, pid in below(one.pid):
            for name, grandchild in below(pid):
                if name == "sampler":
                    return pid, grandchild
        time.sleep(0.01)
    raise AssertionError("there is no sampler")


@pytest.mark.parametrize("who", ["outer", "inner", "sampler"])
def test_killed_memrun_leaves_nobody(start, who):
    one = start("--best-effort", "--limit", "100M", "-v", *python(FAMILY, "time.sleep(1000)"))
    pidfds = family(one)
    inner, sampler = the_inner_two(one)
    victim = {"outer": one.pid, "inner": inner, "sampler": sampler}[who]
    os.kill(victim, signal.SIGKILL)
    assert gone(pidfds)
    inner_ended = os.pidfd_open(inner) if who == "outer" else -1
    if inner_ended >= 0:
        assert select.select([inner_ended], [], [], SOON)[0]
        os.close(inner_ended)
    assert one.wait(SOON) in {-9, 125}


def test_stopped_as_ever(start):
    one = start("--best-effort", "--limit", "100M", *python(FAMILY, "time.sleep(1000)"))
    pidfds = family(one)
    one.terminate()
    assert gone(pidfds)
    assert one.wait(SOON) == 143


@pytest.mark.parametrize(("words", "said"), [
    (["--pressure", "low=log"], "--pressure"), (["--soft", "10M"], "--soft"), (["--swap", "10M"], "--swap"),
])  # fmt: skip
def test_what_takes_a_kernel_is_refused(start, words, said):
    done = run(start, "--best-effort", "--limit", "100M", *words, "--", "true")
    assert done.returncode == 125
    assert said in done.stderr
