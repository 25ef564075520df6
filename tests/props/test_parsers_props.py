"""Parsers of what the kernel says: whatever it is, they do not fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memrun import oomlog
from memrun.cgroup import detect
from memrun.cgroup.files import keyed, pids_in

paths = st.text("/abc.\\ 0134\n", max_size=12) | st.sampled_from(["/", "/..", "/../x", "", "/a/b", "/a"])
kinds = st.sampled_from(["cgroup", "cgroup2", "tmpfs"])
mounts = st.builds(
    lambda root, point, kind, options: f"31 23 0:28 {root} {point} rw,relatime - {kind} x {options}",
    paths, paths, kinds, st.sampled_from(["rw,memory", "rw,freezer", "rw", "memory,freezer", ""]),
)  # fmt: skip
mountinfos = st.lists(mounts | st.text(max_size=30), max_size=6).map("\n".join)
own_lines = st.builds(
    "{}:{}:{}".format, st.integers(0, 20), st.sampled_from(["memory", "", "cpu,memory", "name=x", "freezer"]), paths
)
owns = st.lists(own_lines | st.text(max_size=30), max_size=6).map("\n".join)


@given(mountinfos, owns, st.text() | st.sampled_from(["memory", "cpu memory\n"]))
def test_every_machine_is_somewhere_or_nowhere(mountinfo, own, controllers):
    setup = detect.find(mountinfo, own, controllers)
    assert setup.version in {"v1", "v2", ""}
    assert (setup.version == "") == (setup.memory is None)
    for mount in detect.parse_mountinfo(mountinfo):
        assert mount.kind in {"cgroup", "cgroup2"}
    assert all(isinstance(path, str) for path in detect.parse_own(own).values())


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=20))
def test_any_text_at_all(mountinfo, own, controllers):
    detect.find(mountinfo, own, controllers)


@given(st.text("abcdefgh/ \\\n", max_size=30))
def test_escapes_are_undone(path):
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in path)
    [mount] = detect.parse_mountinfo(f"1 2 0:3 / /{escaped} rw - cgroup2 x rw\n")
    assert mount.point == "/" + path


@given(st.text(max_size=200) | st.text("ab_ 0123-²٣\n", max_size=100))
def test_counters(text):
    found = keyed(text)
    assert all(value >= 0 for value in found.values())
    assert keyed("".join(f"{key} {value}\n" for key, value in found.items())) == found


@given(st.text(max_size=200) | st.text("0123456789² \n-", max_size=100))
def test_process_lists(text):
    assert all(pid >= 0 for pid in pids_in(text))


log_words = st.sampled_from(
    [
        "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[  pid  ]", "[", "[ 1 2", "[    709]     0   709     1951     1651    40960        0             0 tail", "[  7]  0 7 x",
        "oom-kill:", "oom-kill:a,task_memcg=/x/g,task=t,pid=1,uid=0", "task_memcg=/g", "anon 5", "anon x", "anon ²", "[ ² ] 1 2 3 ²", "total_rss 7",
        "Memory cgroup out of memory: Killed process 709 (tail) total-vm:7804kB, anon-rss:5020kB, file-rss:1584kB, shmem-rss:0kB",
        "Killed process ", "Killed process x", "Killed process 5 (a", "Killed process 5 (a) total-vm:,", "Tasks in /g are going to be killed",
    ]
)  # fmt: skip


@given(st.lists(log_words | st.text(max_size=40), max_size=12), st.sampled_from(["g", "x/g", "", "a,b"]))
def test_any_log_is_read(lines, group):
    said = oomlog.parse(lines, group)
    assert all(pid >= 0 and rss >= 0 for pid, _, rss in said.largest)
    assert [rss for _, _, rss in said.largest] == sorted((rss for _, _, rss in said.largest), reverse=True)
