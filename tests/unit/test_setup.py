"""`memrun doctor --setup`: words, and the script for each kind of machine; that it does what it says is tested in guests."""

from __future__ import annotations

import pwd
import subprocess

import pytest

from memrun import setup
from memrun.cgroup import detect, prepared
from memrun.errors import UsageError

PERSON = pwd.getpwuid(65534)  # nobody is everywhere
V1 = """\
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "32 23 0:29 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"


@pytest.fixture
def machine(monkeypatch):
    """machine(mountinfo, systemd=...) : what `prepared` sees."""

    def make(mountinfo, *, systemd):
        monkeypatch.setattr(detect, "look", lambda: detect.find(mountinfo, "4:memory:/\n0::/\n", "memory"))
        monkeypatch.setattr(detect, "mounts", lambda: detect.parse_mountinfo(mountinfo))
        monkeypatch.setattr(prepared.os.path, "isdir", lambda path: systemd)

    return make


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--setup", "alice"], ("alice", False, False)),
        (["--setup=alice", "--apply"], ("alice", False, True)),
        (["--undo", "--setup", "alice", "--apply"], ("alice", True, True)),
    ],
)
def test_words(words, meant):
    assert setup.parse(words) == meant


@pytest.mark.parametrize("words", [["--setup"], ["--setup", "--apply"], ["--setup="], ["--setup", "alice", "--aply"]])
def test_words_that_make_no_sense(words):
    with pytest.raises(UsageError):
        setup.parse(words)


@pytest.mark.parametrize("mountinfo", [V1, V2])
@pytest.mark.parametrize("systemd", [True, False])
@pytest.mark.parametrize("undo", [True, False])
def test_every_script_is_one_that_sh_can_read(machine, mountinfo, systemd, undo):
    machine(mountinfo, systemd=systemd)
    text = "\n".join(prepared.script(PERSON.pw_name, undo=undo))
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), text


def test_v2_with_systemd_is_lingering(machine, monkeypatch):
    machine(V2, systemd=True)
    monkeypatch.setattr(prepared, "_lines", lambda path: ["[Service]", "Delegate=pids memory"])
    assert [line.partition("   #")[0] for line in prepared.script(PERSON.pw_name, undo=False)] == [
        f"loginctl enable-linger {PERSON.pw_name}"
    ]


def test_memory_that_is_not_delegated_is(machine, monkeypatch):
    machine(V2, systemd=True)
    monkeypatch.setattr(prepared, "_lines", lambda path: ["Delegate=pids"])
    script = "\n".join(prepared.script(PERSON.pw_name, undo=False))
    assert f"> {prepared.DROP_IN}" in script
    assert "Delegate=cpu memory pids" in script


def test_v1_makes_a_directory_in_each_hierarchy_at_every_boot(machine):
    machine(V1, systemd=True)
    script = "\n".join(prepared.script(PERSON.pw_name, undo=False))
    for hierarchy in ("memory", "freezer"):
        assert f"chown -R {PERSON.pw_name} /sys/fs/cgroup/{hierarchy}/memrun/{PERSON.pw_uid}" in script
    assert "unified" not in script
    assert f"systemctl enable --now memrun-group-{PERSON.pw_uid}.service" in script


def test_v2_without_systemd_hands_down_memory_and_where_it_can_the_processor(machine):
    machine(V2, systemd=False)
    script = "\n".join(prepared.script(PERSON.pw_name, undo=False))
    for place in (".", "memrun", f"memrun/{PERSON.pw_uid}"):
        assert f"echo +memory > {place}/cgroup.subtree_control" in script
        assert f"! grep -qw cpu {place}/cgroup.controllers || echo +cpu > {place}/cgroup.subtree_control" in script


def test_only_root_applies(machine, monkeypatch):
    machine(V2, systemd=True)
    monkeypatch.setattr(setup.os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="only root") as refused:
        setup.main(["--setup", PERSON.pw_name, "--undo", "--apply"])
    assert f"memrun doctor --setup {PERSON.pw_name} --undo" in refused.value.remedy
