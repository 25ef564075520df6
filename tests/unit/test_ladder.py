"""Which rung is taken, from what the groups above us look like. Directories stand in for groups; xattrs and systemd are told."""

from __future__ import annotations

import errno
import os

import pytest

from memrun.cgroup import detect, ground, ladder, prepared
from memrun.cgroup.files import Dir
from memrun.errors import NoCgroupError, UsageError

FILES = {"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.controllers": "memory pids\n", "cgroup.type": "domain\n"}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """tree("/a/b", handed="/a", limits={"/a/b": "1000"}, marked="/a") -> Setup of a process in /a/b."""

    def make(own, *, handed=(), limits=None, marked=(), busy=(), systemd=True, whole=False):
        for path in ("", *(own[:i] for i in range(1, len(own) + 1) if i == len(own) or own[i] == "/")):
            place = tmp_path / path.lstrip("/")
            place.mkdir(exist_ok=True)
            for name, text in FILES.items():
                place.joinpath(name).write_text(text)
            if path in handed:
                place.joinpath("cgroup.subtree_control").write_text("memory\n")
            place.joinpath("memory.max").write_text((limits or {}).get(path, "max") + "\n")
            place.joinpath("cgroup.procs").write_text("1\n2\n" if path in busy else f"{os.getpid()}\n")
        monkeypatch.setattr(ladder, "systemd_owns", lambda: systemd)
        monkeypatch.setattr(ladder, "_is_marked", lambda place: place in {f"{tmp_path}{path}" for path in marked})
        setup = detect.Setup()
        setup.unified, setup.unified_top, setup.whole = f"{tmp_path}{own}", str(tmp_path), whole
        return setup

    return make


@pytest.fixture
def no_scope(monkeypatch):
    def asked(setup, name):
        raise NoCgroupError("a scope was asked for")

    monkeypatch.setattr(ladder, "_in_a_scope", asked)


def place_of(setup, tmp_path):
    return ladder.climb(setup, "memrun-1-ab12")[0].memory.removeprefix(str(tmp_path))


def test_without_systemd_it_is_our_own_group(tree, tmp_path, no_scope):
    assert place_of(tree("/jobs/7", systemd=False), tmp_path) == "/jobs/7"


def test_a_delegated_unit_is_ours(tree, tmp_path, no_scope):
    assert place_of(tree("/system.slice/a.service", marked=["/system.slice/a.service"]), tmp_path) == "/system.slice/a.service"


def test_below_a_delegated_unit_too(tree, tmp_path, no_scope):
    setup = tree("/system.slice/a.service/leaf", marked=["/system.slice/a.service"], busy=["/system.slice/a.service/leaf"])
    with pytest.raises(NoCgroupError, match="scope"):
        place_of(setup, tmp_path)  # somebody is there, and nothing above hands memory down
    setup = tree(
        "/system.slice/a.service/leaf",
        marked=["/system.slice/a.service"],
        busy=["/system.slice/a.service/leaf"],
        handed=["/system.slice/a.service"],
    )
    assert place_of(setup, tmp_path) == "/system.slice/a.service"


@pytest.mark.parametrize("own", ["/system.slice/cron.service", "/user.slice/user-0.slice/session-3.scope", "/odd.slice/by-hand"])
def test_what_systemd_did_not_delegate_is_not_ours(tree, tmp_path, no_scope, own):
    with pytest.raises(NoCgroupError, match="a scope was asked for"):
        place_of(tree(own), tmp_path)


def test_a_group_in_no_unit_is_nobody_s(tree, tmp_path, no_scope):
    assert place_of(tree("/memrun/1000/login"), tmp_path) == "/memrun/1000/login"


def test_a_limit_is_not_left_behind(tree, tmp_path, no_scope):
    unit = "/system.slice/a.service"
    assert place_of(tree(unit, limits={unit: "1000"}), tmp_path) == unit
    with pytest.raises(NoCgroupError, match="has a limit, and may not be divided"):
        place_of(tree(unit, limits={unit: "1000"}, busy=[unit]), tmp_path)


def test_no_walk_upwards_out_of_a_limit(tree, tmp_path, no_scope):
    setup = tree("/jobs/7", limits={"/jobs/7": "1000"}, busy=["/jobs/7"], handed=["/jobs"], systemd=False)
    with pytest.raises(NoCgroupError, match="other processes share"):
        place_of(setup, tmp_path)
    assert place_of(tree("/jobs/7", busy=["/jobs/7"], handed=["/jobs"], systemd=False), tmp_path) == "/jobs"


def test_everybody_in_a_container_s_top_group_may_be_moved(tree, tmp_path, no_scope):
    assert place_of(tree("", busy=[""], systemd=False, whole=True), tmp_path) == ""


def test_a_memrun_in_a_memrun_s_job_stays_there(tree, tmp_path, no_scope):
    job = "/memrun.slice/memrun-7-ab12.scope/memrun-7-ab12/make.1"
    assert place_of(tree(job, limits={job: "1000"}, busy=[job]), tmp_path) == job
    rest = f"{job}/memrun-rest"  # and a second one, when the first has moved everybody there
    assert place_of(tree(rest, limits={job: "1000"}, busy=[rest], handed=[job]), tmp_path) == job


@pytest.mark.parametrize(
    ("own", "limited", "uid", "slice_"),
    [
        ("/system.slice/a.service", "", 0, "memrun.slice"),
        ("/system.slice/a.service", "/system.slice", 0, "system.slice"),
        ("/foo.slice/foo-bar.slice/a.service", "/foo.slice", 0, "foo-bar.slice"),
        ("/user.slice/user-5.slice/session-1.scope", "/user.slice/user-5.slice", 5, ""),  # that one's systemd is in there, too
        ("/user.slice/user-5.slice/user@5.service/app.slice/a.scope", "", 5, ""),
        (
            "/user.slice/user-5.slice/user@5.service/app.slice/a.scope",
            "/user.slice/user-5.slice/user@5.service/app.slice",
            5,
            "app.slice",
        ),
    ],
)
def test_the_slice_of_a_scope(tree, tmp_path, own, limited, uid, slice_):
    setup = tree(own, limits={limited: "1000"})
    assert ladder.slice_for(setup.unified, str(tmp_path), uid) == slice_


@pytest.mark.parametrize(
    ("group", "owns"),
    [
        ({"": "/init.scope"}, True),
        ({"": "/docker/8a5f/init.scope"}, True),
        ({"name=systemd": "/init.scope", "memory": "/"}, True),
        ({"": "/../../init.scope"}, False),
        ({"": "/"}, False),
        ({}, False),
    ],
)
def test_whether_systemd_owns_the_tree(monkeypatch, group, owns):
    monkeypatch.setattr(os.path, "isdir", lambda path: True)
    monkeypatch.setattr(detect, "own", lambda pid: group)
    assert ladder.systemd_owns() is owns


def test_strangers_keep_even_a_container_from_it(tree, tmp_path):
    setup = tree("", whole=True)
    tmp_path.joinpath("cgroup.procs").write_text("0\n1\n")
    assert ground.obstacle(setup.unified, whole=True) == errno.EBUSY


def test_a_controller_that_was_not_handed_down(tree, tmp_path):
    setup = tree("/a")
    tmp_path.joinpath("a/cgroup.controllers").write_text("pids\n")
    assert ground.obstacle(setup.unified, whole=False) == errno.ENODEV


def test_nobody_can_be_prepared_for():
    with pytest.raises(UsageError, match="no user"):
        prepared.script("no-such-user-here", undo=False)


@pytest.fixture
def base(tmp_path):
    """A group that hands memory down, with memrun's own leaf."""
    for place in (tmp_path, tmp_path / "memrun-self-7"):
        place.mkdir(exist_ok=True)
        place.joinpath("cgroup.subtree_control").write_text("memory\n")
        place.joinpath("cgroup.controllers").write_text("cpu memory\n")
        place.joinpath("cpu.weight").write_text("100\n")
    return Dir(str(tmp_path))


def test_the_processor_is_divided_where_memrun_is_alone(base, tmp_path):
    leaf = Dir(f"{base.path}/memrun-self-7")
    ground.divide(base, leaf)
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith("+cpu")
    assert (tmp_path / "memrun-self-7/cpu.weight").read_text() == "10000"
    ground.restore(base, leaf)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "-memory -cpu"


def test_others_keep_their_share_of_the_processor(base, tmp_path):
    def after(leaf, controllers="cpu memory", handed="memory"):
        (tmp_path / "cgroup.controllers").write_text(controllers)
        (tmp_path / "cgroup.subtree_control").write_text(handed)
        ground.divide(base, Dir(f"{base.path}/{leaf}"))
        return (tmp_path / "cgroup.subtree_control").read_text()

    (tmp_path / ground.REST).mkdir()
    assert after(ground.REST) == "memory"  # everybody is in there
    assert after("memrun-self-7", "memory") == "memory"
    assert after("memrun-self-7", handed="cpu memory") == "cpu memory"  # somebody else has, and it is not ours to take back
