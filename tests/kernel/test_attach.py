"""Processes that memrun did not start: limited while they are attached, back where they were and unharmed when they are let go."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest

from memrun import attach, clients, hand, kin, strangers
from memrun.cgroup import detect, homes, v2  # noqa: F401  (v2: who has no root may not be able to import it)
from memrun.errors import RefusedError
from memrun.job import Site

MEMRUN = [sys.executable, "-m", "memrun"]
MOMENTS = int(os.environ.get("MEMRUN_TEST_MOMENTS", "8"))  # 100 in a long run
NOBODY = 65534
NUMBERS = itertools.count()
M = 1 << 20
PROGRAM = """
import os, signal, sys, threading
kept = []
signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
print("ready", flush=True)
while line := sys.stdin.readline():
    word, _, rest = line.strip().partition(" ")
    if word == "eat":
        kept.append(bytearray(int(rest) << 20))
        for at in range(0, len(kept[-1]), 4096): kept[-1][at] = 1
        print("ate", flush=True)
    elif word == "fork":
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            while True: signal.pause()
        print(pid, flush=True)
    elif word == "thread":
        threading.Thread(target=signal.pause, daemon=True).start()
        print("ok", flush=True)
"""
FORKER = "while :; do (sh -c 'sleep 0.02 & sleep 0.01' & sleep 0.01); done"


class Target:
    """A process that was there before memrun."""

    def __init__(self):
        words = [sys.executable, "-I", "-S", "-c", PROGRAM]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.pid = self.process.pid
        assert self.hear() == "ready"

    def say(self, text):
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()

    def hear(self):
        return self.process.stdout.readline().strip()

    def fork(self):
        self.say("fork")
        return int(self.hear())

    def eat(self, mib):
        self.say(f"eat {mib}")
        assert self.hear() == "ate"


@pytest.fixture
def target():
    made = []

    def make():
        made.append(Target())
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.pid, signal.SIGKILL)
        one.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            one.process.stdin.close()
        one.process.wait()


@pytest.fixture
def home():
    """home(name, *pids): a group of that name in each hierarchy that memrun uses, with these processes in it."""
    setup = detect.look()
    places = [setup.memory] if setup.version == "v2" else [p for p in (setup.memory, setup.unified, setup.freezer) if p]
    made = set()

    def move(name, *pids):
        for place in places:
            group = Path(place, f"home-{os.getpid()}-{name}")
            group.mkdir(exist_ok=True)
            made.add(group)
            for pid in pids:
                (group / "cgroup.procs").write_text(str(pid))
        return [Path(place, f"home-{os.getpid()}-{name}") for place in places]

    yield move
    for group in made:
        deadline = time.monotonic() + 5
        while group.exists():
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                group.rmdir()
            assert time.monotonic() < deadline, group


class Attached:
    """A memrun attach in the background, which has moved everybody."""

    def __init__(self, *words, path=None):
        self.path = path
        self.name = f"guests-{os.getpid()}-{next(NUMBERS)}"
        words = ["attach", "--name", self.name, *(["--report", str(path)] if path else []), *words]
        self.process = subprocess.Popen([*MEMRUN, *words], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.account = self.process.stderr.readline().strip()
        assert ": attached: " in self.account, self.account + self.process.stderr.read()

    def say(self, *words, check=True):
        verb, *more = words
        done = subprocess.run([*MEMRUN, verb, self.name, *more], capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, done
        return done

    def until(self, state):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for path, row in clients.jobs()[0]:
                if path.endswith(f"/{self.process.pid}.sock") and row["state"] == state:
                    return row
            time.sleep(0.02)  # asked from outside, as a user would
        raise AssertionError(f"never {state}")

    def end(self):
        _, err = self.process.communicate(timeout=60)
        return self.process.returncode, err, json.loads(self.path.read_text()) if self.path else {}


@pytest.fixture
def attached(tmp_path, kept):
    def make(*words):
        kept.append(Attached(*map(str, words), path=tmp_path / "record.json"))
        return kept[-1]

    return make


def where(pid):
    """Its groups, without those that are none of memrun's business."""
    return {key: path for key, path in strangers.groups_of(pid).items() if key in {"", "memory", "freezer"}}


def under(pid):
    groups = where(pid)
    return "/memrun-" in (groups.get("memory") or groups.get("", ""))


def moves_charges():
    probe = Path(detect.look().memory, f"home-{os.getpid()}-probe")
    probe.mkdir()
    able = homes.carries(str(probe))
    probe.rmdir()
    return able


def until_back(before, seconds=5):
    """The hand does its work after memrun's death."""
    deadline = time.monotonic() + seconds
    while (now := {pid: where(pid) for pid in before}) != before and time.monotonic() < deadline:
        time.sleep(0.005)
    assert now == before


def frozen(pid):
    return Path(f"/proc/{pid}/wchan").read_text() in {"do_freezer_trap", "__refrigerator", "mem_cgroup_oom_synchronize"}


def test_the_limit_holds_from_then_on(target, attached):
    one = target()
    one.eat(40)
    job = attached("--limit", "60M", one.pid)
    assert "1 process under a limit of 60M; " in job.account
    assert "stays charged where it was" in job.account or "moved with them" in job.account
    one.say("eat 100")
    status, err, record = job.end()
    assert (status, record["result"], record["exit_code"], record["oom_kills"] > 0) == (137, "oom-kill", None, True), err
    assert record["pids"] == [one.pid]
    assert "killed at the limit of 60M" in err


def test_a_limit_below_what_they_have(memrun, target, attached):
    """Refused, with the figures, where it would come with them; else said."""
    one = target()
    one.eat(40)
    if moves_charges():
        done = memrun("attach", "--limit", "20M", str(one.pid))
        assert (done.returncode, "more than the limit of 20M" in done.stderr) == (125, True), done.stderr
        assert not under(one.pid)
    else:
        job = attached("--limit", "20M", one.pid)
        assert "M, more than the limit) stays charged where it was" in job.account
        one.eat(1)
        job.process.terminate()
        job.end()


def test_who_ends_by_himself_has_no_exit_status(target, attached):
    one = target()
    child = one.fork()
    job = attached("--limit", "100M", one.pid)
    assert under(one.pid)
    assert under(child)
    one.process.stdin.close()
    assert one.process.wait() == 0
    job.until("RUNNING")  # the child is still there
    os.kill(child, signal.SIGKILL)
    status, err, record = job.end()
    assert (status, err, record["result"], record["exit_code"], record["signal"]) == (0, "", "success", None, None)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_let_go_everybody_goes_back_where_he_was(target, attached, home, how):
    one, other = target(), target()
    children = [one.fork(), other.fork()]
    home("a", one.pid)
    home("b", children[0])
    before = {pid: where(pid) for pid in (one.pid, other.pid, *children)}
    job = attached("--limit", "100M", one.pid, other.pid)
    assert "4 processes" in job.account
    assert all(under(pid) for pid in before)
    born = one.fork()
    assert under(born)
    job.process.send_signal(how)
    status, err, record = job.end()
    assert (status, record["result"], record["limit"]) == (0, "detached", 100 * M)
    assert "put back where they were" in err
    assert {pid: where(pid) for pid in before} == before
    assert where(born) == before[one.pid]
    one.eat(120)


def test_paused_raised_and_paused_again(target, attached):
    one = target()
    job = attached("--limit", "20M", "--on-oom", "pause", one.pid)
    one.say("eat 40")
    assert job.until("PAUSED")["limit"] == 20 * M
    job.say("raise", "80M")
    assert one.hear() == "ate"
    job.say("pause")
    job.until("PAUSED")
    job.say("resume")
    one.say("eat 80")
    job.until("PAUSED")
    job.process.send_signal(signal.SIGINT)
    status, _, record = job.end()
    assert (status, record["result"], record["oom_kills"]) == (0, "detached", 0)
    assert record["paused"] > 0
    assert one.hear() == "ate"
    assert not under(one.pid)


def test_raised_by_rule(target, attached):
    one = target()
    job = attached("--limit", "20M", "--on-oom", "pause", "--grow", "2", one.pid)
    one.eat(100)
    job.process.terminate()
    assert len(job.end()[2]["raises"]) >= 2


def test_patience_ends_and_kills(target, attached):
    one = target()
    job = attached("--limit", "20M", "--on-oom", "pause", "--patience", "200ms", one.pid)
    one.say("eat 40")
    status, _, record = job.end()
    assert (status, record["result"]) == (137, "patience")
    assert one.process.wait() == -9


def test_killed_while_it_holds_them_they_go_on(target, attached, home):
    one = target()
    child = one.fork()
    home("a", one.pid)
    before = {pid: where(pid) for pid in (one.pid, child)}
    job = attached("--limit", "20M", "--on-oom", "pause", one.pid)
    one.say("eat 40")
    job.until("PAUSED")
    job.process.kill()
    assert one.hear() == "ate"
    until_back(before)
    assert not any(frozen(pid) for pid in before)
    one.eat(40)


def test_killed_at_any_moment_it_lets_go(target, home):
    """Also while they are moved, or being put back."""
    moments = random.Random(5)
    one = target()
    home("a", one.pid)
    for _ in range(12):
        one.fork()
    pids = [one.pid, *kin.Family([one.pid], kin.look()).look(kin.look())]
    before = {pid: where(pid) for pid in pids}
    for number in range(MOMENTS):
        words = ["attach", "--limit", "50M", "--on-oom", "pause", str(one.pid)]
        process = subprocess.Popen([*MEMRUN, *words], stderr=subprocess.PIPE)
        if number % 2:
            process.stderr.readline()
            process.send_signal(signal.SIGINT)
            time.sleep(moments.uniform(0.0, 0.03))
        else:
            time.sleep(moments.uniform(0.15, 0.6))
        process.kill()
        process.communicate()
        until_back(before)
        one.eat(1)
        assert {kin.score(pid) for pid in pids} == {0}


@pytest.mark.v2
def test_immune_while_they_are_to_be_held(target, attached):
    for kill in (False, True):
        one = target()
        kin.set_score(one.pid, 300)
        child = one.fork()
        kin.set_score(child, 200)
        job = attached("--limit", "50M", "--on-oom", "pause", one.pid)
        born = one.fork()
        assert {kin.score(pid) for pid in (one.pid, child, born)} == {-1000}
        if kill:
            job.process.kill()
            job.process.wait()
        else:
            job.process.terminate()
            job.end()
        deadline = time.monotonic() + 5
        while under(born) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert [kin.score(pid) for pid in (one.pid, child, born)] == [300, 200, 300]


def test_a_group_that_is_gone(target, attached, home):
    one = target()
    for group in home("a", one.pid):
        assert where(one.pid)
        groups = group.parent
    before = where(os.getpid())
    job = attached("--limit", "50M", one.pid)
    for group in home("a"):
        group.rmdir()
    job.process.terminate()
    assert job.end()[2]["result"] == "detached"
    assert where(one.pid) == before
    home("a")  # for the fixture to remove
    assert groups.exists()


def test_who_forks_all_the_time_gets_nobody_away(attached):
    racer = subprocess.Popen(["sh", "-c", FORKER], start_new_session=True)
    try:
        before = where(racer.pid)
        job = attached("--limit", "200M", racer.pid)
        for _ in range(20):
            table = kin.look()
            for pid in kin.Family([racer.pid], table).look(table):
                for _ in range(100):  # one that is just being forked is nowhere yet
                    if not where(pid) or under(pid):
                        break
                    time.sleep(0.001)
                else:
                    raise AssertionError(f"{pid} is in {where(pid)}")
        job.process.terminate()
        assert job.end()[2]["result"] == "detached"
        assert where(racer.pid) == before
        table = kin.look()
        assert not any(where(pid) and under(pid) for pid in kin.Family([racer.pid], table).look(table))
    finally:
        os.killpg(racer.pid, signal.SIGKILL)
        racer.wait()


@pytest.mark.parametrize(("verb", "status"), [("stop", 143), ("kill", 137)])
def test_what_is_commanded_ends_them(target, attached, verb, status):
    one = target()
    child = one.fork()
    job = attached("--limit", "50M", one.pid)
    job.until("RUNNING")
    job.say(verb)
    got, _, record = job.end()
    assert (got, record["result"]) == (status, "stopped")
    assert one.process.wait() < 0
    assert kin.read(child) is None or kin.read(child).ended


def test_verbs(target, attached):
    one = target()
    job = attached("--limit", "50M", "--timeout", "1h", one.pid)
    row = job.until("RUNNING")
    assert (row["pid"], row["limit"]) == (one.pid, 50 * M)
    job.say("signal", "USR1")
    assert one.hear() == "heard"
    assert "charged now" in job.say("show").stdout
    done = job.say("restart", check=False)
    assert (done.returncode, "did not start" in done.stderr) == (125, True)
    job.process.send_signal(signal.SIGUSR1)
    assert one.hear() == "heard"
    job.process.terminate()
    assert job.end()[0] == 0


def test_a_timeout_ends_them(target, attached):
    one = target()
    job = attached("--limit", "50M", "--timeout", "100ms", one.pid)
    status, _, record = job.end()
    assert (status, record["result"]) == (124, "timeout")
    assert one.process.wait() == -15


def test_who_is_refused_is_told_in_one_sentence(memrun, target):
    one = target()
    before = where(one.pid)
    done = memrun("attach", "--limit", "50M", str(one.pid), str(os.getpid()))
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.endswith("is an ancestor of this memrun, which would limit itself\n")
    assert done.stderr.count("\n") == 1
    assert where(one.pid) == before


def test_who_is_under_another_memrun(memrun, target, attached):
    one, other = target(), target()
    job = attached("--limit", "50M", one.pid)
    done = memrun("attach", "--limit", "50M", str(other.pid), str(one.pid))
    assert f"is under another memrun already (pid {job.process.pid})" in done.stderr
    assert not under(other.pid)
    job.process.terminate()
    job.end()


@pytest.mark.skipif(os.getuid() != 0, reason="needs to be somebody else")
def test_of_another_user(target):
    one = target()
    child = os.fork()
    if not child:
        os.setuid(NOBODY)
        status = 1
        try:
            strangers.find([one.pid])
        except RefusedError as e:
            status = 0 if "belongs to another user" in str(e) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.v2
@pytest.mark.skipif(os.getuid() != 0, reason="root gives nobody a place of his own")
def test_without_root_in_a_place_of_ones_own(home):
    """As in a delegated scope: memrun in one group of it, the process in another."""
    (top,) = home("own")
    (top / "cgroup.subtree_control").write_text("+memory")
    ours, theirs = top / "ours", top / "theirs"
    for place in (top, ours, theirs):
        place.mkdir(exist_ok=True)
        for path in (place, place / "cgroup.procs", place / "cgroup.subtree_control"):
            os.chown(path, NOBODY, NOBODY)
    sleeper = subprocess.Popen(["sleep", "1000"], user=NOBODY)
    (theirs / "cgroup.procs").write_text(str(sleeper.pid))
    child = os.fork()
    if not child:
        status = 1
        try:
            (ours / "cgroup.procs").write_text("0")
            os.setuid(NOBODY)
            spec, pids = attach.parse(["--limit", "50M", "--on-oom", "pause", str(sleeper.pid)])
            found = strangers.find(pids)
            attach.introduce(spec, found)
            site = Site(script=hand.LET_GO)
            stay = attach.Attachment(site, spec, found)
            moved = under(sleeper.pid)
            back = stay.rid() and where(sleeper.pid)[""].endswith("/theirs")
            stay.group.remove()
            stay.close()
            site.close()
            status = 0 if moved and back else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    sleeper.kill()
    sleeper.wait()
    for place in (ours, theirs):
        place.rmdir()


def test_all_or_nobody(target, home, monkeypatch):
    """A failure halfway puts everybody back who was moved before it."""
    one, other = target(), target()
    home("a", one.pid)
    before = {pid: where(pid) for pid in (one.pid, other.pid)}
    real, seen = homes.enter, []

    def enter(fds, pid):
        seen.append(under(one.pid))
        return real(fds, pid) if pid != other.pid else 12

    monkeypatch.setattr(homes, "enter", enter)
    spec, pids = attach.parse(["--limit", "50M", str(one.pid), str(other.pid)])
    found = strangers.find(pids)
    attach.introduce(spec, found)
    site = Site(script=hand.LET_GO)
    try:
        with pytest.raises(RefusedError, match=r"cannot be moved: the .* that it has do not fit below the limit of 50M"):
            attach.Attachment(site, spec, found)
        assert seen == [False, True]
        assert {pid: where(pid) for pid in before} == before
    finally:
        site.close()
        found.close()


@pytest.mark.v2
@pytest.mark.parametrize("killed", [False, True])
def test_a_group_that_takes_nobody_back(target, attached, home, killed):
    """v2: a group that is an inner node by now (EBUSY): then the nearest one above it that takes processes, here the root."""
    one, other = target(), target()
    (place,) = home("a", one.pid)
    job = attached("--limit", "50M", one.pid)
    (place.parent / "cgroup.subtree_control").write_text("+pids")
    below = place / "below"
    below.mkdir()
    (below / "cgroup.procs").write_text(str(other.pid))
    (place / "cgroup.subtree_control").write_text("+pids")
    try:
        job.process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
        job.process.wait()
        until_back({one.pid: where(os.getpid())})
        one.eat(1)
    finally:
        other.process.kill()
        other.process.wait()
        below.rmdir()


@pytest.mark.v1
def test_where_charges_move_with_them(target, attached):
    """Up to 6.12. Newer kernels refuse: then this is about nothing."""
    if not moves_charges():
        pytest.skip("this kernel does not move charges")
    one = target()
    one.eat(40)
    job = attached("--limit", "100M", one.pid)
    assert "moved with" in job.account
    assert job.until("RUNNING")["usage"] >= 40 * M
    job.process.terminate()
    job.end()
