"""The one door to control files, against plain directories."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memrun.cgroup import files, tree
from memrun.cgroup.files import Dir, keyed, number, pids_in, read_all
from memrun.errors import GroupError


@pytest.fixture
def place(tmp_path):
    held = Dir(str(tmp_path))
    yield held
    held.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_written_is_read(place, tmp_path):
    (tmp_path / "limit").write_text("")
    place.write("limit", "5")
    assert place.read("limit") == "5"
    assert place.has("limit")
    assert not place.has("other")


def test_an_error_names_operation_path_and_data(place, tmp_path):
    with pytest.raises(GroupError) as e:
        place.write("limit", "12")
    assert (e.value.op, e.value.path, e.value.errno) == ("open", f"{tmp_path}/limit", errno.ENOENT)
    with pytest.raises(GroupError) as e:
        place.read("limit")
    assert e.value.errno == errno.ENOENT
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(GroupError) as e:
        place.write("full", "12")
    assert e.value.errno == errno.ELOOP  # no link leads out of a group


def test_a_write_that_fails_names_the_data():
    dev = Dir("/dev")
    with pytest.raises(GroupError) as e:
        dev.write("full", "12")
    dev.close()
    assert (e.value.op, e.value.data, e.value.errno) == ("write", "12", errno.ENOSPC)
    assert str(e.value) == "cannot write '12' to /dev/full: No space left on device"


def test_a_read_that_fails_is_an_error_too(place, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(GroupError) as e:
        place.read("folder")
    assert (e.value.op, e.value.errno) == ("read", errno.EISDIR)


def test_no_call_keeps_a_descriptor(place, tmp_path):
    before = open_files()
    (tmp_path / "a").write_text("1")
    place.read("a")
    place.write("a", "2")
    place.children()
    for fails in (lambda: place.read("b"), lambda: place.write("b", ""), lambda: place.mkdir("x/y"), lambda: Dir("/nowhere")):
        with pytest.raises(GroupError):
            fails()
    place.mkdir("below").close()
    assert open_files() == before


def test_a_directory_made_and_removed(place):
    below = place.mkdir("below")
    assert place.children() == ["below"]
    below.mkdir("deeper").close()
    with pytest.raises(GroupError) as e:
        place.rmdir("below")
    assert e.value.errno == errno.ENOTEMPTY
    below.rmdir("deeper")
    place.rmdir("below")
    place.rmdir("below")  # gone is removed
    assert place.children() == []
    assert below.children() == []  # it is gone, and its descriptor says so
    below.close()
    below.close()


def test_a_second_one_of_that_name_is_refused(place):
    place.mkdir("one").close()
    with pytest.raises(GroupError) as e:
        place.mkdir("one")
    assert (e.value.op, e.value.errno) == ("make", errno.EEXIST)


def test_a_reborn_name_is_not_the_same_group(place, tmp_path):
    old = place.mkdir("one")
    place.rmdir("one")
    new = place.mkdir("one")
    (tmp_path / "one" / "limit").write_text("new")
    assert not old.has("limit")
    with pytest.raises(GroupError):
        old.read("limit")
    assert new.read("limit") == "new"
    old.close()
    new.close()


def test_children_are_directories_only(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "seen").mkdir()
    assert sorted(place.children()) == [".hidden", "seen"]
    assert sorted(place.children()) == [".hidden", "seen"]  # a second look is not behind the first


def test_a_long_file_is_read_whole(place, tmp_path):
    (tmp_path / "long").write_text("x" * 200_000)
    assert len(place.read("long")) == 200_000
    fd = place.open("long")
    assert len(read_all(fd)) == len(read_all(fd)) == 200_000
    os.close(fd)


def test_bytes_that_are_no_text_do_not_stop_us(place, tmp_path):
    (tmp_path / "odd").write_bytes(b"\xff\xfe 1")
    assert place.read("odd").endswith(" 1")


def test_parsers():
    assert (number("12\n"), number("max\n"), number("-1")) == (12, None, -1)
    assert keyed("oom 3\noom_kill 4\n\nodd\nnew_key 5\nbad x\nnegative -1\nlow 1 2\n") == {"oom": 3, "oom_kill": 4, "new_key": 5}
    assert keyed("") == {}
    assert pids_in("12\n0\n34\n") == [12, 34]
    assert pids_in("") == pids_in("x y\n-1\n") == []


class TestTree:
    def test_deepest_first_and_nothing_kept(self, place, tmp_path):
        (tmp_path / "a" / "b").mkdir(parents=True)
        before = open_files()
        seen = [group.path.removeprefix(str(tmp_path)) for group in tree.walk(place)]
        assert seen == ["/a/b", "/a", ""]
        assert open_files() == before

    def test_a_very_deep_tree_ends(self, place):
        top, parts = place, []
        for _ in range(tree.DEEPEST + 20):
            top = top.mkdir("d")
            parts.append(top)
        assert len(list(tree.walk(place))) <= tree.DEEPEST + 1
        for part in parts:
            part.close()

    def test_processes_and_counters_of_the_whole_tree(self, place, tmp_path):
        for folder, procs, kills in [("a", "10\n0\n", 1), ("a/b", "11\n12\n", 2), ("", "", 4)]:
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / "cgroup.procs").write_text(procs)
            (tmp_path / folder / "counters").write_text(f"x 100\noom_kill {kills}\noom_kill_disable 0\n")
        (tmp_path / "c").mkdir()  # one that does not tell
        assert sorted(tree.pids(place)) == [10, 11, 12]
        assert tree.sum_of(place, "counters", "oom_kill") == 7

    def test_all_of_it_is_removed(self, place, tmp_path):
        (tmp_path / "run" / "a" / "b").mkdir(parents=True)
        (tmp_path / "run" / ".c").mkdir()
        run = Dir(f"{tmp_path}/run")
        assert tree.remove(place, run)
        assert not (tmp_path / "run").exists()
        assert tree.remove(place, run)  # gone already
        run.close()

    def test_what_is_busy_is_asked_again(self, place, tmp_path):
        (tmp_path / "run" / "a").mkdir(parents=True)
        (tmp_path / "run" / "a" / "file").write_text("")
        run = Dir(f"{tmp_path}/run")
        assert not tree.remove(place, run)
        (tmp_path / "run" / "a" / "file").unlink()
        assert tree.remove(place, run)
        run.close()

    def test_the_smallest_limit_above(self, tmp_path):
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        assert tree.smallest_limit(str(deep), str(tmp_path), "max") is None
        (tmp_path / "max").write_text("500\n")
        (tmp_path / "a" / "max").write_text("max\n")
        (deep / "max").write_text("garbage\n")
        assert tree.smallest_limit(str(deep), str(tmp_path), "max") == 500
        (tmp_path / "a" / "max").write_text("70\n")
        assert tree.smallest_limit(str(deep), str(tmp_path), "max") == 70
        assert tree.smallest_limit("/nowhere", str(tmp_path), "max") is None

    def test_killing_those_who_are_gone_is_no_error(self):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        tree.kill_each([pid])


def test_a_directory_is_known_to_have_none_below_by_its_links(tmp_path):
    """Where links are counted, as in a tree of groups, no listing is made for that."""
    here = Dir(str(tmp_path))
    assert here.children() == []
    (tmp_path / "below").mkdir()
    assert not here.is_leaf()
    assert here.children() == ["below"]
    here.close()
    assert not here.is_leaf()


def test_a_directory_that_is_named_costs_no_descriptor(place, tmp_path):
    before = open_files()
    group = place.mkdir("job.1", held=False)
    assert open_files() == before
    (tmp_path / "job.1" / "limit").write_text("")
    group.write("limit", "5")
    assert (group.read("limit"), group.has("limit"), group.has("other")) == ("5", True, False)
    assert (group.path, group.is_leaf(), group.children()) == (f"{tmp_path}/job.1", True, [])
    group.mkdir("below").close()
    assert (group.is_leaf(), group.children()) == (False, ["below"])
    assert [found.path for found in tree.walk(group)] == [f"{tmp_path}/job.1/below", f"{tmp_path}/job.1"]
    group.rmdir("below")
    fd = group.itself()
    assert os.path.samestat(os.fstat(fd), os.stat(group.path))
    os.close(fd)
    assert open_files() == before
    (tmp_path / "job.1" / "limit").unlink()
    place.rmdir("job.1")
    assert not group.has("limit")
    with pytest.raises(GroupError) as e:
        group.read("limit")
    assert (e.value.path, e.value.errno) == (f"{tmp_path}/job.1/limit", errno.ENOENT)


def test_what_is_named_is_nothing_once_what_holds_it_is_closed(tmp_path):
    """Not what happens to lie below the directory that memrun is in, nor below whatever has that number next."""
    place = Dir(str(tmp_path))
    group = place.mkdir("job.1", held=False)
    (tmp_path / "job.1" / "limit").write_text("")
    place.close()
    for look in (lambda: group.read("limit"), lambda: group.write("limit", "1"), lambda: group.open("limit")):
        with pytest.raises(GroupError) as e:
            look()
        assert e.value.errno == errno.EBADF
    assert (group.has("limit"), group.children()) == (False, [])


PRESSED = """
import os, resource, sys
sys.path.insert(0, {root!r})
from memrun.cgroup import files, tree
if {kept}:
    files.keep_back()
top = files.Dir(sys.argv[1])
job = top.mkdir("job", held=False)
job.mkdir("deep").mkdir("deeper").mkdir("deepest")
for name in ("job/limit", "job/deep/deeper/cgroup.procs"):
    open(f"{{sys.argv[1]}}/{{name}}", "w").write("7")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for _ in range(3):
    job.write("limit", "8")
    assert job.read("limit") == "8"
    assert tree.pids(job) == [7]
print("well")
"""


@pytest.mark.parametrize("kept", [True, False])
def test_some_descriptors_are_kept_back(tmp_path, kept):
    """What is to be frozen or killed is, when there is not one left; without those that are kept it would not be."""
    text = PRESSED.format(root=str(Path(files.__file__).parents[2]), kept=kept)
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout == "well\n") is kept, done.stderr
    assert kept or "Too many open files" in done.stderr
