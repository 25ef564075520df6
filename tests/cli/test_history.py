"""What a run leaves for `memrun history` and `memrun suggest`, seen from outside."""

from __future__ import annotations

import json
import os


def test_what_earlier_runs_used_and_what_to_give_the_next(memrun, tmp_path):
    home = {**os.environ, "MEMRUN_HISTORY": str(tmp_path / "history")}
    assert memrun("history", env=home).stdout == "no run has ended yet\n"
    nothing = memrun("suggest", "demo", env=home)
    assert (nothing.returncode, nothing.stdout) == (125, "")
    assert nothing.stderr.startswith("memrun: nothing is known of earlier runs of 'demo'. ")

    small = memrun("--limit", "5M", "--name", "demo", "--", "tail", "/dev/zero", env=home)
    assert small.returncode == 137
    assert memrun("--limit", "50M", "--name", "other", "--", "true", env=home).returncode == 0
    shown = memrun("history", env=home).stdout.splitlines()
    assert [line.split()[1:4] for line in shown] == [
        ["NAME", "RESULT", "LIMIT"],
        ["demo", "oom-kill", "5M"],
        ["other", "success", "50M"],
    ]
    (entry,) = map(json.loads, memrun("history", "demo", "--json", env=home).stdout.splitlines())
    assert entry["status"] == 137
    assert entry["command"] == "tail /dev/zero"

    advice = memrun("suggest", "demo", env=home)
    assert (advice.returncode, advice.stdout) == (0, "8M\n")  # half of 5M on top of it, rounded up
    assert "how much more than 5M it needs, no run has shown" in advice.stderr


def test_jobs_of_a_file_are_remembered_once(memrun, tmp_path):
    home = {**os.environ, "MEMRUN_HISTORY": str(tmp_path / "history")}
    (tmp_path / "jobs.toml").write_text(
        '[jobs.a]\ncommand = "exit 3"\nlimit = "30M"\n[jobs.b]\ncommand = "true"\nlimit = "30M"\n'
    )
    for _ in range(2):
        memrun("up", str(tmp_path / "jobs.toml"), env=home)
    entries = [json.loads(line) for line in memrun("history", "--json", env=home).stdout.splitlines()]
    assert sorted((entry["name"], entry["result"]) for entry in entries) == [("a", "exit-code"), ("b", "success")]
    assert {entry["file"] for entry in entries} == {str(tmp_path / "jobs.toml")}


def test_a_report_on_stdout(memrun):
    done = memrun("--limit", "50M", "--report", "-", "--", "true")
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, "success")
