"""What doctor says here is what a run finds here; and a sweep ends what is left over, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from memrun.cgroup import detect, remains, survey
from memrun.job import Site

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
TRIED = ("new groups", "swap limits", "pause", "kill at once", "limit notices", "peak", "job pressure")


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, object]]:
    assert done.stderr == ""
    return {line["what"]: line for line in json.loads(done.stdout)}


def sleeper(places: list[str]) -> subprocess.Popen[bytes]:
    """A process in all of these groups that has to be killed."""
    enter = "".join(f"echo $$ > {place}/cgroup.procs; " for place in places)
    started = subprocess.Popen(["sh", "-c", f"trap '' TERM; {enter} echo up; exec sleep 1000"], stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    return started


def a_pid_that_is_gone() -> int:
    gone = subprocess.Popen(["true"])
    gone.wait()
    return gone.pid


@pytest.fixture
def nest():
    """A group of our own in every hierarchy where memrun makes some, so that a sweep from there meets nobody else's; and the
    words that start a command in it."""
    places = [f"{place.rstrip('/')}/doctor-test-{os.getpid()}" for place in survey.places(detect.look())]
    for place in places:
        os.mkdir(place)
    enter = "".join(f"echo $$ > {place}/cgroup.procs; " for place in places)
    yield places, ["sh", "-c", enter + 'exec "$@"', "sh", sys.executable, "-m", "memrun", "doctor"]
    for place in places:
        os.rmdir(place)


def test_a_limit_works_here_and_doctor_says_so(memrun) -> None:
    assert memrun("--limit", "50M", "--", "true").returncode == 0
    done = memrun("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"memrun --limit works here (cgroup {detect.look().version}, pause: ")


def test_everything_that_can_be_tried_was_tried(memrun) -> None:
    found = findings(memrun("doctor", "--json"))
    assert all(found[what]["ok"] is not None for what in TRIED if what != "swap limits")
    assert found["new groups"]["ok"] is True
    assert found["limit notices"]["ok"] is True
    assert "64M was set and read back" in str(found["new groups"]["found"])


def test_a_living_run_is_not_left_over() -> None:
    site = Site()
    try:
        name = site.host.places()[0].rpartition("/")[2]
        deadline = time.monotonic() + 5  # the kernel lets a spawner go on a moment before the new command line can be read
        while name not in remains.hands():
            assert time.monotonic() < deadline
        assert os.path.isdir(site.host.places()[0])
        assert name not in [found.name for found in remains.leftovers(survey.places(detect.look()))]
    finally:
        site.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes nobody")
def test_nobody_is_told_how_to_get_in() -> None:
    words = [*NOBODY, sys.executable, "-m", "memrun", "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if not done.stdout and ("Permission denied" in done.stderr or "No module" in done.stderr):
        pytest.skip("this Python, or this checkout, is closed to others")
    found = findings(done)
    assert done.returncode == 1
    assert found["new groups"]["ok"] is False
    assert found["new groups"]["remedy"]
    assert found["pause"]["ok"] is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_read_only_hierarchies_are_told_from_forbidden_ones(memrun) -> None:
    top = detect.look().memory_top
    script = f'mount -o remount,bind,ro {top} && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "memrun", "doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(done.stderr)
    found = findings(done)
    assert done.returncode == 1
    assert "read-only" in str(found["mounts"]["found"])
    assert found["mounts"]["remedy"] == found["new groups"]["remedy"]


def test_a_sweep_ends_what_is_left_over_and_nothing_else(nest) -> None:
    places, doctor = nest
    dead, mine = f"memrun-{a_pid_that_is_gone()}-ab12", f"memrun-{os.getpid()}-ab12"
    others = [mine, "memrun-self-1", "memrun-1-zzzz", "job"]
    for place in places:
        os.makedirs(f"{place}/{dead}/job.1/below")
        for name in others:
            os.mkdir(f"{place}/{name}")
    sleeping = sleeper([f"{place}/{dead}/job.1/below" for place in places])
    try:
        told = findings(subprocess.run([*doctor, "--json"], capture_output=True, text=True, check=False))
        assert told["left over"]["found"] == f"{dead} (1 process)"
        assert sleeping.poll() is None

        done = subprocess.run([*doctor, "--sweep"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"ok  {dead}  removed, 1 process in it ended\n"
        assert sleeping.wait(5) == -signal.SIGKILL
        for place in places:
            assert sorted(name for name in os.listdir(place) if os.path.isdir(f"{place}/{name}")) == sorted(others)

        again = subprocess.run([*doctor, "--sweep"], capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout) == (0, "ok  left over  nothing\n")
    finally:
        sleeping.kill()
        sleeping.wait()
        sleeping.stdout.close()
        for place in places:
            for name in [*others, f"{dead}/job.1/below", f"{dead}/job.1", dead]:
                if os.path.isdir(f"{place}/{name}"):
                    os.rmdir(f"{place}/{name}")


@pytest.mark.v2
def test_doctor_leaves_its_own_group_as_it_was(nest) -> None:
    places, doctor = nest
    subprocess.run(doctor, capture_output=True, text=True, check=False)
    assert [name for name in os.listdir(places[0]) if os.path.isdir(f"{places[0]}/{name}")] == []
    with open(f"{places[0]}/cgroup.subtree_control", encoding="ascii") as enabled:
        assert enabled.read().strip() == ""
