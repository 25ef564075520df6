"""Who watches a job is ahead of it on the processor, as far as that is allowed."""

from __future__ import annotations

import os

from memrun import guard


def test_who_may_not_be_first_asks_for_little_at_a_time(monkeypatch):
    def refuse(*_words):
        raise PermissionError

    monkeypatch.setattr(guard.os, "sched_setscheduler", refuse)
    pid = os.fork()  # not this process: it would stay so
    if pid == 0:
        guard.hurry()
        os._exit(os.sched_getscheduler(0) == os.SCHED_OTHER | os.SCHED_RESET_ON_FORK)
    known = os.uname().machine in guard.SCHED_SETATTR
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == known
