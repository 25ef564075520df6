"""--events: what happened, in a file, as it happens."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest


def events(path):
    return [(line["name"], line["event"]) for line in map(json.loads, path.read_text().splitlines())]


def test_everything_that_happens_is_in_there(memrun, tmp_path):
    path = tmp_path / "events"
    path.write_text('{"name": "before", "event": "kept"}\n')
    done = memrun(
        "--limit",
        "5M",
        "--on-oom",
        "restart",
        "--attempts",
        "2",
        "--delay",
        "0",
        "--events",
        str(path),
        "--",
        "tail",
        "/dev/zero",
    )
    assert done.returncode == 137
    found = events(path)
    assert found[:2] == [("before", "kept"), ("tail", "launched")]
    assert found.count(("tail", "launched")) == 2
    assert found[-1] == ("tail", "exhausted")


def test_on_stdout_they_and_the_command_s_lines_are_all_there(memrun, tmp_path):
    path = tmp_path / "out"
    with path.open("w") as out:
        memrun(
            "--limit",
            "50M",
            "--events",
            "-",
            "--name",
            "n",
            "--",
            "sh",
            "-c",
            "echo one; sleep 0.1; echo two",
            capture_output=False,
            stdout=out,
        )
    lines = path.read_text().splitlines()
    assert {"one", "two"} < set(lines)
    assert [json.loads(line)["event"] for line in lines if line.startswith("{")][-1] == "settled"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs commands as somebody else")
def test_they_are_the_user_s_and_a_link_of_his_leads_nowhere(memrun):
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.chmod(folder, 0o777)
        path, target = Path(folder, "events"), Path(folder, "target")
        memrun("--limit", "50M", "--user", "nobody", "--events", str(path), "--", "true", cwd="/")
        assert path.owner() == "nobody"
        path.unlink()
        target.write_text("")
        path.symlink_to(target)
        done = memrun("--limit", "50M", "--user", "nobody", "--events", str(path), "--", "true", cwd="/")
        assert done.returncode == 0
        assert "events are missing in" in done.stderr
        assert target.read_text() == ""


def test_nobody_waits_for_who_does_not_read(memrun, tmp_path):
    full = memrun("--limit", "50M", "--events", "/dev/full", "--", "sh", "-c", "sleep 0.1; exit 3")
    assert full.returncode == 3
    assert full.stderr.count("events are missing in /dev/full: No space left on device") == 1
    os.mkfifo(tmp_path / "fifo")
    unread = memrun("--limit", "50M", "--events", str(tmp_path / "fifo"), "--", "sh", "-c", "exit 3")
    assert unread.returncode == 3


def test_jobs_of_a_file_have_theirs_beside_it(memrun, tmp_path):
    (tmp_path / "jobs.toml").write_text(
        '[jobs.a]\ncommand = "true"\nlimit = "30M"\narray = "1-3"\nevents = "all"\n[jobs.b]\ncommand = "exit 3"\nlimit = "30M"\nevents = "{job}.events"\n'
    )
    memrun("up", "jobs.toml", cwd=tmp_path)
    assert {name for name, _ in events(tmp_path / "all")} == {"a[1]", "a[2]", "a[3]"}
    assert events(tmp_path / "b.events")[-1] == ("b", "settled")
