"""systemd with cgroup v1 (guest.py --systemd --legacy): it gives users no memory groups there, but root can prepare some."""

from __future__ import annotations

import pwd
import re
import subprocess

import pytest
from systemd.people import ALLOCATE, MEMRUN, as_user, read_until, run

pytestmark = pytest.mark.v1


def test_a_prepared_group_is_found_and_taken_back(as_bob, as_root):
    done = as_bob("--limit", "50M", "--", "true")
    assert (done.returncode, re.findall(r"'([^']+)'", done.stderr)) == (125, ["memrun doctor --setup bob --apply"]), done.stderr
    try:
        done = as_root("doctor", "--setup", "bob", "--apply")
        assert done.returncode == 0, done.stderr
        done = as_bob("-v", "--limit", "50M", "--", "cat", "/proc/self/cgroup")
        assert (done.returncode, "prepared for this user" in done.stderr) == (0, True), done.stderr
        assert f"memory:/memrun/{pwd.getpwnam('bob').pw_uid}/memrun-" in done.stdout
        assert "enabled" in run("systemctl", "is-enabled", f"memrun-group-{pwd.getpwnam('bob').pw_uid}.service").stdout
    finally:
        done = as_root("doctor", "--setup", "bob", "--undo", "--apply")
    assert done.returncode == 0, done.stderr
    assert as_bob("--limit", "50M", "--", "true").returncode == 125


def test_the_classic_as_an_ordinary_user(as_root):
    assert as_root("doctor", "--setup", "alice", "--apply").returncode == 0
    words = ["--limit", "5M", "--on-oom", "pause", "--name", "classic", "--", ALLOCATE, "0", "300"]
    job = subprocess.Popen(as_user("alice", *MEMRUN, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")
    try:
        read_until(job.stderr, "paused")
        raised = run(*as_user("alice", *MEMRUN, "raise", "classic", "9M"))
        assert (raised.returncode, raised.stdout) == (0, "classic: limit 5M -> 9M\n"), raised.stderr
        read_until(job.stdout, "6 MiB")
        assert run(*as_user("alice", *MEMRUN, "kill", "classic")).returncode == 0
        assert job.wait(10) == 137
    finally:
        job.kill()
        job.communicate()
        assert as_root("doctor", "--setup", "alice", "--undo", "--apply").returncode == 0


def test_root_needs_nobody(as_root):
    done = as_root("-v", "--limit", "50M", "--", "true")
    assert (done.returncode, "below memrun's own group" in done.stderr) == (0, True), done.stderr
