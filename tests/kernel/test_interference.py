"""What others do to a run behind memrun's back: to the processes in its groups, to the groups, to its runtime directory. It ends in bounded time, and says how."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memrun.cgroup import detect

MEMRUN = [sys.executable, "-m", "memrun"]
AHEAD = {"vigil": [], "trio": ["--at", "40M=signal:USR1"]}  # with and without an event loop
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can move processes about")
either = pytest.mark.parametrize("loop", AHEAD)


def start(*words, **options):
    known = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*MEMRUN, *words], **{**known, **options})


def finish(process):
    out, err = process.communicate(timeout=30)
    return out, err, process.returncode


# A process leaves the companion group, by which memrun hears of the end, and stays in the memory group (v1, as root).
LEAVES = "(echo $BASHPID > {unified}/cgroup.procs; echo out; exec sleep {seconds}) & {then}"


def leaving(seconds, then):
    return ["bash", "-c", LEAVES.format(unified=detect.look().unified, seconds=seconds, then=then)]


@pytest.mark.v1
@as_root
@either
def test_who_left_one_group_only_is_waited_for(loop):
    process = start("--limit", "50M", "--wait-all", *AHEAD[loop], "--", *leaving(0.2, "exit 3"))
    began = time.monotonic()
    _, err, status = finish(process)
    assert (status, "exited with status 3" in err) == (3, True)
    assert 0.2 <= time.monotonic() - began < 10


@pytest.mark.v1
@as_root
@either
@pytest.mark.parametrize("how", ["left", "stop", "timeout"])
def test_who_left_one_group_only_is_ended(loop, how):
    words = {"left": [], "stop": ["--wait-all"], "timeout": ["--wait-all", "--timeout", "100ms"]}[how]
    process = start(
        "--limit", "50M", *words, *AHEAD[loop], "--", *leaving(1000, "read line; exit 3" if how == "left" else "exec sleep 1000")
    )
    assert process.stdout.readline() == "out\n"
    if how == "left":
        process.stdin.write("\n")
        process.stdin.flush()
    elif how == "stop":
        process.send_signal(signal.SIGTERM)
    _, err, status = finish(process)
    assert (status, bool(err)) == ({"left": 3, "stop": 143, "timeout": 124}[how], True), (status, err)


@pytest.mark.v1
@as_root
def test_a_batch_ends_though_a_process_of_a_job_left_one_group_only(tmp_path):
    script = LEAVES.format(unified=detect.look().unified, seconds=1000, then="exit 0")
    file = tmp_path / "jobs.toml"
    file.write_text(f"[jobs.a]\ncommand = ['bash', '-c', '{script}']\nlimit = '50M'\n")
    done = subprocess.run([*MEMRUN, "up", str(file)], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done


# The runtime directory, in which its control socket and the claim of its name are


@pytest.fixture
def runtime(tmp_path):
    """One of the test's own, and an environment that names it."""
    place = tmp_path / "runtime"
    place.mkdir(mode=0o700)
    return place, {**os.environ, "XDG_RUNTIME_DIR": str(place)}


WAITS = ["sh", "-c", "echo up; read line; exit $line"]


@either
@pytest.mark.parametrize("named", [[], ["--name", "a"]])
@pytest.mark.parametrize("status", [0, 3])
def test_the_result_outlives_the_runtime_directory(tmp_path, runtime, loop, named, status):
    place, environment = runtime
    report, history = tmp_path / "report.json", tmp_path / "history"
    report.write_text("old")
    words = ["--limit", "50M", "--report", str(report), *named, *AHEAD[loop], "--", *WAITS]
    process = start(*words, env={**environment, "MEMRUN_HISTORY": str(history)})
    assert process.stdout.readline() == "up\n"
    wait_for(place / "memrun", f"{process.pid}.sock")
    shutil.rmtree(place / "memrun")
    out, err = process.communicate(f"{status}\n", timeout=30)
    assert (process.returncode, out, bool(err)) == (status, "", bool(status)), err
    assert json.loads(report.read_text())["status"] == status
    assert json.loads(history.read_text())["status"] == status


def wait_for(place, name):
    """Until there is a file of that name."""
    deadline = time.monotonic() + 20
    while not (place / name).exists():
        assert time.monotonic() < deadline, name
        time.sleep(0.005)


@either
def test_nobody_removes_the_claim_of_another_run(runtime, loop):
    """Two runs of one name: the directory of the first was removed, and the second has made it anew."""
    place, environment = runtime
    first = start("--limit", "50M", "--name", "a", *AHEAD[loop], "--", *WAITS, env=environment)
    assert first.stdout.readline() == "up\n"
    wait_for(place / "memrun", f"{first.pid}.sock")
    (place / "memrun").rename(place / "away")
    second = start("--limit", "50M", "--name", "a", *AHEAD[loop], "--", *WAITS, env=environment)
    assert second.stdout.readline() == "up\n"
    wait_for(place / "memrun", f"{second.pid}.sock")
    assert first.communicate("0\n", timeout=30) == ("", "")
    assert (place / "memrun" / "a.name").exists()
    third = start("--name", "a", "--limit", "50M", "--", "true", env=environment)
    assert "is running already" in finish(third)[1]
    assert second.communicate("0\n", timeout=30) == ("", "")
    assert (first.returncode, second.returncode, third.returncode) == (0, 0, 125)
    assert not list((place / "memrun").iterdir())


def test_a_batch_outlives_the_runtime_directory(tmp_path, runtime):
    place, environment = runtime
    file = tmp_path / "jobs.toml"
    file.write_text(f"[jobs.a]\ncommand = ['sh', '-c', 'rm -r {place}/memrun; mkdir {place}/memrun']\nlimit = '50M'\n")
    report = tmp_path / "report.json"
    words = [*MEMRUN, "up", str(file), "--report", str(report), "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(report.read_text())["jobs"][0]["result"] == "success"


@pytest.fixture
def full(runtime):
    """A runtime directory on a file system with no room left, though files can be made there."""
    place, environment = runtime
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", place], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    with open(place / "fill", "wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(b"\0" * 4096)
    yield place, environment
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--name", "a"],
        ["--on-oom", "pause"],
        ["--on-oom", "pause", "--name", "a"],
        ["--on-oom", "pause", "--grow", "2"],
        ["--events", "{}/events", "--log-target", "{}/log"],
    ],
)
def test_a_full_file_system_ends_no_job(tmp_path, full, words, status):
    place, environment = full
    report = tmp_path / "report.json"
    words = [word.format(place) for word in words]
    process = start("--limit", "50M", "--report", str(report), *words, "--", *WAITS, env=environment)
    assert process.stdout.readline() == "up\n"
    wait_for(place / "memrun", "a.name" if "a" in words else "sh.name")
    process.communicate(f"{status}\n", timeout=30)
    assert process.returncode == status
    assert json.loads(report.read_text())["status"] == status


def test_a_mail_says_that_the_output_could_not_be_kept(full):
    place, environment = full
    process = start(
        "--limit", "50M", "--mail-style", "--", "sh", "-c", "echo hallo; exit 3", env={**environment, "TMPDIR": str(place)}
    )
    assert "its output (6 bytes) could not be kept" in finish(process)[1]


# The groups themselves


class Groups:
    """Those of a job, one in each hierarchy: memory's is the first."""

    def __init__(self, process, environment):
        words = [*MEMRUN, "ps", "--json"]
        (row,) = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment).stdout)
        assert row["state"] == "RUNNING", process.pid
        setup = detect.look()
        run = row["cgroup"].split("/")[-2:]
        tops = [setup.memory, setup.unified, setup.freezer]
        found = [next(Path(top).parent.glob(f"**/{'/'.join(run)}"), None) for top in tops if top]
        self.paths = list(dict.fromkeys(path for path in found if path is not None))
        self.tops = {path: _mount_point(path) for path in self.paths}

    def remove(self):
        """Move who is in them to the top, and take them away."""
        for path in self.paths:
            for pid in (path / "cgroup.procs").read_text().split():
                (self.tops[path] / "cgroup.procs").write_text(pid)
        for path in self.paths:
            path.rmdir()


def _mount_point(path):
    while not path.is_mount():
        path = path.parent
    return path


@as_root
@either
@pytest.mark.parametrize("status", [0, 3])
def test_a_job_whose_group_is_removed_goes_on_and_the_record_says_so(tmp_path, runtime, loop, status):
    place, environment = runtime
    report = tmp_path / "report.json"
    process = start("--limit", "50M", "--report", str(report), *AHEAD[loop], "--", *WAITS, env=environment)
    assert process.stdout.readline() == "up\n"
    wait_for(place / "memrun", f"{process.pid}.sock")
    Groups(process, environment).remove()
    words = [*MEMRUN, "ps", "--json"]
    (row,) = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=30, env=environment).stdout)
    assert (row["state"], row["usage"], row["peak"]) == ("RUNNING", None, None)
    _, err = process.communicate(f"{status}\n", timeout=30)
    found = json.loads(report.read_text())
    assert (process.returncode, found["status"], found["limit"]) == (status, status, 50 << 20)
    assert found["interference"].startswith("its group was removed by somebody else")
    assert found["interference"] in err


@as_root
@either
def test_a_job_whose_group_is_removed_can_be_stopped(runtime, loop):
    place, environment = runtime
    words = ["--limit", "50M", "--stop-timeout", "200ms", *AHEAD[loop]]
    process = start(*words, "--", "sh", "-c", "trap '' TERM; echo up; exec sleep 1000", env=environment)
    assert process.stdout.readline() == "up\n"
    wait_for(place / "memrun", f"{process.pid}.sock")
    Groups(process, environment).remove()
    process.send_signal(signal.SIGTERM)
    _, err, status = finish(process)
    assert (status, "its group was removed by somebody else" in err) == (137, True), err


@pytest.mark.v1
@as_root
@either
def test_who_was_put_into_the_memory_group_only_does_not_keep_memrun(runtime, loop):
    place, environment = runtime
    process = start("--limit", "50M", *AHEAD[loop], "--", *WAITS, env=environment)
    with subprocess.Popen(["sleep", "1000"]) as other:
        assert process.stdout.readline() == "up\n"
        wait_for(place / "memrun", f"{process.pid}.sock")
        (Groups(process, environment).paths[0] / "cgroup.procs").write_text(str(other.pid))
        process.communicate("3\n", timeout=30)
        other.kill()
    assert process.returncode == 3
