"""What earlier runs used: the file that remembers, and the advice that is made of it."""

from __future__ import annotations

import json
import os

import pytest

from memrun import history
from memrun.record import Record
from memrun.suggest import round_up, suggest
from memrun.views import past

M = 1 << 20


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "state" / "history"
    monkeypatch.setenv("MEMRUN_HISTORY", str(path))
    return path


def record(name="job", result="success", **more):
    made = Record(name, ["./job", "a b", 'quote " and \\ and ä \udcff\n'])
    made.result, made.limit, made.peak, made.elapsed = result, 50 * M, 20 * M, 1.25
    vars(made).update(more)
    return made


def test_what_is_kept_is_json_and_its_users_alone(file):
    history.keep(record())
    history.keep(record(limit=None, peak=None))
    first, second = [json.loads(line) for line in file.read_text().splitlines()]
    assert first["name"] == "job"
    assert first["peak"] == 20 * M
    assert first["attempts"] == 1
    assert first["command"] == './job a b quote " and \\ and ä \udcff\n'
    assert second["limit"] is None
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_job_of_a_file_is_kept_with_its_file(file):
    history.keep_job(record("align[a]").as_dict(), "oom-kill", 3, "/x/jobs.toml")
    (entry,) = past.entries()
    assert (entry["name"], entry["result"], entry["attempts"], entry["file"]) == ("align[a]", "oom-kill", 3, "/x/jobs.toml")


def test_it_has_a_bound(file, monkeypatch):
    monkeypatch.setattr(history, "LARGEST", 2000)
    for number in range(100):  # the last one does not fill a file
        history.keep(record(f"job{number}"))
    assert sum(part.stat().st_size for part in file.parent.iterdir()) < 5000
    assert {part.name for part in file.parent.iterdir()} <= {"history", "history.1"}
    assert list(past.entries())[-1]["name"] == "job99"
    numbers = [int(str(entry["name"])[3:]) for entry in past.entries()]
    assert numbers == list(range(numbers[0], 100))


@pytest.mark.parametrize("trouble", ["link", "directory", "fifo", "full", "unwritable"])
def test_where_it_cannot_be_written_a_run_does_not_fail(file, trouble):
    file.parent.mkdir()
    target = file.parent / "target"
    target.write_text("")
    if trouble == "link":
        file.symlink_to(target)
    elif trouble == "directory":
        file.mkdir()
    elif trouble == "fifo":
        os.mkfifo(file)
    elif trouble == "full":
        file.symlink_to("/dev/full")
    else:
        os.environ["MEMRUN_HISTORY"] = "/proc/nothing/history"
    history.keep(record())
    assert target.read_text() == ""


def test_none_is_kept_where_none_is_wanted(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMRUN_HISTORY", "")
    monkeypatch.chdir(tmp_path)
    history.keep(record())
    assert not list(past.entries())
    assert not list(tmp_path.iterdir())


def test_half_a_line_is_left_out(file):
    history.keep(record())
    with file.open("a") as f:
        f.write('{"name": "jo\n[1]\n')
    history.keep(record())
    assert len(list(past.entries())) == 2


def test_a_whole_matrix_is_asked_for_by_its_table(file):
    for name in ("align", "align[x]", "align[y]", "aligned"):
        history.keep(record(name))
    assert [entry["name"] for entry in past.entries("align")] == ["align", "align[x]", "align[y]"]


def run(result, limit, peak):
    return {"result": result, "limit": limit * M, "peak": peak * M, "started": "2026-11-01T00:00:00"}


@pytest.mark.parametrize(
    ("runs", "advice"),
    [
        ([run("success", 100, 40)], 48),
        ([run("success", 100, 40), run("success", 100, 60)], 72),
        ([run("success", 100, 100)], 100),  # page cache: enough, and following the advice does not raise it again
        ([run("success", 200, 100), run("success", 120, 120)], 120),
        ([run("oom-kill", 100, 100)], 150),
        ([run("success", 200, 50), run("oom-kill", 100, 100)], 150),  # other inputs: nobody knows how much that one needs
        ([run("oom-kill", 100, 100), run("success", 200, 140)], 170),
        ([run("oom-kill", 100, 100), run("success", 200, 200)], 200),
        ([run("patience", 80, 80)], 120),
        ([run("exit-code", 80, 10), run("success", 80, 20)], 24),
        ([run("success", 1000, 900)] + [run("success", 1000, 10)] * 30, 12),  # mended since
    ],
)
def test_what_to_give_the_next_run(runs, advice):
    found = suggest(runs)
    assert found is not None
    assert found.limit == round_up(advice * M)
    assert found.why


@pytest.mark.parametrize("runs", [[], [run("exit-code", 80, 10)], [run("success", 80, 0)], [{"result": "success", "peak": None}]])
def test_nothing_comes_of_nothing(runs):
    assert suggest(runs) is None


@pytest.mark.parametrize(
    ("size", "rounded"),
    [(1, 1), (M, 1), (M + 1, 2), (99 * M, 99), (101 * M, 110), (1025 * M, 1100), (10 * 1024 * M + 1, 11 * 1024)],
)
def test_sizes_that_a_person_would_write(size, rounded):
    assert round_up(size) == rounded * M
