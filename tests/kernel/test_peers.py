"""What the tests of peers expect of them, asked of memrun in our words: memlimit's exit codes, BenchExec's memory limit, Nomad's executor,
runc's order of limits, and what the kernel's own selftests (test_memcontrol) say that we may rely on. What is asked elsewhere is not asked again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memrun.cgroup import Wish, detect
from memrun.job import Site

MEMRUN = [sys.executable, "-m", "memrun"]
M = 1 << 20


# memlimit (test.sh): what a wrapper's exit status tells


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--limit", "1G", "--", "true"], 0),
        (["--limit", "1G", "--", "sh", "-c", "exit 42"], 42),
        (["--limit", "1G", "--", "no-such-command-xyz"], 127),
        (["--limit", "1G", "--", "/etc/passwd"], 126),
        (["--limit", "0", "--", "true"], 125),
        (["--limit", "-5M", "--", "true"], 125),
        (["--limit", "1Mx", "--", "true"], 125),
        (["--limit", "1048576B", "--", "true"], 0),
        (["--limit", "50M", "--", "HOG", "touch", "10"], 0),
        (["--limit", "50M", "--", "HOG", "touch", "100"], 137),
        (["--limit", "1G", "--", "sh", "-c", "kill -TERM $$"], 143),
        (["--limit", "50M", "--", "sh", "-c", "trap '' TERM; HOG touch 100; sleep 30"], 137),
        (["--limit", "1G"], 125),
        (["--limit", "--", "true"], 125),
    ],
)
def test_exit_codes(memrun, hog, words, status):
    assert memrun(*(word.replace("HOG", hog) for word in words)).returncode == status


def test_words_after_the_first_separator_are_the_command_s(memrun):
    assert memrun("--limit", "1G", "--", "echo", "--", "--limit", "hello").stdout == "-- --limit hello\n"


def test_the_sum_counts_not_the_largest(memrun, hog):
    """Each of three is well below the limit, all together are not; they hold what they have until all have it."""
    assert memrun("--limit", "60M", "--", hog, "touch", "90", "1", "3").returncode == 137
    assert memrun("--limit", "120M", "--", hog, "touch", "90", "1", "3").returncode == 0


def test_an_interrupt_goes_on_to_the_command():
    with subprocess.Popen(
        [*MEMRUN, "--limit", "1G", "--", "sh", "-c", "echo up; exec sleep 30"], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.send_signal(2)
        process.communicate(timeout=30)
    assert process.returncode == 130


# BenchExec (test_runexecutor): a run's values


def test_the_values_of_a_run(judged, hog):
    """Memory is that of the whole tree at its peak, CPU time and wall time are there, and being out of memory is the reason that is given."""
    _, record = judged("--limit", "100M", "--", "sh", "-c", f"{hog} touch 40; sleep 0.1")
    assert record["result"] == "success"
    assert 40 * M <= record["peak"] < 50 * M
    assert 0 < record["cpu"] < record["elapsed"] * (os.cpu_count() or 1) + 0.1
    assert record["elapsed"] > 0.1
    _, record = judged("--limit", "20M", "--", hog, "touch", "40")
    assert (record["result"], record["signal"]) == ("oom-kill", 9)
    assert record["peak"] <= 20 * M


def test_time_ends_a_run_whose_memory_would_have_been_enough(judged):
    done, record = judged("--limit", "20M", "--timeout", "200ms", "--", "sh", "-c", "while :; do :; done")
    assert (done.returncode, record["result"], record["oom_kills"]) == (124, "timeout", 0)
    assert record["cpu"] > 0.02


def test_background_processes_are_counted_and_ended(judged, hog):
    _, record = judged("--limit", "20M", "--", "sh", "-c", f"{hog} touch 40 & wait $!; exit 0")
    assert record["result"] == "oom-kill"


# Nomad (executor_linux_test): the group


def test_the_task_alone_is_in_its_groups_and_they_go_with_it(memrun):
    script = """
for place in $(awk -F: '/memrun-/ { split($2, names, ","); sub("name=", "", names[1])
                                    print "/sys/fs/cgroup/" names[1] "/" $3; print "/sys/fs/cgroup" $3 }' /proc/self/cgroup); do
  [ -e $place/cgroup.procs ] || continue
  while read -r pid; do [ $pid = $$ ] || echo "stranger $pid"; done < $place/cgroup.procs
  echo $place
done
"""
    done = memrun("--limit", "50M", "--", "sh", "-c", script)
    places = done.stdout.split()
    assert places
    assert "stranger" not in done.stdout
    assert not [place for place in places if Path(place).exists()]


def test_output_ends_with_the_stop(tmp_path):
    """Who writes all the time has written his last when memrun has ended."""
    log = tmp_path / "log"
    with (
        open(log, "w") as file,
        subprocess.Popen(
            [*MEMRUN, "--limit", "20M", "--", "sh", "-c", "echo up >&2; while :; do echo X; sleep 0.01; done"],
            stdout=file,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        process.stderr.readline()
        process.terminate()
        process.communicate(timeout=30)
    size = log.stat().st_size
    time.sleep(0.1)  # for who would go on
    assert log.stat().st_size == size


# runc (fs/memory_test): memory, and memory and swap together, in an order that the kernel takes


@pytest.fixture
def site():
    made = Site()
    yield made
    made.close()


def test_limits_with_swap_go_up_and_down(site):
    """memory <= memory+swap has to hold at every moment on v1: upwards the sum first, downwards last."""
    group = site.host.create("peers.1", Wish(20 * M, 10 * M, None))
    try:
        for limit in (60 * M, 10 * M, 11 * M, 500 * M, 5 * M, None, 5 * M, None):
            assert group.set_limit(limit) == limit
            assert group.limit == limit
            for name, value in together(group.path, limit):
                text = (Path(group.path) / name).read_text().strip()
                assert text == str(value) or (value is None and (text == "max" or int(text) > 1 << 60)), (name, text)
    finally:
        group.remove()
        group.close()


def together(path, limit):
    if detect.look().version == "v2":
        return (
            [("memory.max", limit), ("memory.swap.max", 10 * M)]
            if Path(path, "memory.swap.max").exists()
            else [("memory.max", limit)]
        )
    both = None if limit is None else limit + 10 * M
    memsw = [("memory.memsw.limit_in_bytes", both)] if Path(path, "memory.memsw.limit_in_bytes").exists() else []
    return [("memory.limit_in_bytes", limit), *memsw]


# The kernel (selftests/cgroup/test_memcontrol): what we rely on


def test_use_is_what_was_touched(judged, hog):
    """test_memcg_current, test_memcg_max: anonymous memory is charged page for page, and never beyond the limit."""
    for size in (5, 25):
        _, record = judged("--limit", "64M", "--", hog, "touch", str(size))
        assert size * M <= record["peak"] < (size + 3) * M


def test_cache_gives_way(judged, hog, disk):
    """test_memcg_max: page cache of twice the limit is reclaimed, which is no kill and no reason for a verdict."""
    done, record = judged("--limit", "20M", "--", hog, "file", str(disk / "f"), "40")
    assert (done.returncode, record["result"], record["oom_kills"]) == (0, "success", 0)
    assert record["peak"] <= 20 * M


def test_a_group_dies_with_one_of_it_and_nobody_beside_it(memrun, tmp_path, hog):
    """test_memcg_oom_group_leaf_events and _parent_events: all of the leaf, nobody else of its parent."""
    report = tmp_path / "report.json"
    (tmp_path / "jobs.toml").write_text(
        f'[batch]\nmemory = "200M"\n[defaults]\nlimit = "20M"\n[jobs.dies]\ncommand = "sleep 100 & sleep 100 & {hog} touch 60"\n'
        '[jobs.lives]\ncommand = "while [ -e jobs.toml ]; do sleep 0.02; done"\n[jobs.ends]\ncommand = "rm jobs.toml"\n'
        'depends_on = { dies = "finished" }\n'
    )
    assert memrun("up", "--report", str(report), str(tmp_path / "jobs.toml")).returncode == 1
    results = {job["name"]: (job["result"], job["oom_kills"]) for job in json.loads(report.read_text())["jobs"]}
    assert results["dies"][0] == "oom-kill"
    assert results["lives"] == ("success", 0)


def test_a_score_of_minus_1000_protects_nobody_who_did_not_ask(judged, hog):
    """test_memcg_oom_group_score_events: the kernel spares such a process even in a group that dies together; so it is not inherited."""
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    try:
        score.write_text("-1000")
    except PermissionError:
        pytest.skip("scores cannot be lowered here")
    try:
        done, record = judged("--limit", "20M", "--", hog, "touch", "60")
    finally:
        score.write_text(before)
    assert (done.returncode, record["result"]) == (137, "oom-kill")
