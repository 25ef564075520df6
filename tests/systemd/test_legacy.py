"""systemd with cgroup v1 (guest.py --systemd --legacy): it gives users no memory groups there, but root can prepare some."""

from __future__ import annotations

import pwd
import re

import pytest
from systemd.people import run, the_classic

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
    try:
        the_classic("alice")
    finally:
        assert as_root("doctor", "--setup", "alice", "--undo", "--apply").returncode == 0


def test_root_needs_nobody(as_root):
    done = as_root("-v", "--limit", "50M", "--", "true")
    assert (done.returncode, "below memrun's own group" in done.stderr) == (0, True), done.stderr
