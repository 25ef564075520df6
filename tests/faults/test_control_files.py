"""Every operation on a control file fails once: no orphan, no group left, no parked task, no traceback, the right status.

What is left behind is looked at after each run, so that a complaint says which operation it was. MEMRUN_TEST_FAULTS=all: each operation with each error
(an hour); by default some operations of each scenario, each with one.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import leftovers

INJECT = str(Path(__file__).with_name("inject.py"))
ERRORS = [errno.EBUSY, errno.ENODEV, errno.EACCES, errno.ENOSPC, errno.EIO, errno.EINTR]
ALL = os.environ.get("MEMRUN_TEST_FAULTS") == "all"
SOME = 12  # operations of a scenario
TOLD = re.compile(r": (paused|resumed|restarting|exhausted|threshold): ")  # what a run says on its way
GONE_IN = 5.0  # seconds
BATCH = """
[batch]
memory = "100M"
[defaults]
limit = "20M"
delay = "10ms"
[jobs.one]
command = ["true"]
[jobs.two]
command = "exit 3"
restart = "on-failure"
attempts = 2
depends_on = ["one"]
"""
SCENARIOS = {
    "one-shot": (["--limit", "20M", "--", "true"], {0}),
    "oom": (["--limit", "20M", "--", "HOG", "touch", "60"], {137}),
    "pause": (["--limit", "20M", "--on-oom", "pause", "--grow", "2", "--patience", "2s", "--", "HOG", "touch", "30"], {0, 137}),
    "restart": (
        ["--limit", "20M", "--on-oom", "restart", "--grow", "2", "--delay", "10ms", "--", "HOG", "touch", "30"],
        {0, 137},
    ),
    "timeout": (["--limit", "20M", "--timeout", "100ms", "--stop-timeout", "100ms", "--", "sleep", "100"], {124}),
    "batch": (["up", "--fresh", "BATCH"], {1}),
}


class Runs:
    """One scenario, over and over."""

    def __init__(self, words, folder):
        self.words, self.folder = words, folder
        self.counts = folder / "counts"
        self.before = {one[:2] for one in leftovers()}

    def run(self, which, number):
        self.counts.unlink(missing_ok=True)
        words = [sys.executable, INJECT, str(which), str(number), str(self.counts), "--", *self.words]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, cwd=self.folder)

    def operations(self):
        assert self.run(0, 0).returncode < 256
        return max(int(line) for line in self.counts.read_text().split())

    def left(self):
        deadline = time.monotonic() + GONE_IN
        while left := [one for one in leftovers() if one[:2] not in self.before]:
            if time.monotonic() > deadline:
                return left
            time.sleep(0.01)
        return []


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_operation_fails_once(name, tmp_path, hog):
    words, expected = SCENARIOS[name]
    (tmp_path / "jobs.toml").write_text(BATCH)
    found = {"HOG": hog, "BATCH": str(tmp_path / "jobs.toml")}
    runs = Runs([found.get(word, word) for word in words], tmp_path)
    count = runs.operations()
    assert count > 10, "nothing is injected"
    wrong = []
    for which in range(1, count + 1, 1 if ALL else max(1, count // SOME)):
        for number in ERRORS if ALL else [ERRORS[which % len(ERRORS)]]:
            done = runs.run(which, number)
            about = (
                f"operation {which} of {count}, {errno.errorcode[number]}: status {done.returncode}: {done.stderr.strip()[-600:]}"
            )
            if done.returncode not in {*expected, 125, 0}:
                wrong.append(f"status: {about}")
            if "Traceback" in done.stderr or "Error" in done.stderr:
                wrong.append(f"traceback: {about}")
            said = [line for line in done.stderr.strip().splitlines() if not TOLD.search(line)]
            if done.returncode == 125 and len(said) != 1 and name != "batch":
                wrong.append(f"not one sentence: {about}")
            if left := runs.left():
                wrong.append(f"left behind {left}: {about}")
                break
    assert not wrong, "\n".join(wrong)
