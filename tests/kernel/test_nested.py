"""A memrun in a job of another one: within its limit, on either kernel."""

from __future__ import annotations

import json
import sys

MEMRUN = f"{sys.executable} -m memrun"


def test_a_job_may_run_memrun(judged, tmp_path, hog) -> None:
    inner = tmp_path / "inner.json"
    script = f"{MEMRUN} --limit 20M --report {inner} -- {hog} touch 40; echo $?; {MEMRUN} --limit 50% -- true; echo $?; wait"
    done, outer = judged("--limit", "100M", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "137\n0\n"), done.stderr
    assert json.loads(inner.read_text())["result"] == "oom-kill"
    assert outer["result"] == "success"


def test_two_at_a_time_in_one_job(judged, tmp_path) -> None:
    """The second one comes while the first one has moved everybody aside, and is there longer."""
    gate = tmp_path / "gate"
    first = f"{MEMRUN} --limit 20M -- sh -c 'echo > {gate}.on; read -r go < {gate}'"
    second = f"{MEMRUN} --limit 20M -- sh -c 'echo > {gate}; true'"
    script = f"mkfifo {gate} {gate}.on; {first} & read -r go < {gate}.on; {second}; echo $?; wait $!; echo $?"
    done, outer = judged("--limit", "200M", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, "0\n0\n"), done.stderr
    assert outer["result"] == "success"
