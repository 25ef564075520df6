"""v1's own freezer, as far as a kill needs it: SIGKILL waits for the thaw there."""

from __future__ import annotations

from memrun.cgroup import detect, tree
from memrun.cgroup.files import Dir
from memrun.errors import GroupError


def let_die(freezer: Dir | None, pids: list[int]) -> None:
    """SIGKILL waits for the thaw: in the job's own group, in those that it made there, and wherever else it froze who is to die."""
    if freezer is not None:
        for group in tree.walk(freezer):
            _thaw(group)
    for pid in pids:
        _let_go(pid)


def _let_go(pid: int) -> None:
    """A job (as root) may have frozen a process in a v1 freezer group elsewhere, where SIGKILL waits for the thaw."""
    theirs, ours = detect.own(pid).get("freezer"), detect.own().get("freezer")
    freezer = detect.look().freezer if theirs is not None and theirs != ours else None
    if freezer is None or theirs is None or ours is None:
        return
    try:
        group = Dir(freezer.removesuffix(ours.rstrip("/")) + theirs)
    except GroupError:
        return
    _thaw(group)
    group.close()


def _thaw(group: Dir) -> None:
    """Let a v1 freezer group run."""
    try:
        group.write("freezer.state", "THAWED")
    except GroupError:
        return  # gone meanwhile, and everything in it
