"""Root in a container made by unshare: groups below its own one, its own limit, and what is said where nothing can be written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from systemd.people import BARE, MEMRUN, run

#: $1: what the container runs. The shell that starts it is in a group beside the container's, and so is unshare's own process once it has
#: forked: a process outside of its pid namespace cannot be moved from within, and memory is handed down only where nobody sits.
OUTSIDE = """
cg=/sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)
mkdir $cg/box $cg/out
echo $$ > $cg/out/cgroup.procs
echo +memory > $cg/cgroup.subtree_control
echo 200M > $cg/box/memory.max
(echo 0 > $cg/box/cgroup.procs; exec unshare -C -m -p -f --mount-proc sh -c "$1") &
while ! pgrep -P $! > /dev/null; do :; done
[ $2 = seen ] && echo $! > $cg/out/cgroup.procs
echo go > /tmp/box-gate
wait $!
"""


@pytest.fixture
def box(tmp_path):
    """box(script) -> CompletedProcess of a shell script in a container with a limit of 200M; its first process is that shell."""

    def start(script, *, strangers=False):
        gate = "read -r go < /tmp/box-gate; umount -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; "
        run("rm", "-f", "/tmp/box-gate")
        run("mkfifo", "/tmp/box-gate")
        Path("/tmp/box.sh").write_text(OUTSIDE)  # as an argument systemd would have its way with its dollars
        words = ["sh", "/tmp/box.sh", gate + script, "hidden" if strangers else "seen"]
        around = [f"{key}={value}" for key, value in BARE.items()]
        return run("systemd-run", "--quiet", "--wait", "--pipe", "-p", "Delegate=yes", "env", *around, *words)

    return start


def command(*words):
    return " ".join([*MEMRUN, *words])


def test_nests_below_the_container_s_group_and_honours_its_limit(box):
    done = box(command("--limit", "50%", "--report", "/tmp/box.json", "--", "cat", "/proc/self/cgroup"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0::/memrun-")
    assert json.loads(Path("/tmp/box.json").read_text())["limit"] == 100 << 20


def test_everybody_is_put_back(box):
    done = box(command("--limit", "50M", "--", "true") + "; cat /proc/self/cgroup; find /sys/fs/cgroup -mindepth 1 -type d")
    assert (done.returncode, done.stdout) == (0, "0::/\n"), done.stderr


def test_two_at_a_time(box):
    """The second one starts while the first one runs, and goes on when it has ended."""
    first = command("--limit", "50M", "--", "sh", "-c", "'echo > /tmp/two; read -r go < /tmp/gate'")
    second = command("--limit", "50M", "--", "sh", "-c", "'echo go > /tmp/gate; wait; cat /proc/self/cgroup'")
    done = box(
        f"mkfifo /tmp/two /tmp/gate; {first} & read -r go < /tmp/two; {second}; wait; ls -d /sys/fs/cgroup/*/; cat /proc/self/cgroup"
    )
    run("rm", "-f", "/tmp/two", "/tmp/gate")
    assert done.stdout.splitlines()[0].startswith("0::/memrun-"), done.stderr
    assert done.stdout.splitlines()[1:] == ["0::/"], done.stdout


def test_kill_at_the_container_s_own_limit_is_told_from_the_job_s(box):
    done = box(
        command("--limit", "infinity", "--report", "/tmp/box.json", "--", sys.executable, "-c", "'x = bytearray(400 << 20)'")
    )
    assert json.loads(Path("/tmp/box.json").read_text())["result"] == "host-oom", done.stderr


def test_read_only_says_what_to_pass(box):
    done = box("mount -o remount,bind,ro /sys/fs/cgroup; export container=docker; " + command("--limit", "50M", "--", "true"))
    assert done.returncode == 125
    assert "read-only" in done.stderr
    assert "docker run --security-opt writable-cgroups=true" in done.stderr or "podman run" in done.stderr


def test_a_process_that_cannot_be_seen_is_named_as_the_reason(box):
    done = box(command("--limit", "50M", "--", "true"), strangers=True)
    assert (done.returncode, "outside of this container" in done.stderr) == (125, True), done.stderr
