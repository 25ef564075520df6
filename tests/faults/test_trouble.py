"""A machine in trouble: no process, no descriptor, no room on the disk, no memory, no controller. Each time one sentence, the right
status, and nothing is left (the `unchanged` fixture looks)."""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.asking import MEMRUN, as_root, inside, memrun, sentence
from faults.scenarios import marked, soon

from memrun.cgroup import detect

ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = '[batch]\nmemory = "100M"\n[defaults]\nlimit = "20M"\n[jobs.one]\ncommand = "{}"\n[jobs.two]\ncommand = ["true"]\ndepends_on = ["one"]\n'
FULL = "dd if=/dev/zero of=$0/big bs=1k 2>/dev/null; "


NUMBERS = itertools.count()


class Box:
    """A group for memrun itself, with what it is short of."""

    def __init__(self, controller, name, value):
        own = detect.own()
        legacy = Path("/sys/fs/cgroup", controller)
        if not legacy.is_dir():
            above = Path("/sys/fs/cgroup" + own[""])
            (above / "cgroup.subtree_control").write_text(f"+{controller} +memory")
            self.place = above / f"box-{os.getpid()}-{next(NUMBERS)}"
        else:
            self.place = Path(f"{legacy}{own[controller]}", f"box-{os.getpid()}-{next(NUMBERS)}")
        self.place.mkdir()
        self.set(name, value)

    def set(self, name, value):
        (self.place / name).write_text(str(value))

    def run(self, *words):
        return memrun(*words, preexec_fn=lambda: (self.place / "cgroup.procs").write_text("0"))

    def close(self):
        assert soon(self._still_there, 5.0) == "", "the group that memrun itself was in"

    def _still_there(self):
        for place in sorted((place for place, _, _ in os.walk(self.place)), reverse=True):
            try:
                os.rmdir(place)
            except OSError as e:
                return str(e)
        return ""


@pytest.fixture
def box():
    made = []

    def make(*about):
        made.append(Box(*about))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def batch(tmp_path):
    def make(command="true", folder=tmp_path):
        file = folder / "jobs.toml"
        file.write_text(BATCH.format(command))
        return file

    return make


# Processes


@as_root
@pytest.mark.parametrize("words", [["--limit", "50M"], ["--limit", "50M", "--on-oom", "pause"], ["up"]])
def test_out_of_processes(box, batch, words):
    """memrun alone, one more, and so on, up to where there are enough."""
    if not Path("/sys/fs/cgroup/pids").is_dir() and detect.look().version != "v2":
        pytest.skip("no pids controller")
    short = box("pids", "pids.max", 1)
    words = [*words, "--fresh", str(batch())] if words == ["up"] else [*words, "--", "sleep", "0.05"]
    for most in range(1, 9):
        short.set("pids.max", most)
        done = short.run(*words)
        if done.returncode == 0:
            break
        assert done.returncode in ({1, 125} if words[0] == "up" else {125}), (most, done.stderr)
        said = "cannot start a process|the system refused|Resource temporarily unavailable"
        assert re.search(said, done.stderr), (most, done.stderr)
        assert words[0] == "up" or done.stderr.count("\n") == 1, (most, done.stderr)
    assert (done.returncode, most > 1) == (0, True), done.stderr


# Descriptors


@pytest.mark.parametrize("most", [8, 17, 23, 26, 35])
@pytest.mark.parametrize("kind", ["pause", "up"])
def test_out_of_descriptors(batch, kind, most):
    words = ["--limit", "50M", "--on-oom", "pause", "--", "sleep", "0.05"] if kind == "pause" else ["up", "--fresh", str(batch())]
    done = memrun(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
    assert done.returncode in ({0, 125} if kind == "pause" else {0, 1, 125}), done.stderr
    if done.returncode == 125:
        assert "Too many open files" in done.stderr or "unable to open database file" in done.stderr, done.stderr


# The disk


@as_root
def test_a_full_disk_and_the_report(tmp_path):
    """The command has run and its verdict is said; that there is no report is memrun's failure."""
    words = ["--report", str(tmp_path / "report.json"), "--limit", "20M", "--", "true"]
    done = inside(f"mount -t tmpfs -o size=64k none $0; {FULL}", *words, folder=tmp_path)
    sentence(done, "cannot write the report .*: No space left on device")


@as_root
def test_a_full_disk_and_the_log(tmp_path):
    words = ["--log-target", str(tmp_path / "log"), "--limit", "20M", "--", "sh", "-c", "exit 3"]
    done = inside(f"mount -t tmpfs -o size=64k none $0; {FULL}", *words, folder=tmp_path)
    assert done.returncode in {3, 125}


@as_root
def test_a_disk_that_fills_while_a_batch_runs(tmp_path, batch):
    """All run to their ends; what cannot be recorded is said once."""
    file = batch("dd if=/dev/zero of=big bs=1k 2>/dev/null; true")
    mounts = f"cp {file} {file}.copy; mv {file}.copy /tmp/{os.getpid()}.toml; mount -t tmpfs -o size=200k none $0; mv /tmp/{os.getpid()}.toml {file};"
    done = inside(mounts, "up", str(file), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot record what happens") == 1
    assert "2 succeeded" in done.stderr + done.stdout


@as_root
@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ("mount -t tmpfs -o size=64k none $0; cp {} $0/jobs.toml; " + FULL, "full. Make room there"),
        (
            "mount -t tmpfs none $0; cp {} $0/jobs.toml; mount -o remount,ro $0; mount -t tmpfs -o ro none /var/lib;",
            "Read-only file system",
        ),
    ],
)
def test_no_place_for_the_state_of_a_batch(tmp_path, batch, mounts, words):
    (tmp_path / "there").mkdir()
    there = tmp_path / "there"
    done = inside(mounts.format(batch()), "up", str(there / "jobs.toml"), folder=there)
    sentence(done, words)


@as_root
def test_a_read_only_place_for_sockets_and_claims():
    """The job runs under the name that it was given; nobody can ask for it, which `--verbose` says."""
    mounts = "mkdir -p /run/memrun; mount -t tmpfs -o ro,mode=700 none /run/memrun;"
    done = inside(mounts, "--name", "mine", "--limit", "20M", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    done = inside(mounts, "-v", "--limit", "20M", "--", "sleep", "0.1")
    assert done.returncode == 0
    assert "no control socket: Read-only file system" in done.stderr


# Memory


@as_root
def test_memrun_itself_runs_out_of_memory(box, tmp_path):
    """Whoever the kernel kills then: a verdict, or memrun dies and its hand cleans up."""
    v1 = detect.look().version == "v1"
    limit = "memory.limit_in_bytes" if v1 else "memory.max"
    marks = []
    for number, size in enumerate([4, 8, 12, 20, 60]):
        short = box("memory", limit, size << 20)
        if not v1 and (short.place / "memory.swap.max").exists():
            short.set("memory.swap.max", 0)
        os.environ["MEMRUN_TEST_RUN"] = mark = f"oom-{os.getpid()}-{number}"
        try:
            done = short.run("--limit", "infinity", "--on-oom", "kill", "--", "sh", "-c", "sleep 0.1; exit 3")
        finally:
            del os.environ["MEMRUN_TEST_RUN"]
        marks.append(done.returncode)
        assert done.returncode in {3, 125, 137, -9}, done
        assert not (left := soon(lambda mark=mark: marked(mark))), left
    assert marks[0] in {-9, 137}
    assert marks[-1] == 3


# What the kernel offers


@as_root
@pytest.mark.parametrize("words", [["--limit", "20M", "--", "true"], ["up"]])
def test_without_a_memory_controller(batch, words):
    words = [*words, str(batch())] if words == ["up"] else words
    mounts = "umount /sys/fs/cgroup/memory;" if Path("/sys/fs/cgroup/memory").is_dir() else "umount /sys/fs/cgroup;"
    sentence(inside(mounts, *words), "memory controller|cgroup|mount")


@pytest.mark.v2
@pytest.mark.skipif(Path("/proc/pressure/memory").exists(), reason="this kernel tells of pressure")
def test_without_pressure_files():
    sentence(memrun("--limit", "20M", "--pressure", "medium=log", "--", "true"), "pressure")


GONE = r"""
for place in $(awk -F: '/memory|freezer/ { split($2, names, ","); print "/sys/fs/cgroup/" names[1] $3 } /^0::.*memrun/ { print "/sys/fs/cgroup" $3; print "/sys/fs/cgroup/unified" $3 }' /proc/self/cgroup); do
  [ -d "$place" ] || continue
  case $place in */memrun-*) ;; *) continue;; esac
  out=${place%%/memrun-*}
  [ -e "$out/memrun-self-"* ] 2>/dev/null && out=$(echo "$out"/memrun-self-*)
  while read -r pid; do echo "$pid" > "$out/cgroup.procs"; done < "$place/cgroup.procs" 2>/dev/null
  rmdir "$place" || exit 77
  [ "$1" = all ] && rmdir "${place%/*}"
done
sleep 0.1
exit 3
"""


@as_root
@pytest.mark.parametrize("how", ["one", "all"])
@pytest.mark.parametrize("rule", ["kill", "pause", "restart"])
def test_the_group_is_removed_under_us(tmp_path, how, rule):
    """As root a job can leave its group and remove it. It goes on, its status is its own, and the record says what was done."""
    report = tmp_path / "report.json"
    done = memrun("--limit", "20M", "--on-oom", rule, "--report", str(report), "--", "sh", "-c", GONE, "sh", how)
    assert done.returncode == 3, done
    record = json.loads(report.read_text())
    assert (record["result"], bool(record["interference"])) == ("exit-code", True)


# Time


WALL_CLOCK = {
    "attach",
    "batch/desk",
    "batch/run",
    "desk",
    "job",
    "batch/ledger",
    "batch/will",
    "supervisor",
    "views/top",
    "vigil",
}  # they say when something was


def test_no_decision_looks_at_the_wall_clock():
    """It jumps. Who decides has no clock at all, and who reads the wall clock only writes it down: as ISO 8601 or into a table."""
    for file in sorted((ROOT / "memrun").rglob("*.py")):
        tree = ast.parse(file.read_text())
        calls = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.time", "time.time_ns"}
        ]
        assert not calls or str(file.relative_to(ROOT / "memrun").with_suffix("")) in WALL_CLOCK, f"{file} reads the wall clock"
        clocks = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not clocks & {"datetime.now", "datetime.utcnow", "datetime.today", "datetime.datetime.now"}, file
        if file.stem in {"policy", "plan", "budget"}:
            assert "import time" not in file.read_text()


@as_root
@pytest.mark.skipif(not Path("/run/memrun-vm").exists(), reason="sets the clock: only in a guest")
@pytest.mark.parametrize("jump", [-86400, 86400])
def test_a_clock_that_jumps(jump, tmp_path):
    report = tmp_path / "report.json"
    words = ["--limit", "20M", "--timeout", "700ms", "--report", str(report), "--", "sleep", "100"]
    with subprocess.Popen([*MEMRUN, *words], stderr=subprocess.PIPE, text=True) as process:
        began = time.monotonic()
        time.sleep(0.3)
        time.clock_settime(time.CLOCK_REALTIME, time.time() + jump)
        process.communicate(timeout=30)
        assert process.returncode == 124
        assert 0.6 < time.monotonic() - began < 10
    record = json.loads(report.read_text())
    assert 0.6 < record["elapsed"] < 5
    assert record["started"] <= record["ended"]


# Swap


@pytest.mark.skipif(Path("/proc/swaps").read_text().count("\n") < 2, reason="no swap here")
@pytest.mark.parametrize(("words", "status"), [([], 137), (["--swap", "infinity"], 0)])
def test_with_swap_a_limit_means_what_it_says(hog, tmp_path, words, status):
    report = tmp_path / "report.json"
    done = memrun("--limit", "20M", *words, "--report", str(report), "--", hog, "touch", "40")
    assert done.returncode == status, done.stderr
    record = json.loads(report.read_text())
    assert record["peak"] <= 20 << 20
    assert status == 0 or not record.get("swap_peak")


TAKES_ALL = """
import os, sys, time
try:
    while os.fork():
        pass
except OSError:
    os.write(1, b"full\\n")
while True:
    time.sleep(100)
"""


def test_with_every_process_taken_all_are_ended_when_memrun_is_killed(box):
    taken = box("pids", "pids.max", 40)
    run = subprocess.Popen(
        [sys.executable, "-m", "memrun", "--limit", "200M", "--", sys.executable, "-c", TAKES_ALL],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: (taken.place / "cgroup.procs").write_text("0"),  # noqa: PLW1509  (no threads here)
    )
    try:
        assert run.stdout.readline() == b"full\n"
    finally:
        run.kill()
        run.communicate()
    assert soon(lambda: " ".join((taken.place / "cgroup.procs").read_text().split()), 8.0) == ""
