"""Who watches a job is ahead of it on the processor, as far as that is allowed; who asks for less keeps what he was given."""

from __future__ import annotations

import os

import pytest

from memrun import launch, priority

known = pytest.mark.skipif(os.uname().machine not in priority.SCHED_SETATTR, reason="the call has another number here")


def told_by_a_copy(act):
    """In a forked one: it would stay so."""
    there, here = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(here, repr(act()).encode())
        finally:
            os._exit(0)
    os.close(here)
    os.waitpid(pid, 0)
    with open(there, encoding="ascii") as opened:
        return opened.read()


def now():
    return os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)


def refuse(*_words):
    raise PermissionError


@known
def test_who_may_not_be_first_asks_for_little_at_a_time(monkeypatch):
    monkeypatch.setattr(priority.os, "sched_setscheduler", refuse)
    assert told_by_a_copy(lambda: (priority.hurry(), now())[1]) == repr((os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, now()[1]))


@known
def test_who_asks_for_little_stays_as_nice_as_he_was():
    def brief():
        os.setpriority(os.PRIO_PROCESS, 0, 7)
        priority.be_brief()
        return now()

    assert told_by_a_copy(brief) == repr((os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, 7))


@pytest.mark.parametrize("policy", [os.SCHED_BATCH, os.SCHED_IDLE])
def test_what_somebody_has_wished_stays(policy):
    def brief():
        os.sched_setscheduler(0, policy, os.sched_param(0))
        priority.be_brief()
        return now()[0]

    assert told_by_a_copy(brief) == repr(policy)


def test_what_the_kernel_gives_children_of_its_own_need_not_be_given_back(monkeypatch):
    monkeypatch.setattr(priority.os, "sched_setscheduler", lambda *_words: None)
    monkeypatch.setattr(launch.Order, "scheduling", None)
    for before, given in [
        ((os.SCHED_OTHER, 0), None),
        ((os.SCHED_OTHER, 7), (0, 7)),
        ((os.SCHED_FIFO, 0), None),
        ((os.SCHED_BATCH, 3), (3, 3)),
    ]:
        monkeypatch.setattr(priority.os, "sched_getscheduler", lambda _pid, policy=before[0]: policy)
        monkeypatch.setattr(priority.os, "getpriority", lambda _which, _who, nice=before[1]: nice)
        launch.Order.scheduling = None
        priority.hurry()
        assert launch.Order.scheduling == given
