"""Who descends from whom. Tables are made by hand; how /proc is read is tested on this very process."""

from __future__ import annotations

import os
import subprocess

from memrun import kin


def table(*rows):
    """(pid, parent, group, born) -> as `kin.look` has it."""
    lines = (f"{pid} (a) b) S {parent} {group} 0 0 0 0" + " 0" * 12 + f" {born} 0" for pid, parent, group, born in rows)
    return {one.pid: one for one in map(kin.Process, lines)}


def test_a_name_may_be_anything():
    (one,) = table((7, 3, 5, 90)).values()
    assert (one.pid, one.name, one.state, one.parent, one.group, one.born) == (7, "a) b", "S", 3, 5, 90)


def test_this_process():
    me = kin.read(os.getpid())
    assert me is not None
    assert (me.parent, me.group) == (os.getppid(), os.getpgid(0))
    assert not me.ended
    assert me.born <= kin.now()
    assert os.getppid() in kin.ancestors(kin.look(), os.getpid())
    assert kin.memory(os.getpid()) > 1 << 20
    assert "python" in " ".join(kin.command(os.getpid()))
    assert kin.read(2147483) is None


def test_a_zombie_has_ended():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert kin.read(child.pid).ended
    child.wait()


def test_parents_go_before_their_children():
    world = table((1, 0, 1, 0), (50, 40, 40, 5), (40, 30, 40, 9), (30, 1, 30, 2), (60, 50, 40, 9), (70, 1, 70, 9))
    assert kin.Family([30], world).look(world) == [30, 40, 50, 60]
    assert kin.Family([50, 30], world).look(world) == [50, 30, 60, 40]


def test_who_lost_his_parent_still_belongs():
    world = table((1, 0, 1, 0), (30, 1, 30, 2), (40, 30, 30, 3))
    family = kin.Family([30], world)
    family.look(world)
    assert family.look(table((1, 0, 1, 0), (30, 1, 30, 2), (40, 1, 30, 3))) == [30, 40]


def test_a_child_that_was_never_seen_below_its_parent():
    world = table((1, 0, 1, 0), (20, 1, 20, 1), (30, 20, 30, 2))
    family = kin.Family([30], world)
    family.look(world)
    later = family._since + 1
    more = table(
        (1, 0, 1, 0), (20, 1, 20, 1), (30, 20, 30, 2),
        (41, 1, 30, later),  # born since, of the same process group, adopted by init: ours
        (42, 1, 42, later),  # another process group
        (43, 1, 30, 1),  # was there before
        (44, 20, 30, later),  # the shell's other child
    )  # fmt: skip
    assert family.look(more) == [30, 41]


def test_a_number_that_was_reborn_is_somebody_else():
    world = table((1, 0, 1, 0), (30, 1, 30, 2), (40, 30, 30, 3))
    family = kin.Family([30], world)
    family.look(world)
    assert family.look(table((1, 0, 1, 0), (30, 1, 30, 2), (40, 1, 1, 99))) == [30]


def test_nobody_is_left():
    assert kin.Family([30], {}).look({}) == []
