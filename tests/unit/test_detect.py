"""Recorded mountinfo and /proc/self/cgroup texts of many machines, and where memrun finds itself on them."""

from __future__ import annotations

import pytest

from memrun import cgroup
from memrun.cgroup import detect
from memrun.cgroup.detect import find, parse_mountinfo, parse_own

RHEL7 = """\
17 60 0:16 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
24 17 0:20 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
25 24 0:21 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
29 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:12 - cgroup cgroup rw,cpuacct,cpu
33 24 0:29 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
34 24 0:30 / /sys/fs/cgroup/freezer rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,freezer
60 0 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/rhel-root rw,attr2,inode64,noquota
"""
RHEL7_OWN = """\
10:freezer:/
6:memory:/user.slice
4:cpuacct,cpu:/user.slice
1:name=systemd:/user.slice/user-1000.slice/session-1.scope
"""
HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
37 31 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "6:freezer:/\n4:memory:/jobs/7\n0::/\n"
PURE = (
    "32 23 0:29 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
)
PURE_OWN = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u3.scope\n"
# docker on v1 without a cgroup namespace: the paths are the host's, the mounts show only our part of them
DOCKER_V1 = """\
701 700 0:29 /docker/8a5f /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory
702 700 0:30 /docker/8a5f /sys/fs/cgroup/freezer ro,nosuid,nodev,noexec,relatime master:17 - cgroup cgroup rw,freezer
"""
DOCKER_V1_OWN = "5:freezer:/docker/8a5f\n4:memory:/docker/8a5f\n"
# docker on v2 with a cgroup namespace (its default), and without one
DOCKER_V2 = "903 902 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n"
DOCKER_V2_HOST = "903 902 0:26 /docker/8a5f /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw\n"


def test_v1_alone():
    setup = find(RHEL7, RHEL7_OWN, "")
    assert (setup.version, setup.hybrid) == ("v1", False)
    assert (setup.memory, setup.memory_top) == ("/sys/fs/cgroup/memory/user.slice", "/sys/fs/cgroup/memory")
    assert setup.freezer == "/sys/fs/cgroup/freezer"
    assert setup.unified is None


def test_v1_with_a_v2_tree_beside_it():
    setup = find(HYBRID, HYBRID_OWN, "")
    assert (setup.version, setup.hybrid) == ("v1", True)
    assert setup.memory == "/sys/fs/cgroup/memory/jobs/7"
    assert (setup.unified, setup.unified_top) == ("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified")


def test_v1_counts_also_where_the_v2_tree_comes_first():
    lines = HYBRID.splitlines(keepends=True)
    assert find("".join(reversed(lines)), HYBRID_OWN, "cpu io").version == "v1"


def test_v2_alone():
    setup = find(PURE, PURE_OWN, "cpu memory pids")
    assert (setup.version, setup.hybrid) == ("v2", False)
    assert setup.memory == "/sys/fs/cgroup" + PURE_OWN.strip().removeprefix("0::")
    assert setup.memory == setup.unified
    assert setup.memory_top == "/sys/fs/cgroup"


@pytest.mark.parametrize("controllers", ["", "cpu pids", "memory_recursiveprot", "hugetlb memoryx"])
def test_v2_without_its_memory_controller(controllers):
    setup = find(PURE, PURE_OWN, controllers)
    assert (setup.version, setup.memory) == ("", None)
    assert setup.unified is not None


def test_a_container_on_v1_without_a_namespace_of_its_own():
    setup = find(DOCKER_V1, DOCKER_V1_OWN, "")
    assert (setup.version, setup.memory) == ("v1", "/sys/fs/cgroup/memory")
    assert setup.freezer == "/sys/fs/cgroup/freezer"
    assert [m.writable for m in parse_mountinfo(DOCKER_V1)] == [False, False]


def test_a_group_below_the_container_s_own():
    assert find(DOCKER_V1, "4:memory:/docker/8a5f/inner\n", "").memory == "/sys/fs/cgroup/memory/inner"


def test_a_sibling_with_the_same_beginning_is_not_below():
    assert find(DOCKER_V1, "4:memory:/docker/8a5f-too\n", "").memory == "/sys/fs/cgroup/memory"


def test_a_container_on_v2_with_and_without_a_namespace():
    assert find(DOCKER_V2, "0::/\n", "memory").memory == "/sys/fs/cgroup"
    assert find(DOCKER_V2_HOST, "0::/docker/8a5f\n", "memory").memory == "/sys/fs/cgroup"
    assert find(DOCKER_V2_HOST, "0::/docker/8a5f/a\n", "memory").memory == "/sys/fs/cgroup/a"


@pytest.mark.parametrize("own", ["0::/..\n", "0::/../../user.slice\n"])
def test_a_group_outside_of_our_namespace_is_nowhere(own):
    assert find(DOCKER_V2, own, "memory").version == ""


def test_a_group_that_only_looks_as_if_it_were_outside():
    assert find(PURE, "0::/...\n", "memory").memory == "/sys/fs/cgroup/..."


def test_blanks_and_backslashes_in_mount_points():
    [mount] = parse_mountinfo(r"9 1 0:9 /a\011b /mnt/my\040cgroup\134x\012 rw - cgroup2 none rw" + "\n")
    assert mount.point == "/mnt/my cgroup\\x\n"
    assert mount.root == "/a\tb"
    [mount] = parse_mountinfo(r"9 1 0:9 / /mnt/\04 rw - cgroup2 none rw")
    assert mount.point == r"/mnt/\04"


def test_a_tree_mounted_on_the_root():
    assert find("9 1 0:9 / / rw - cgroup2 none rw\n", "0::/\n", "memory").memory == "/"


def test_the_first_mount_of_a_hierarchy_counts():
    again = PURE + PURE.replace("/sys/fs/cgroup", "/mnt/again")
    assert find(again, PURE_OWN, "memory").memory_top == "/sys/fs/cgroup"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "garbage",
        " - cgroup2 x y",
        "1 2 3 4 5 6 - cgroup2",
        "1 2 - cgroup2 a rw",
        "- - - - - - - cgroup - -",
        "\0",
        "1 2 3 4 5 6 7",
    ],
)
def test_garbage_is_no_mount(text):
    assert parse_mountinfo(text) == []
    assert find(text, text, text).version == ""


@pytest.mark.parametrize("text", ["", "\n", "garbage", "1:memory", ":", "memory:/x"])
def test_garbage_is_no_group(text):
    assert parse_own(text) == {}


def test_own_groups():
    assert parse_own("4:cpuacct,cpu:/a\n1:name=systemd:/b:c\n0::/d e\n") == {
        "cpuacct": "/a",
        "cpu": "/a",
        "name=systemd": "/b:c",
        "": "/d e",
    }


def test_this_machine_is_looked_at_without_complaint():
    setup = detect.look()
    assert setup.version in {"v1", "v2", ""}
    assert (setup.memory is None) == (setup.version == "")


def test_nothing_to_read_is_nothing_there(monkeypatch):
    monkeypatch.setattr(detect, "MOUNTINFO", "/nowhere/mountinfo")
    monkeypatch.setattr(detect, "OWN", "/nowhere/cgroup")
    setup = detect.look()
    assert setup.version == ""
    what, remedy = detect.missing(setup)
    assert what == "no cgroup hierarchy is mounted here" or "cgroup_disable" in what
    assert remedy


@pytest.mark.parametrize(
    ("mountinfo", "own", "said"),
    [(PURE, PURE_OWN, "not enabled"), (DOCKER_V1.replace("memory", "cpu"), "", "any cgroup hierarchy")],
)
def test_what_is_missing_is_said_with_its_remedy(monkeypatch, tmp_path, mountinfo, own, said):
    (tmp_path / "mountinfo").write_text(mountinfo)
    monkeypatch.setattr(detect, "MOUNTINFO", str(tmp_path / "mountinfo"))
    what, remedy = detect.missing(find(mountinfo, own, ""))
    assert said in what or "cgroup_disable" in what
    assert remedy


def test_a_cgroup_namespace_that_begins_below_the_mount(tmp_path, monkeypatch):
    """`unshare --cgroup` without mounting anew: the mount's root is '/..' a level, and our own group is to be searched for."""
    for name in ("a/b", "a/c/d", "e/f"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").write_text("1\n")
    (tmp_path / "a/c/cgroup.procs").write_text("7\n77\n")
    monkeypatch.setattr(detect.os, "getpid", lambda: 77)
    line = f"903 902 0:26 {{}} {tmp_path} rw,relatime - cgroup2 none rw\n"
    assert find(line.format("/../.."), "0::/\n", "memory").memory == f"{tmp_path}/a/c"
    assert find(line.format("/.."), "0::/\n", "memory").memory is None
    assert find(line.format("/.."), "0::/c\n", "memory").memory == f"{tmp_path}/a/c"
    assert find(line.format("/../other"), "0::/\n", "memory").memory is None


@pytest.mark.parametrize(
    ("status", "may"), [("CapEff:\t000001ffffffffff\n", True), ("Name:\tx: y\nCapEff:\t0\n", False), ("", False)]
)
def test_whether_we_may_exempt_from_the_oom_killer(monkeypatch, status, may):
    monkeypatch.setattr(detect, "_slurp", lambda _path: status)
    assert detect.may_exempt() is may


def test_a_job_that_nothing_protects_is_stopped_earlier(monkeypatch):
    for may, gap, small in ((True, 20, 20), (False, 8, 10)):
        monkeypatch.setattr(detect, "may_exempt", lambda may=may: may)
        assert cgroup.bare_gap(20 << 20) // 4096 == (20 << 20) // gap // 4096
        assert cgroup.bare_gap(5 << 20) // 4096 == (5 << 20) // small // 4096  # a small one is not stopped long before it
        assert cgroup.bare_gap(100 << 30) == (100 << 30) // 64 // 4096 * 4096


@pytest.mark.parametrize(("text", "free"), [("MemTotal: 5 kB\nSwapFree:    3 kB\n", 3072), ("", 0)])
def test_how_much_swap_is_left(monkeypatch, text, free):
    monkeypatch.setattr(detect, "_slurp", lambda _path: text)
    assert detect.swap_free() == free
