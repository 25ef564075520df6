"""Every OOM is called OOM, however the memory was charged, and nothing else is."""

from __future__ import annotations

import os

import pytest

from memrun.cgroup import detect

WAYS = ["touch 60", "touch 60 4", "touch 60 2 3", "read 60", "mlock 60", "populate 60", "memfd 60", "grandchild 60"]
RUNS = int(os.environ.get("MEMRUN_TEST_RUNS", "2"))  # 20 in a long run


@pytest.mark.parametrize("limit", ["20M", "20971000"])
@pytest.mark.parametrize("way", WAYS)
def test_oom_is_called_oom(judged, hog, way, limit):
    for _ in range(RUNS):
        done, record = judged("--limit", limit, "--", hog, *way.split())
        assert (record["result"], done.returncode) == ("oom-kill", 137), (done, record)
        assert record["oom_kills"] >= 1
        assert record["oom_events"] >= 1
        assert record["limit"] == int(limit.replace("20M", "20971520")) // 4096 * 4096
        assert record["limit"] * 0.9 < record["peak"] <= record["limit"]
        assert "oom-kill" in done.stderr
        assert done.stderr.count("\n") == 1
        assert record["cgroup"] == detect.look().version


@pytest.mark.parametrize("signal", [9, 15, 11])
def test_an_ordinary_death_is_not(judged, signal):
    for _ in range(RUNS):
        done, record = judged("--limit", "20M", "--", "sh", "-c", f"kill -{signal} $$")
        assert (record["result"], record["signal"], done.returncode) == ("signal", signal, 128 + signal)
        assert record["oom_kills"] == 0


def test_a_killed_grandchild_is_told_although_the_command_goes_on(judged, hog):
    done, record = judged("--limit", "20M", "--oom-group", "off", "--", hog, "grandchild", "60")
    assert done.stdout == "child killed\n"
    assert (record["result"], record["exit_code"], done.returncode) == ("oom-kill", 0, 0)
    assert "oom-kill" in done.stderr


def test_the_whole_group_dies_together(judged, hog):
    """on (the default): the parent that would have said so does not live to say it."""
    done, record = judged("--limit", "20M", "--", "sh", "-c", f"sleep 60 & {hog} touch 60; sleep 60")
    assert (record["result"], done.returncode) == ("oom-kill", 137)
    assert record["elapsed"] < 20


def test_largest_is_named(judged, hog):
    done, record = judged("--limit", "20M", "--", "sh", "-c", f"{hog} touch 60; true")
    assert record["largest"][0]["name"] == "hog"
    assert record["largest"][0]["rss"] > 10 << 20
    assert "hog" in done.stderr


def test_the_peak_is_the_commands_own(judged, hog):
    """Neither memrun's memory nor page cache that was there before is in it."""
    judged("--limit", "100M", "--", hog, "touch", "1")  # its pages are cached now, and charged to that group
    _, record = judged("--limit", "100M", "--", hog, "touch", "30")
    assert 30 << 20 <= record["peak"] < 33 << 20
    _, record = judged("--limit", "100M", "--", "/bin/true")
    assert record["peak"] < 1 << 20


def test_page_cache_is_no_reason_to_die(judged, hog, disk):
    done, record = judged("--limit", "20M", "--", hog, "file", f"{disk}/big", "64")
    assert (record["result"], done.returncode) == ("success", 0)


def test_a_limit_of_512k_works(judged):
    done, record = judged("--limit", "512K", "--", "/bin/true")
    assert (record["result"], record["limit"]) == ("success", 512 << 10)
    assert not done.stderr
    done, _ = judged("--limit", "512K", "--", "/bin/sh", "-c", "echo hi")
    assert done.stdout == "hi\n"


def test_a_limit_made_by_the_job_for_itself_is_its_own_affair(judged, hog):
    """A kill in a group that the job made below its own, at that group's limit, is not a kill at memrun's limit."""
    script = f"""
      for own in $(sed -n 's/^[0-9]*:[^:]*memory[^:]*://p; s/^0:://p' /proc/self/cgroup); do
        for top in /sys/fs/cgroup/memory /sys/fs/cgroup; do
          if mkdir $top$own/mine 2>/dev/null && [ -d $top$own/mine ]; then
            [ -e $top$own/cgroup.subtree_control ] && {{ mkdir $top$own/rest; echo $$ > $top$own/rest/cgroup.procs
              echo +memory > $top$own/cgroup.subtree_control; }}
            for f in memory.max memory.limit_in_bytes; do [ -e $top$own/mine/$f ] && echo 10M > $top$own/mine/$f; done
            sh -c "echo \\$\\$ > $top$own/mine/cgroup.procs; exec {hog} touch 40"; exit 0
          fi
        done
      done
      exit 9"""
    done, record = judged("--limit", "100M", "--oom-group", "off", "--", "sh", "-c", script)
    assert (record["result"], done.returncode) == ("success", 0), (done, record)


def test_a_command_that_cannot_be_started_again_says_so_and_its_status_is_not_the_last_attempts(judged, tmp_path):
    once = tmp_path / "once"
    once.write_text(f"#!/bin/sh\nrm {once}; exit 3\n")
    once.chmod(0o755)
    done, record = judged("--limit", "20M", "--restart", "on-failure", "--attempts", "3", "--delay", "1ms", "--", once)
    assert (record["result"], record["status"], done.returncode, record["exit_code"]) == ("launch", 127, 127, 3)
    assert "once: launch: could not be started again after" in done.stderr
    assert "there is no such file" in done.stderr
