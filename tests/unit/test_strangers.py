"""Who may be attached, and which words make sense: nothing is moved here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from memrun import attach, kin, strangers
from memrun.errors import RefusedError, UsageError


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "1000"])
    yield child.pid
    child.kill()
    child.wait()


def refused(*pids):
    with pytest.raises(RefusedError) as caught:
        strangers.find(pids)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_found_they_are_seen_to_end(unchanged):
    children = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    found = strangers.find([child.pid for child in children])
    assert found.reap() is None
    assert found.named() == [child.pid for child in children]
    children[0].kill()
    children[0].wait()
    assert found.named() == [children[1].pid]
    found.signal(15)
    assert not found.killed
    children[1].wait()
    assert (found.reap(), found.status) == (0, 0)
    found.close()
    found.close()  # twice is once


def test_init():
    assert refused(1).startswith("process 1 is the init")


def test_nobody(sleeper, unchanged):
    assert refused(sleeper, 2147483) == "there is no process 2147483"


def test_ourselves_and_those_above():
    assert refused(os.getpid()) == f"{os.getpid()} is this memrun itself"
    if os.getppid() != 1:
        assert "is an ancestor of this memrun" in refused(os.getppid())


def test_a_zombie(unchanged):
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert "has ended already" in refused(child.pid)
    child.wait()


def test_a_thread(unchanged):
    code = "import threading, time; threading.Thread(target=time.sleep, args=(1000,), daemon=True).start(); print(flush=True); time.sleep(1000)"
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    thread = kin.another_thread(child.pid)
    assert refused(thread) == f"{thread} is a thread of process {child.pid}. Attach {child.pid}: a process has one memory"
    child.kill()
    child.communicate()


def test_a_kernel_thread():
    found = next((one.pid for one in kin.look().values() if one.flags & kin.KERNEL_THREAD), None)
    if found is None:
        pytest.skip("no kernel thread is to be seen from here")
    assert "is a kernel thread" in refused(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--limit 50M", "no PID"),
        ("1234", "wants a --limit"),
        ("1234 --limit 50M", "wants a --limit"),
        ("--limit 50M --on-oom restart 1234", "cannot restart"),
        ("--limit 50M --at 80%=restart 1234", "cannot restart"),
        ("--limit 50M --pressure critical=restart 1234", "cannot restart"),
        ("--limit 50M --attempts 3 1234", "--attempts makes no sense"),
        ("--limit 50M --restart always 1234", "--restart makes no sense"),
        ("--limit 50M 1234 --quiet", "'--quiet' is not a PID. Options come before the PIDs"),
        ("--limit 50M abc", "'abc' is not a PID"),
        ("--limit 50M 12345678901", "is not a PID"),
        ("--limit 50M -- -5", "is not a PID"),
    ],
)
def test_words_that_make_no_sense(words, said):
    with pytest.raises(UsageError) as caught:
        attach.parse(words.split())
    assert said in str(caught.value)


def test_words_that_do():
    spec, pids = attach.parse("--limit 50M --on-oom pause --grow 2 --timeout 1h 12 7 12".split())
    assert (spec.limit, spec.wait_all, pids) == (50 << 20, True, [12, 7])


def test_named_after_the_first_one_s_command(sleeper, unchanged):
    for words, name in (([], "sleep"), (["--name", "web"], "web")):
        spec, pids = attach.parse(["--limit", "50M", *words, str(sleeper)])
        found = strangers.find(pids)
        attach.introduce(spec, found)
        assert (spec.command, spec.name) == (["sleep", "1000"], name)
        found.close()
