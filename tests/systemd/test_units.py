"""As systemd's services, as in examples/systemd: notified, reloaded, stopped, and logged in the real journal."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest
from systemd.people import BARE, MEMRUN, ROOT, run

UNITS = Path("/run/systemd/system")
HOG = "x = bytearray(80 << 20)"


@pytest.fixture
def service():
    """service(example, replacing ExecStart's memrun ... by ours) -> its name; it is stopped and gone at the end."""
    made = []

    def install(example, *words):
        name = f"memrun-test-{example}"
        lines = (ROOT / "examples/systemd" / example).read_text().splitlines()
        start = f"ExecStart={shlex.join([*MEMRUN, *words])}"
        settings = "".join(f'Environment="{key}={value}"\n' for key, value in BARE.items())
        text = "\n".join(start if line.startswith("ExecStart=") else line for line in lines)
        (UNITS / name).write_text(text.replace("[Service]", f"[Service]\n{settings}").replace("Restart=on-failure", ""))
        made.append(name)
        run("systemctl", "daemon-reload")
        return name

    yield install
    for name in made:
        run("systemctl", "stop", name)
        run("systemctl", "reset-failed", name)
        (UNITS / name).unlink()


def until(what):
    deadline = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def shown(name, *properties):
    said = run("systemctl", "show", name, *(f"-p{one}" for one in properties)).stdout
    return dict(line.split("=", 1) for line in said.splitlines())


def test_one_run_and_its_end_in_the_journal(service):
    name = service(
        "nightly-backup.service",
        "--name",
        "backup",
        "--lock",
        "--limit",
        "40M",
        "--log-target",
        "journal",
        "--",
        MEMRUN[0],
        "-c",
        HOG,
    )
    run("systemctl", "start", name)
    until(lambda: shown(name, "ActiveState")["ActiveState"] == "failed")
    assert shown(name, "ExecMainStatus", "Result") == {"ExecMainStatus": "137", "Result": "exit-code"}
    run("journalctl", "--sync")
    found = run("journalctl", "-o", "json", "MEMRUN_NAME=backup", "MEMRUN_RESULT=oom-kill").stdout.splitlines()
    entry = json.loads(found[-1])
    assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["MEMRUN_LIMIT"]) == ("memrun", "3", str(40 << 20))
    # journald looks the sender up in /proc when it gets round to the entry: it may have ended by then
    assert entry.get("_SYSTEMD_UNIT", name) == name
    assert entry["MESSAGE"].startswith("backup: oom-kill: killed at the limit of 40M")


def test_a_large_entry_goes_as_a_memory_file():
    code = "from memrun.ownlog import Log; Log('journal').say('longlong ' * 40000, 5, {'MEMRUN_NAME': 'large'})"
    assert run(MEMRUN[0], "-c", code, env=BARE).stderr == ""
    run("journalctl", "--sync")
    found = run("journalctl", "-a", "-o", "cat", "MEMRUN_NAME=large").stdout
    assert len(found.strip("\n")) == 9 * 40000


JOURNALD = (
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journald-audit.socket",
)
FILL = """
from memrun.ownlog import Log
log = Log("journal")
while not log._missing: log.say("full " * 200, always=True)
"""


def told(*words):
    return run(*MEMRUN, "--log-target", "journal", "--limit", "40M", *words, "--", "sh", "-c", "exit 3", env=BARE)


def test_without_a_journal_it_is_said_on_stderr_and_why_once():
    assert run("systemctl", "stop", *JOURNALD).returncode == 0
    try:
        done = told()
    finally:
        assert run("systemctl", "start", *JOURNALD[1:3], JOURNALD[0]).returncode == 0
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert "no line gets to /run/systemd/journal/socket" in first
    assert "exited with status 3" in second


def test_a_journal_that_is_stuck_keeps_nobody_waiting():
    """Its queue is full, and nobody takes anything out of it: a line less, and the same status."""
    pid = shown(JOURNALD[0], "MainPID")["MainPID"]
    run("kill", "-STOP", pid)
    try:
        assert run(MEMRUN[0], "-c", FILL, env=BARE).returncode == 0
        began = time.monotonic()
        done = told()
        assert time.monotonic() - began < 10
    finally:
        run("kill", "-CONT", pid)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_stop_lets_the_job_end_by_itself(service, tmp_path):
    told = tmp_path / "told"
    script = f"trap 'echo stopped > {told}; exit 0' TERM; echo ready > {told}; while :; do sleep 0.1; done"
    name = service("nightly-backup.service", "--limit", "40M", "--stop-timeout", "20s", "--", "sh", "-c", script)
    run("systemctl", "start", name)
    assert shown(name, "ActiveState", "StatusText") == {"ActiveState": "active", "StatusText": "sh runs, its limit is 40M"}
    until(lambda: told.exists() and told.read_text() == "ready\n")
    run("systemctl", "stop", name)
    assert told.read_text() == "stopped\n"


def test_a_job_file_is_reloaded(service, tmp_path):
    file = tmp_path / "jobs.toml"
    file.write_text('[defaults]\nlimit = "40M"\n[jobs.one]\ncommand = "sleep 1000"\n')
    name = service("jobs.service", "up", "--log-target", "journal", str(file))
    assert run("systemctl", "start", name).returncode == 0
    assert shown(name, "ActiveState", "StatusText") == {"ActiveState": "active", "StatusText": "jobs.toml: 0 of 1 jobs are done"}
    file.write_text(file.read_text() + '[jobs.two]\ncommand = "true"\n')
    assert run("systemctl", "reload", name).returncode == 0
    until(lambda: shown(name, "StatusText")["StatusText"] == "jobs.toml: 1 of 2 jobs are done")
    assert shown(name, "ActiveState")["ActiveState"] == "active"
