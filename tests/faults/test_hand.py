"""The dead man's hand: killed, stopped, or with no process to be had for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.scenarios import soon

from memrun.names import directory


def start(*words, **how):
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **how}
    return subprocess.Popen([sys.executable, "-m", "memrun", *words], **how)


def hand_of(pid):
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"memrun-hand" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return 0


def group_of(line):
    return Path(line.partition("its group is ")[2].partition(",")[0]).parent


@pytest.mark.parametrize("options", [(), ("--at", "80%=log")], ids=["poll", "event loop"])
def test_killed_it_is_spread_anew_and_said(options):
    run = start("-v", "--limit", "20M", *options, "--", "sh", "-c", "echo begun; read line", stdin=subprocess.PIPE)
    assert run.stdout.readline() == "begun\n"
    group = group_of(run.stderr.readline())
    first = hand_of(run.pid)
    os.kill(first, signal.SIGKILL)
    assert "another one is spread" in run.stderr.readline()
    assert soon(lambda: "" if hand_of(run.pid) not in {0, first} else "none yet", 2.0) == ""  # it may be in its exec
    run.kill()
    run.communicate()
    assert soon(lambda: str(group) * group.exists(), 5.0) == ""


def test_stopped_it_does_not_keep_memrun_at_its_end():
    run = start("--limit", "20M", "--", "sh", "-c", "echo begun; read line", stdin=subprocess.PIPE)
    assert run.stdout.readline() == "begun\n"
    os.kill(hand_of(run.pid), signal.SIGSTOP)
    run.communicate("\n", timeout=10)
    assert run.returncode == 0


def test_what_stays_of_a_killed_run_goes(tmp_path):
    report = tmp_path / "report.json"
    run = start(
        "--limit",
        "20M",
        "--name",
        "h-gone",
        "--report",
        str(report),
        "--",
        "sh",
        "-c",
        "echo begun; read line",
        stdin=subprocess.PIPE,
    )
    assert run.stdout.readline() == "begun\n"
    part = Path(f"{report}.{run.pid}.part")
    part.touch()
    left = [Path(directory(), "h-gone.name"), Path(directory(), f"{run.pid}.sock"), part]
    assert soon(lambda: "" if left[1].exists() else "no socket yet", 5.0) == ""
    assert [path.exists() for path in left] == [True, True, True]
    run.kill()
    run.communicate()
    assert soon(lambda: " ".join(str(path) for path in left if path.exists()), 5.0) == ""
