"""Who may set limits where systemd owns the tree: with a scope asked of it, where we are, or not, and what is said then."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from systemd.people import MEMRUN, ROOT, as_user, read_until, run, scopes, the_classic

HOG = "x = bytearray(60 << 20)"
WHERE = ("-v", "--limit", "50M", "--", "cat", "/proc/self/cgroup")


def test_an_ordinary_user_needs_no_rights(as_alice):
    done = as_alice(*WHERE)
    assert (done.returncode, "of the user's systemd" in done.stderr) == (0, True), done.stderr
    assert re.search(r"user@\d+\.service/app\.slice/(memrun-\d+-\w{4})\.scope/\1/cat\.1$", done.stdout.strip())


def test_a_user_s_job_is_killed_at_its_limit(as_alice):
    done = as_alice("--limit", "20M", "--", sys.executable, "-c", HOG)
    assert (done.returncode, "oom-kill: killed at the limit of 20M" in done.stderr) == (137, True), done.stderr


def test_a_user_s_job_is_paused_at_its_limit_and_raised():
    the_classic("alice")


def test_from_a_login_session(unit):
    done = unit("PAMName=memrun-login", "User=alice", command=["cat", "/proc/self/cgroup"])
    assert "/session-" in done.stdout, done.stderr
    done = unit("PAMName=memrun-login", "User=alice", command=[*MEMRUN, *WHERE])
    assert (done.returncode, "of the user's systemd" in done.stderr) == (0, True), done.stderr


def test_a_limit_of_the_user_s_slice_is_what_shares_are_of(as_alice, tmp_path):
    uid = pwd.getpwnam("alice").pw_uid
    report = "/tmp/alice.json"
    run("systemctl", "set-property", "--runtime", f"user-{uid}.slice", "MemoryMax=400M")
    try:
        done = as_alice("--limit", "50%", "--report", report, "--", "true")
        assert done.returncode == 0, done.stderr
        assert json.loads(Path(report).read_text())["limit"] == 200 << 20
    finally:
        run("systemctl", "set-property", "--runtime", f"user-{uid}.slice", "MemoryMax=infinity")


def test_in_su_with_no_session():
    done = run("su", "-", "alice", "-c", f"cd / && PYTHONPATH={ROOT} {sys.executable} -m memrun --limit 50M -v -- true")
    assert (done.returncode, "of the user's systemd" in done.stderr) == (0, True), done.stderr


@pytest.mark.parametrize("style", ["", "--mail-style"])
def test_from_a_user_s_crontab(style):
    """cron's jobs at its own start: those of a minute would take a minute. What is in `told`, cron would mail."""
    told = Path(f"/tmp/cron-told{style}")
    job = f"memrun {style} --limit 20M -- {sys.executable} -c '{HOG}' > {told} 2>&1"
    command = f"PYTHONPATH={ROOT} {sys.executable} -m {job}; echo $? >> {told}.new; mv {told}.new {told}.status"
    table = Path("/var/spool/cron/crontabs/alice")
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(f"@reboot {command}\n")
    table.chmod(0o600)
    os.chown(table, pwd.getpwnam("alice").pw_uid, -1)
    Path("/run/crond.reboot").unlink(missing_ok=True)
    run("systemd-run", "--quiet", "--unit=memrun-test-cron", "cron", "-f")
    try:
        deadline = time.monotonic() + 30
        while not Path(f"{told}.status").exists():
            assert time.monotonic() < deadline, run("systemctl", "status", "memrun-test-cron").stdout
            time.sleep(0.05)
        assert Path(f"{told}.status").read_text() == "137\n", told.read_text()
        assert "oom-kill" in told.read_text()
        assert (HOG in told.read_text()) == bool(style), told.read_text()  # the page names the command
    finally:
        run("systemctl", "stop", "memrun-test-cron")
        table.unlink()


BATCH = """
[jobs.one]
command = "cat /proc/self/cgroup"
limit = "50M"
[jobs.two]
command = "true"
limit = "20%"
depends_on = ["one"]
"""


@pytest.mark.parametrize("who", ["alice", "root", "delegated"])
def test_a_batch(unit, who):
    """Its keeper, the process that people know, may be elsewhere than the one that does the work."""
    path = Path(f"/tmp/batch-{who}/jobs.toml")
    path.parent.mkdir()
    path.write_text(BATCH)
    words = [*MEMRUN, "up", str(path)]
    if who == "delegated":
        done = unit("Delegate=yes", command=words)
    else:
        os.chown(path.parent, pwd.getpwnam(who).pw_uid, -1)
        done = run(*(as_user("alice", *words) if who == "alice" else words))
    assert done.returncode == 0, done.stdout + done.stderr


def test_kill_9_leaves_nothing():
    """The hand is in the scope with the job, and systemd removes the scope when both are gone: `_nothing_is_left` looks."""
    words = ["--limit", "50M", "--", "sh", "-c", "echo on; exec sleep 1000"]
    job = subprocess.Popen(as_user("alice", *MEMRUN, *words), stdout=subprocess.PIPE, cwd="/")
    read_until(job.stdout, "on")
    assert scopes()
    os.kill(job.pid, signal.SIGKILL)
    job.communicate()
    assert job.returncode == -9


def hold_still(memrun):
    """memrun and its hand, until they are killed: each of them would take the groups away from under systemd, which reads them one by
    one and says 'No such device' of one that goes meanwhile."""
    children = Path(f"/proc/{memrun}/task/{memrun}/children").read_text().split()
    hands = [pid for pid in children if "memrun-hand" in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    assert len(hands) == 1
    for pid in (memrun, int(hands[0])):
        os.kill(pid, signal.SIGSTOP)


def stopped(who, script, *how):
    """CompletedProcess and record of a run whose scope systemd is told to stop (or kill, `how`) while the job runs."""
    report = Path(f"/tmp/stopped-{who}.json")
    report.unlink(missing_ok=True)
    words = [*MEMRUN, "--limit", "50M", "--report", str(report), "--", "sh", "-c", script]
    job = subprocess.Popen(
        as_user(who, *words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    assert job.stdout.readline() == "on\n"
    [scope] = [Path(place).name for place in scopes() if place.endswith(".scope")]
    if how[0] == "kill":
        hold_still(job.pid)
    bus = f"/run/user/{pwd.getpwnam(who).pw_uid}"
    words = ["systemctl", "--user", *how, scope] if who == "alice" else ["systemctl", *how, scope]
    done = run(*as_user(who, *words, XDG_RUNTIME_DIR=bus))
    assert done.returncode == 0, done.stderr
    out, err = job.communicate(timeout=30)
    record = json.loads(report.read_text()) if report.exists() and report.stat().st_size else {}
    return subprocess.CompletedProcess(job.args, job.returncode, out, err), record


@pytest.mark.parametrize("who", ["alice", "root"])
@pytest.mark.parametrize(
    ("script", "status"),
    [("trap 'sleep 0.3; exit 5' TERM; echo on; while :; do sleep 0.1; done", 5), ("echo on; exec sleep 1000", 143)],
)
def test_systemd_takes_the_scope_away(who, script, status):
    """It tells everybody in there to end, memrun among them; a job that has something to finish may. `_nothing_is_left` looks."""
    done, record = stopped(who, script, "stop")
    assert (done.returncode, record.get("result")) == (status, "stopped"), done.stderr
    assert "stopped: ended with status 5" in done.stderr or status != 5


@pytest.mark.parametrize("who", ["alice", "root"])
def test_systemd_kills_all_that_is_in_the_scope(who):
    """memrun and its hand, too: systemd removes what is left of the tree."""
    done, record = stopped(who, "trap '' TERM; echo on; sleep 1000", "kill", "--signal=KILL")
    assert (done.returncode, record) == (-9, {})


def test_in_su_with_no_systemd_of_their_own_two_commands_mend_it(as_bob):
    uid = pwd.getpwnam("bob").pw_uid
    done = run("su", "-", "bob", "-c", f"cd / && PYTHONPATH={ROOT} {sys.executable} -m memrun --limit 50M -- true")
    assert (done.returncode, len(done.stderr.splitlines())) == (125, 1)
    commands = re.findall(r"'((?:loginctl|systemctl) [^']+)'", done.stderr)
    assert commands == ["loginctl enable-linger bob", f"systemctl start user@{uid}.service"], done.stderr
    try:
        for command in commands:
            assert run(*command.split()).returncode == 0
            run("systemctl", "start", f"user@{uid}.service")  # enable-linger does not wait for it
            done = as_bob("--limit", "50M", "--", "true")
            assert done.returncode == 0, f"after {command}: {done.stderr}"
            run("loginctl", "disable-linger", "bob")
            run("systemctl", "stop", f"user@{uid}.service")
    finally:
        run("loginctl", "disable-linger", "bob")
        run("systemctl", "stop", f"user@{uid}.service")


def test_setup_and_undo(as_bob, as_root):
    uid = pwd.getpwnam("bob").pw_uid
    printed = as_root("doctor", "--setup", "bob")
    assert "loginctl enable-linger bob" in printed.stdout
    assert "only root" in as_bob("doctor", "--setup", "bob", "--apply").stderr
    assert as_root("doctor", "--setup", "bob", "--apply").returncode == 0
    run("systemctl", "start", f"user@{uid}.service")
    assert as_bob("--limit", "50M", "--", "true").returncode == 0
    assert as_root("doctor", "--setup", "bob", "--undo", "--apply").returncode == 0
    run("systemctl", "stop", f"user@{uid}.service")
    assert as_bob("--limit", "50M", "--", "true").returncode == 125


def test_root_gets_a_scope_in_memrun_s_slice(as_root):
    done = as_root(*WHERE)
    assert (done.returncode, "of the system's systemd" in done.stderr) == (0, True), done.stderr
    assert re.search(r"^0::/memrun\.slice/(memrun-\d+-\w{4})\.scope/\1/cat\.1$", done.stdout.strip())


def test_a_delegated_service_is_not_left(unit):
    done = unit("Delegate=yes", command=[*MEMRUN, *WHERE])
    assert (done.returncode, "below memrun's own group" in done.stderr) == (0, True), done.stderr
    assert "/system.slice/run-" in done.stdout


def test_a_service_that_was_not_delegated_is(unit):
    done = unit(command=[*MEMRUN, *WHERE])
    assert (done.returncode, done.stdout.startswith("0::/memrun.slice/")) == (0, True), done.stderr


@pytest.mark.parametrize("alone", [True, False])
def test_a_limit_is_not_escaped_from(unit, alone):
    words = [*MEMRUN, "-v", "--limit", "50%", "--report", "/tmp/limited.json", "--", "true"]
    done = unit("MemoryMax=300M", command=words if alone else ["sh", "-c", '"$@"; exit $?', "sh", *words])
    if alone:
        assert done.returncode == 0, done.stderr
        assert json.loads(Path("/tmp/limited.json").read_text())["limit"] == 150 << 20
    else:
        assert (done.returncode, "Delegate=yes" in done.stderr) == (125, True), done.stderr


def test_doctor_says_how(as_alice, as_bob):
    done = as_alice("doctor")
    assert (done.returncode, "of the user's systemd" in done.stdout) == (0, True), done.stdout
    done = as_bob("doctor")
    assert (done.returncode, "sudo loginctl enable-linger bob" in done.stdout) == (1, True), done.stdout
