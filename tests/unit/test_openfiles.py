"""How many jobs there are descriptors for."""

from __future__ import annotations

import os
import resource
from types import SimpleNamespace

import pytest

from memrun import launch
from memrun.batch import openfiles
from memrun.cgroup import files
from memrun.jobs import Output


def job(output=None, on_oom="kill", at=(), pressure=()):
    return SimpleNamespace(output=output or Output(), spec=SimpleNamespace(on_oom=on_oom, at=at, pressure=pressure))


@pytest.fixture
def limits(monkeypatch):
    """The limit on open files, of somebody who may not have more than the hard one."""
    now = [1024, 20_000]

    def give(_, pair):
        if pair[1] > now[1]:
            raise ValueError
        now[:] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", give)
    monkeypatch.setattr(launch.Order, "files", None)
    yield now
    files._wanted[0] = 0
    while files._kept:
        os.close(files._kept.pop())


def test_the_soft_limit_is_raised_to_the_hard_one_and_jobs_get_theirs_back(limits):
    most = openfiles.widen([job()], piped=False)
    assert limits == [20_000, 20_000]
    assert launch.Order.files == (1024, 20_000)
    assert most is not None
    assert most > 5_000


@pytest.mark.parametrize(
    ("one", "piped", "each"),
    [
        (job(), False, 3),
        (job(), True, 5),
        (job(on_oom="pause"), False, 5),
        (job(Output(log="l")), False, 5),
        (job(Output(log="l")), True, 5),
        (job(Output(stdout="o")), False, 5),
        (job(Output(stdout="o")), True, 6),
        (job(Output(stdout="o", stderr="e")), True, 7),
        (job(Output(stdout="l", log="l")), True, 5),
        (job(at=("80%", "90%"), pressure=("low",)), False, 9),
    ],
)
def test_the_dearest_job_is_what_counts(limits, one, piped, each):
    assert openfiles.widen([job(), one], piped=piped) == (20_000 - openfiles.OURS) // max(each, 5 if piped else 3)


def test_there_is_always_room_for_one(limits):
    limits[:] = [64, 64]
    assert openfiles.widen([job()], piped=False) == 1
