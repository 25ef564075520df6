"""What happens to a memrun in these tests, and what is there when it is over."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from conftest import leftovers

from memrun.cgroup import detect

INJECT = str(Path(__file__).with_name("inject.py"))
MANY = os.environ.get("MEMRUN_TEST_FAULTS", "")  # operations of each scenario: a number, or "all"
ALL = MANY == "all"
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
RAISED = """for again in 1 2 3 4 5 6 7 8 9; do "$0" -m memrun raise "$1" 80M 2>/dev/null && break; done; exec "$2" touch 60"""
# Lets itself go once it is held, by what it is told is memrun's pid; and then it is there until it is killed.
HELD = "read pid; until grep -q memrun- /proc/self/cgroup; do sleep 0.01; done; kill $pid; exec sleep 1000"
ONCE = ["--limit", "20M"]
SCENARIOS = {  # memrun's words, and the statuses with which it may end when something of it has failed
    "one-shot": ([*ONCE, "--", "true"], {0}),
    "oom": ([*ONCE, "--", "HOG", "touch", "60"], {137}),
    "pause": ([*ONCE, "--on-oom", "pause", "--grow", "2", "--patience", "2s", "--", "HOG", "touch", "30"], {0, 137}),
    "restart": ([*ONCE, "--on-oom", "restart", "--grow", "2", "--delay", "10ms", "--", "HOG", "touch", "30"], {0, 137}),
    "timeout": ([*ONCE, "--timeout", "100ms", "--stop-timeout", "100ms", "--", "sleep", "100"], {124}),
    "raise": (
        ["--name", "NAME", "--limit", "40M", "--", "sh", "-c", RAISED, sys.executable, "NAME", "HOG"],
        {0, 137},
    ),
    "attach": (["attach", "--limit", "50M", "--stop-timeout", "100ms", "--quiet", "PID"], {0}),
    "batch": (["up", "--fresh", "BATCH"], {1}),
}
TOP = detect.look().unified or ""
if detect.look().version == "v2" and os.access(TOP, os.W_OK):  # where memrun has to divide its own group
    SCENARIOS |= {"alone": SCENARIOS["one-shot"], "alone-batch": SCENARIOS["batch"]}


class Runs:
    """One scenario, over and over. `before`: what was there before it."""

    def __init__(self, name, folder, hog):
        self.name, self.folder = name, folder
        self.counts = folder / "counts"
        (folder / "jobs.toml").write_text(BATCH)
        known = {"HOG": hog, "BATCH": str(folder / "jobs.toml"), "NAME": f"fault-{os.getpid()}"}
        self.words = [known.get(word, word) for word in SCENARIOS[name][0]]
        self.before = {one[:2] for one in leftovers()}
        self.ignored = "\0"  # a word in the paths of what somebody else goes on with
        self._number = 0
        self._group = Path(TOP, f"group-{os.getpid()}") if name.startswith("alone") else None  # that memrun is started in

    def run(self, what="0", which=0):
        """CompletedProcess, and what is wrong with what it left behind after that many seconds."""
        self.counts.unlink(missing_ok=True)
        self._number += 1
        return self._attached(what, which) if self.name == "attach" else self._finished(self._started(what, which, self.words))

    def _started(self, what, which, words):
        words = [sys.executable, INJECT, what, str(which), str(self.counts), "--", *words]
        pipe = subprocess.PIPE
        environ = {**os.environ, "MEMRUN_TEST_RUN": self._mark()}
        options = {"stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "process_group": 0, "preexec_fn": self._enter}
        return subprocess.Popen(words, text=True, cwd=self.folder, env=environ, **options)

    def _enter(self):
        if self._group is not None:
            Path(TOP, "cgroup.subtree_control").write_text("+memory")
            self._group.mkdir(exist_ok=True)
            (self._group / "cgroup.procs").write_text("0")

    def _mark(self):
        return f"{os.getpid()}-{self._number}"

    def _finished(self, process):
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def _attached(self, what, which):
        target = subprocess.Popen(["sh", "-c", HELD], stdin=subprocess.PIPE)
        try:
            home = cgroup(target.pid)
            process = self._started(what, which, [str(target.pid) if word == "PID" else word for word in self.words])
            target.stdin.write(f"{process.pid}\n".encode())
            target.stdin.flush()
            done = self._finished(process)
            if wrong := soon(lambda: away(target, home)):
                done.stderr += f"\nTraceback of the test: {wrong}"
        finally:
            target.kill()
            target.wait()
            target.stdin.close()
        return done

    def operations(self):
        """How many there are when nothing fails."""
        done = self.run()
        assert done.returncode in SCENARIOS[self.name][1], done.stderr
        return max(int(line) for line in self.counts.read_text().split())

    def left(self, seconds):
        """Processes, groups and open files of the latest run that are still there after that long."""

        def look():
            mine = [one for one in leftovers() if one[:2] not in self.before and self.ignored not in one[1]]
            return mine + marked(self._mark()) + self._divided()

        return soon(look, seconds)

    def _divided(self):
        """What is wrong with the group that memrun was in: others are to be able to live there. It is removed."""
        if self._group is None or not self._group.exists():
            return []
        below = [place.name for place in self._group.iterdir() if place.is_dir()]
        if below or (self._group / "cgroup.subtree_control").read_text().strip():
            return [("group", str(self._group), f"is still divided: {below}")]
        if (self._group / "cgroup.procs").read_text():
            return [("process", str(self._group), "is in there")]
        self._group.rmdir()
        return []


def soon(look, seconds=2.0):
    """What it finds, once that is nothing, or when time is up."""
    deadline = time.monotonic() + seconds
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def marked(mark):
    """Processes that were started by that run, wherever they have gone."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if f"MEMRUN_TEST_RUN={mark}".encode() in (place / "environ").read_bytes().split(b"\0"):
                found.append(("process", place.name, (place / "cmdline").read_bytes().decode(errors="replace")))
        except OSError:
            continue
    return found


def cgroup(pid):
    """Where a process is, on all hierarchies."""
    return Path(f"/proc/{pid}/cgroup").read_text()


def away(target, home):
    """What is wrong with a process that was to be let go."""
    if target.poll() is not None:
        return f"it died: {target.returncode}"
    return "" if cgroup(target.pid) == home else f"it is in {cgroup(target.pid)}, not in {home}"


def some(count, most):
    """Which operations are tried: all of them in a long run, else at most so many, spread out, the last one among them."""
    most = int(MANY) if MANY.isdigit() else most
    if ALL or count <= most:
        return range(1, count + 1)
    return sorted({1 + round(number * (count - 1) / (most - 1)) for number in range(most)})
