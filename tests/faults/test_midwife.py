"""Who starts a batch's jobs is killed: the order is carried out all the same, and once."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from memrun import launch
from memrun.batch import midwife


class Deadly(str):
    """Kills whoever takes it out of its pickle."""

    __slots__ = ()

    def __reduce__(self):
        return exec, ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)",)


class Murder:
    """What a child does on its way to its exec (in place of surroundings)."""

    as_whom = ""

    def __init__(self, pid):
        self.pid = pid

    def before(self):
        os.kill(self.pid, signal.SIGKILL)

    def after(self):
        pass


class Birth:
    """An order to be carried out, and she who is to do it."""

    def __init__(self, folder):
        self.said = folder / "born"
        self.order = launch.Order(["sh", "-c", f"echo $PPID >> {self.said}"])
        before = _children()
        self.midwife = midwife.Midwife()
        (self.pid,) = _children() - before

    def is_once(self):
        """A child of ours, and no second one."""
        before = _children()
        child = launch.launch(self.order)
        assert _children() - before == {child.pid}
        assert os.waitpid(child.pid, 0)[1] == 0
        child.close()
        assert self.said.read_text() == f"{os.getpid()}\n"


@pytest.fixture
def birth(tmp_path):
    found = Birth(tmp_path)
    yield found
    found.midwife.close()


def _children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return {int(word) for word in file.read().split()}


def test_nobody_kills_her(birth):
    birth.is_once()
    assert launch.Order.deliver is not None


def test_before_she_is_asked(birth):
    os.kill(birth.pid, signal.SIGKILL)
    os.waitid(os.P_PID, birth.pid, os.WEXITED | os.WNOWAIT)
    birth.is_once()
    assert launch.Order.deliver is None


def test_before_she_has_read_what_she_is_asked(birth, monkeypatch):
    os.kill(birth.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, birth.pid, os.WSTOPPED)
    send = socket.send_fds

    def send_and_kill(*given):
        send(*given)
        os.kill(birth.pid, signal.SIGKILL)

    monkeypatch.setattr(socket, "send_fds", send_and_kill)
    birth.is_once()
    assert launch.Order.deliver is None


def test_when_she_has_read_it(birth):
    birth.order.argv = [Deadly()]
    birth.is_once()
    assert launch.Order.deliver is None


def test_when_the_child_is_born(birth):
    birth.order.around = Murder(birth.pid)
    birth.is_once()
    assert os.waitid(os.P_PID, birth.pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
