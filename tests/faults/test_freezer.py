"""A freezer that is not there, refuses, is not done, or does not let go: one sentence, and nobody is held for ever."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from faults.asking import as_root, inside, memrun, sentence
from faults.scenarios import soon


@as_root
@pytest.mark.v1
def test_without_a_freezer(hog):
    """On v1 the kernel itself holds at the limit; only a pause below the limit wants the freezer."""
    mounts = "umount /sys/fs/cgroup/freezer /sys/fs/cgroup/unified;"
    sentence(inside(mounts, "--limit", "20M", "--at", "80%=pause", "--", "true"), "freezer")
    done = inside(mounts, "--limit", "20M", "--on-oom", "pause", "--grow", "2", "--", hog, "touch", "30")
    assert done.returncode == 0, done.stderr


REFUSING = """
import sys
from memrun.cgroup import v1group, v2group
from memrun.cli import main
from memrun.errors import GroupError
def freeze(self):
    raise GroupError("write", self.path, 16, "FROZEN")
v1group.Group.freeze = v2group.Group.freeze = freeze
sys.exit(main(sys.argv[1:]))
"""


STUCK = """
import sys
from memrun.cgroup import v1group, v2group
from memrun.cli import main
for kind in (v1group.Group, v2group.Group):
    kind.freeze = lambda self, freeze=kind.freeze: freeze(self) and False
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def unfrozen():
    """unfrozen(code, act): what `act(name)` says of a job whose freezer that code has changed; the job's exit status."""

    def run(code, act):
        name = f"unfrozen-{os.getpid()}"
        words = [sys.executable, "-c", code, "--quiet", "--name", name, "--limit", "20M", "--", "sh", "-c", "read line; exit 3"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            assert not soon(lambda: name not in memrun("ps").stdout, 10)
            said = act(name)
            process.communicate(b"\n", timeout=30)
        return said, process.returncode

    return run


def state_of(name):
    return next(row["state"] for row in json.loads(memrun("ps", "--json").stdout) if row["name"] == name)


def test_a_freezer_that_refuses(unfrozen):
    """Who asks for a pause is told, and the job that goes on is not called paused."""

    def act(name):
        sentence(memrun("pause", name), "FROZEN.*Device or resource busy")
        return state_of(name)

    assert unfrozen(REFUSING, act) == ("RUNNING", 3)


def test_a_freezer_that_is_not_done(unfrozen):
    """A process that waits in the kernel is held when that is over, which may be never: nobody waits for it, and who asked is told."""

    def act(name):
        done = memrun("pause", name)
        assert (done.returncode, "not all of it holds still yet" in done.stdout) == (0, True)
        state = state_of(name)
        assert memrun("resume", name).returncode == 0
        return state

    assert unfrozen(STUCK, act) == ("PAUSED", 3)


SHUT = """
import sys
from memrun.cgroup import files
from memrun.cli import main
from memrun.errors import GroupError
write = files.Dir.write
def refuse(self, name, data, flags=0):
    if (name, data) == ("cgroup.freeze", "0"):
        raise GroupError("write", self.path, 19, data)
    write(self, name, data, flags)
files.Dir.write = refuse
sys.exit(main(sys.argv[1:]))
"""


def test_a_freezer_that_does_not_let_go(hog):
    """The kernel says that the group is gone, which it is not: a job that nobody can wake any more is ended, and not waited for."""
    words = ["--limit", "20M", "--on-oom", "pause", "--grow", "2", "--", hog, "touch", "30"]
    done = subprocess.run([sys.executable, "-c", SHUT, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 125, done.stderr
    assert re.fullmatch(r"memrun: .*paused.*\nmemrun: .*No such device\n", done.stderr), done.stderr
