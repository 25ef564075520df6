"""What became of a batch, for people, for GNU parallel's readers, for programs."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from memrun.batch import summary
from memrun.errors import MemrunError
from memrun.jobs import Batch, Job, Outcome
from memrun.options import Spec
from memrun.record import RESULTS, Record
from memrun.units import Share
from memrun.views import cells

G = 1 << 30


def ended(result="success", **known):
    made = Record("x", ["./x", "a b"])
    made.cgroup = "v1"
    made.result, made.status, made.exit_code, made.limit, made.peak, made.elapsed = result, 0, 0, G, G // 2, 12.3
    made.started, made.ended = "2026-11-24T22:00:00.125Z", "2026-11-24T22:00:12.425Z"
    for key, value in known.items():
        setattr(made, key, value)
    return json.loads(json.dumps(made.as_dict()))


KILLED = ended("oom-kill", exit_code=None, signal=9, status=137, limit=8 * G, peak=8 * G, elapsed=735.0, oom_kills=1)
NAMES = ["extract", "align[s=a]", "align[s=b]", "report", "check"]
BATCH = Batch("/x/jobs.toml", tuple(Job(n, n, i, Spec(["./x", n], {"name": n})) for i, n in enumerate(NAMES)), Share(8000), 4)
JOBS = {job.name: job for job in BATCH.jobs}
OUTCOMES = [
    Outcome("align[s=b]", "oom-kill", 5, KILLED),
    Outcome("extract", "success", 1, ended(), before=True),
    Outcome("report", "skipped", why="align[s=b] did not succeed"),
    Outcome("align[s=a]", "success", 2, ended(limit=2 * G, elapsed=200.0)),
    Outcome("check", "exit-code", 1, ended("exit-code", exit_code=3, status=3, limit=None, peak=None)),
]


def test_the_table_has_failures_last():
    assert summary.table(OUTCOMES, BATCH, 750.0) == (
        "JOB         RESULT     ATTEMPTS     LIMIT  PEAK      ELAPSED\n"
        "extract     success           1        1G  512M       12.3 s  in an earlier run\n"
        "align[s=a]  success           2        2G  512M  3 min 20 s\n"
        "report      skipped           -         -     -            -  align[s=b] did not succeed\n"
        "align[s=b]  oom-kill          5        8G    8G  12 min 15 s  killed at the limit of 8G (peak 8G)\n"
        "check       exit-code         1  infinity     -       12.3 s  exited with status 3\n"
        "2 succeeded (1 of them earlier), 2 failed, 1 skipped, in 12 min 30 s\n"
    ).replace("3 min 20 s", " 3 min 20 s")


def test_of_what_was_never_in_a_group_no_limit_is_known():
    unstarted = Outcome(
        "check", "launch", 0, ended("launch", cgroup="", exit_code=None, limit=None, peak=None), "no such command"
    )
    assert summary.table([unstarted], BATCH, 1.0).splitlines()[1].split()[:5] == ["check", "launch", "0", "-", "-"]


@pytest.mark.parametrize("width", [20, 39, 60, 79, 200])
def test_the_table_fits(width):
    *lines, _ = summary.table(OUTCOMES, BATCH, 750.0, width=width).splitlines()
    assert max(map(cells.width, lines)) <= width
    if width >= 39:
        assert "oom-kill" in lines[-2]


def test_many_successes_are_counted_and_no_failure_is():
    many = [Outcome(f"j{n}", "success" if n % 10 else "signal", 1, ended()) for n in range(1000)]
    lines = summary.table(many, BATCH, 1.0).splitlines()
    assert lines[101] == "... and 800 more that succeeded"
    assert sum("signal" in line for line in lines) == 100
    assert lines[-1] == "900 succeeded, 100 failed, in 1.0 s"


def test_a_service_that_was_stopped_has_not_failed():
    jobs = tuple(replace(job, service=job.name == "report") for job in BATCH.jobs)
    stopped = Outcome("report", "stopped", 1, ended("stopped", status=143, exit_code=None, signal=15))
    lines = summary.table([OUTCOMES[0], stopped, OUTCOMES[3]], replace(BATCH, jobs=jobs), 1.0).splitlines()
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["align[s=a]", "success"],
        ["report", "stopped"],
        ["align[s=b]", "oom-kill"],
    ]
    assert lines[2].endswith("12.3 s")
    assert lines[4] == "1 succeeded, 1 failed, 1 service, in 1.0 s"
    failed = Outcome("report", "exhausted", 5, ended("exhausted", status=3))
    assert summary.table([failed], replace(BATCH, jobs=jobs), 1.0).splitlines()[-1] == "0 succeeded, 1 failed, in 1.0 s"


def test_what_was_interrupted_is_counted_as_that():
    stopped = Outcome("report", "stopped", 1, ended("stopped", status=143, exit_code=None, signal=15))
    lines = summary.table([OUTCOMES[0], stopped], BATCH, 1.0).splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["stopped", "oom-kill"]
    assert lines[3] == "0 succeeded, 1 failed, 1 stopped, in 1.0 s"


def test_a_batch_of_nothing():
    assert summary.table([], BATCH, 0.0) == "0 succeeded, in 0.00 s\n"


@pytest.mark.parametrize("evil", ["\x1b[2J", "a\nb", "\r", "\u202e", "\x00", "\udcff", "\t"])
def test_names_are_harmless_everywhere(evil, tmp_path):
    bad = Outcome(f"a{evil}b", "skipped", why=f"c{evil}d")
    worse = Outcome(f"a{evil}b", "oom-kill", 1, KILLED | {"command": [f"x{evil}"], "name": evil}, why=evil)
    said = summary.table([bad, worse], BATCH, 1.0) + summary.sentence(bad) + summary.sentence(worse)
    assert said.replace("\n", "").isprintable()
    assert said.count("\n") == 4
    log = summary.joblog(str(tmp_path / "log"))
    log.add(worse, JOBS["extract"])
    log.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.count("\t") for line in lines] == [12, 12]


def test_sentences():
    assert [summary.sentence(outcome) for outcome in OUTCOMES] == [
        'align[s=b]: oom-kill: killed at the limit of 8G (peak 8G) after 12 min 15 s; give it more: limit = "16G" (5 attempts)',
        "extract: success after 12.3 s, peak 512M",
        "report: skipped: align[s=b] did not succeed",
        "align[s=a]: success after 3 min 20 s, peak 512M (2 attempts)",
        "check: exit-code: exited with status 3 after 12.3 s",
    ]


@pytest.mark.parametrize("result", RESULTS)
def test_every_result_has_a_row_and_a_sentence(result):
    for record in (None, ended(result), {"name": "x"}):
        outcome = Outcome("x", result, 1, record)
        assert result in summary.table([outcome], BATCH, 1.0)
        assert result in summary.sentence(outcome)


class TestJobLog:
    def test_the_columns_of_gnu_parallel_and_ours(self, tmp_path):
        path = tmp_path / "log"
        log = summary.joblog(str(path))
        for outcome in OUTCOMES:
            log.add(outcome, JOBS[outcome.job])
        log.close()
        assert log.failed == ""
        assert path.read_text().splitlines() == [
            "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\tLimit\tPeak\tJob\tResult",
            "3\t:\t1795557600.125\t   735.000\t0\t0\t0\t9\t./x 'a b'\t8589934592\t8589934592\talign[s=b]\toom-kill",
            "2\t:\t1795557600.125\t   200.000\t0\t0\t0\t0\t./x 'a b'\t2147483648\t536870912\talign[s=a]\tsuccess",
            "5\t:\t1795557600.125\t    12.300\t0\t0\t3\t0\t./x 'a b'\tinfinity\t-\tcheck\texit-code",
        ]

    @pytest.mark.parametrize(("known", "columns"), [
        ({"result": "timeout", "status": 124}, ["124", "0"]),
        ({"result": "oom-kill", "status": 137}, ["137", "0"]),
        ({"result": "stopped", "status": 143, "exit_code": None, "signal": 15}, ["0", "15"]),
        ({"result": "launch", "status": None, "exit_code": None, "started": "", "elapsed": None}, ["1", "0"]),
    ])  # fmt: skip
    def test_what_went_wrong_has_no_zeros(self, tmp_path, known, columns):
        log = summary.joblog(str(tmp_path / "log"))
        log.add(Outcome("extract", str(known["result"]), 1, ended() | known), JOBS["extract"])
        log.close()
        assert (tmp_path / "log").read_text().splitlines()[1].split("\t")[6:8] == columns

    def test_it_goes_on_with_one_header_and_whole_lines(self, tmp_path):
        path = tmp_path / "log"
        for cut in (0, 20, 0):
            log = summary.joblog(str(path))
            log.add(OUTCOMES[0], JOBS["align[s=b]"])
            log.close()
            if cut:
                os.truncate(path, path.stat().st_size - cut)
        lines = path.read_text().splitlines()
        assert [line.split("\t")[0] for line in lines] == ["Seq", "3", "3", "3"]
        assert len(lines[2]) == len(lines[3]) - 19

    def test_what_cannot_be_written_is_said(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        for path in (tmp_path / "no" / "log", tmp_path, tmp_path / "fifo"):
            with pytest.raises(MemrunError, match="cannot write the job log"):
                summary.joblog(str(path))
        log = summary.joblog("/dev/full")
        log.add(OUTCOMES[0], JOBS["align[s=b]"])
        log.close()
        assert log.failed == "No space left on device"


def test_the_report_has_every_job_with_every_key():
    found = summary.report(BATCH, OUTCOMES, {"memory": 4 * G, "elapsed": 750.0})
    json.dumps(found)
    keys = set(ended()) | {"why", "earlier"}
    assert found["schema"] == 1
    assert [(job["name"], job["result"], job["earlier"]) for job in found["jobs"]] == [
        (outcome.job, outcome.result, outcome.before) for outcome in OUTCOMES
    ]
    assert all(set(job) == keys for job in found["jobs"])
    assert found["jobs"][2] | {"command": ["./x", "report"], "why": "align[s=b] did not succeed"} == found["jobs"][2]
    assert found["batch"] == {
        "file": "/x/jobs.toml", "memory": 4 * G, "memory_asked": "80%", "parallel": 4, "on_failure": "continue", "elapsed": 750.0,
        "total": 5, "succeeded": 2, "failed": 2, "skipped": 1, "before": 1, "services": 0, "stopped": 0,
    }  # fmt: skip
