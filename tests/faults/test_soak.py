"""Mixed jobs for a while, some of which fail, are killed or kill their memrun; then all is as before: open files, memory, groups, processes, sockets.

Beside them one `memrun up` lives through it all, with a service that is restarted all the time and one that people pause, resume and raise.
MEMRUN_TEST_SOAK: minutes (`make soak MINUTES=60`); by default some seconds.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio
from faults.scenarios import SCENARIOS, Runs, soon

import memrun
from memrun import names
from memrun.record import Attempts

MINUTES = float(os.environ.get("MEMRUN_TEST_SOAK", "0.1"))
GROWTH = 2 << 20  # bytes of resident memory that a supervisor may have more of at the end than when it had seen everything once
MEMRUN = [sys.executable, "-m", "memrun"]
LONG = """
[batch]
memory = "200M"
[jobs.again{0}]
command = ["true"]
limit = "10M"
restart = "always"
attempts = 1000000
delay = "20ms"
max_delay = "20ms"
[jobs.asked{0}]
command = ["sleep", "100000"]
limit = "20M"
"""
ERRORS = [errno.EBUSY, errno.ENODEV, errno.EACCES, errno.ENOSPC, errno.EIO]


class Long:
    """The one that lives through it all."""

    def __init__(self, folder):
        self.mark = os.getpid()
        file = folder / "long.toml"
        file.write_text(LONG.format(self.mark))
        self.process = subprocess.Popen([*MEMRUN, "up", "--quiet", str(file)], stdin=subprocess.DEVNULL)

    def ask(self, *words):
        done = subprocess.run([*MEMRUN, *words, f"asked{self.mark}"], capture_output=True, text=True, timeout=60)
        return done.returncode

    def supervisor(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next(pid for pid in children if b"memrun-hand" not in Path(f"/proc/{pid}/cmdline").read_bytes())

    def resident(self):
        words = Path(f"/proc/{self.supervisor()}/statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGESIZE")

    def files(self):
        """Open ones, the least of many looks: `again` has some as long as it runs."""
        until, least = time.monotonic() + 1, 1 << 20
        while time.monotonic() < until:
            least = min(least, len(os.listdir(f"/proc/{self.supervisor()}/fd")))
        return least

    def end(self):
        self.process.terminate()
        return self.process.wait(timeout=30)


def sockets():
    """Sockets and claims of memruns that this test has started are gone when it is over: what is there beside those of others."""
    place = names.directory()
    return set(os.listdir(place)) if place else set()


@pytest.mark.timeout(MINUTES * 60 + 300)
def test_soak(tmp_path, hog):
    chance = random.Random(4711)
    runs = {name: Runs(name, tmp_path, hog) for name in SCENARIOS}
    before = sockets()
    long = Long(tmp_path)
    for one in runs.values():
        one.ignored = str(long.process.pid)
    assert not soon(lambda: long.ask("pause"), 10)
    began, done, first = time.monotonic(), 0, None
    try:
        while time.monotonic() - began < MINUTES * 60:
            name = chance.choice(list(runs))
            what = chance.choice(["0", "0", "kill", *map(str, ERRORS)])
            one = runs[name]
            one.run(what, chance.randrange(1, 200))
            left = one.left(5.0)
            assert not left, (name, what, left)
            for words in (["resume"], ["raise"], ["pause"]):
                subprocess.run(
                    [*MEMRUN, *words, f"asked{long.mark}", *(["+1K"] if words == ["raise"] else [])],
                    capture_output=True,
                    timeout=60,
                )
            done += 1
            if first is None and time.monotonic() - began > MINUTES * 60 / 4:
                first = long.files(), long.resident()
        last = long.files(), long.resident()
    finally:
        status = long.end()
    assert status in {1, 128 + signal.SIGTERM, 143}
    sys.stdout.write(f"\n{done} runs; open files {first[0]} -> {last[0]}, resident {first[1] >> 10} -> {last[1] >> 10} KiB\n")
    assert last[0] <= first[0] + 1
    assert last[1] <= first[1] + GROWTH
    subprocess.run([*MEMRUN, "ps"], capture_output=True, timeout=60)  # sweeps what the killed have left
    mine = {f"{long.process.pid}.sock", *(f"{name}{long.mark}.name" for name in ("again", "asked"))}
    assert not mine & sockets()
    assert len([name for name in sockets() - before if name.startswith("fault-")]) == 0


def test_a_service_that_is_restarted_for_ever_is_remembered_in_part(monkeypatch):
    monkeypatch.setattr(Attempts, "most", 4)
    options = {"limit": "20M", "restart": "always", "attempts": 9, "delay": 0.001, "max_delay": 0.001}
    record = trio.run(lambda: memrun.run(["sh", "-c", "exit 3"], **options))
    assert record.result == "exhausted"
    assert len(record.attempts) == 4
    assert record.started == record.attempts[0].started
    assert record.elapsed > sum(attempt.elapsed for attempt in record.attempts)
