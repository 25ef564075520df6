"""Log files with a bound: their sizes, what is missing in them, and what happens to their names meanwhile."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrun import logfile
from memrun.errors import MemrunError
from memrun.logfile import Rotated


def older(path):
    """The text of all its files, the oldest first."""
    found = sorted(path.parent.glob(f"{path.name}.*"), key=lambda one: -int(one.suffix[1:]))
    return [one.read_bytes() for one in found] + [path.read_bytes()]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "x.log"


def test_it_is_made_with_its_directories_and_appended_to(path):
    old = os.umask(0o027)
    try:
        for text in (b"one\n", b"two\n"):
            log = Rotated(str(path), 100, 3)
            log.take(text)
            log.close()
    finally:
        os.umask(old)
    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_whole_lines_and_exact_bounds(path):
    log = Rotated(str(path), 10, 2)
    for text in (b"12345\n", b"678\n", b"a\n", b"bb\nccc\ndddd", b"\n", b"e\n"):
        log.take(text)
    assert older(path) == [b"12345\n678\n", b"a\nbb\nccc\n", b"dddd\ne\n"]
    log.take(b"f" * 25 + b"\n")
    assert older(path) == [b"f" * 10, b"f" * 10, b"f" * 5 + b"\n"]
    log.close()


def test_what_would_be_rotated_away_at_once_is_not_written(path, monkeypatch):
    text = b"".join(b"%04d\n" % number for number in range(1000))
    log, moves = Rotated(str(path), 50, 2), []
    log.take(b"torn")
    monkeypatch.setattr(logfile, "_move", lambda old, new, move=logfile._move: (moves.append(old), move(old, new)))
    log.take(text)
    kept = older(path)
    assert text.endswith(b"".join(kept))
    assert [len(part) for part in kept[:-1]] == [50, 50]
    assert len(moves) <= 4 * 2
    assert log.close() == ""


def test_nothing_older_is_kept(path):
    log = Rotated(str(path), 4, 0)
    log.take(b"abc\ndef\ngh\n")
    assert older(path) == [b"gh\n"]
    log.close()


some = st.binary(max_size=30) | st.sampled_from([b"\n", b"ab\n", b"a\n" * 9])


@given(st.lists(some, max_size=12), st.integers(1, 40), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_any_text_any_bound(tmp_path_factory, texts, most, keep):
    path = tmp_path_factory.mktemp("any") / "x"
    log = Rotated(str(path), most, keep)
    for text in texts:
        log.take(text)
        assert all(len(one) <= most for one in older(path))
        assert len(older(path)) <= keep + 1
    log.close()
    assert log.lost == 0
    whole = b"".join(texts)
    assert whole.endswith(b"".join(older(path)))
    assert older(path)[-1] or not whole, "the youngest has the end of it"
    if all(text.endswith(b"\n") and max(map(len, text.split(b"\n"))) < most for text in texts):
        assert all(one.endswith(b"\n") for one in older(path) if one), "no line is torn"


def test_a_file_that_was_there_is_rotated_before_it_is_too_large(path):
    path.parent.mkdir()
    path.write_bytes(b"x" * 99)
    log = Rotated(str(path), 10, 1)
    log.take(b"new\n")
    log.close()
    assert older(path) == [b"x" * 99, b"new\n"]


def test_deleted_moved_truncated_or_without_its_directory(path):
    log = Rotated(str(path), 100, 1)
    log.take(b"1\n")
    path.unlink()
    log.take(b"2\n")
    assert path.read_bytes() == b"2\n"
    path.rename(path.with_name("y"))
    log.take(b"3\n")
    assert older(path) == [b"3\n"]
    os.truncate(path, 0)
    log.take(b"4\n")
    assert older(path) == [b"4\n"]
    path.unlink()
    path.with_name("y").unlink()
    path.parent.rmdir()
    log.take(b"5\n")
    assert older(path) == [b"5\n"]
    log.close()
    assert log.lost == 0


def test_two_that_write_to_one_file(path):
    one, two = Rotated(str(path), 8, 1), Rotated(str(path), 8, 1)
    for _ in range(3):
        one.take(b"one\n")
        two.take(b"two\n")
    assert older(path) == [b"one\ntwo\n", b"one\ntwo\n"]
    one.close()
    two.close()


def test_symbolic_links_are_not_followed(path, tmp_path):
    path.parent.mkdir()
    path.symlink_to(tmp_path / "target")
    for make in (lambda: Rotated(str(path), 10, 1), lambda: logfile.plain(str(path))):
        with pytest.raises(MemrunError, match=r"symbolic link.*name the file itself"):
            make()
    path.unlink()
    log = Rotated(str(path), 100, 1)
    path.unlink()
    path.symlink_to(tmp_path / "target")
    log.take(b"lost\n")
    assert log.lost == 5
    path.unlink()
    log.take(b"kept\n")
    log.close()
    assert path.read_bytes() == b"memrun: 5 bytes of output are missing here: Too many levels of symbolic links\nkept\n"
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "below a file"])
def test_what_is_no_file_is_refused_before_anything_starts(path, kind):
    path.parent.mkdir()
    make = {
        "directory": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: None,
        "below a file": lambda: path.write_bytes(b""),
    }
    make[kind]()
    name = {"device": "/dev/null", "below a file": f"{path}/y"}.get(kind, str(path))
    with pytest.raises(MemrunError) as e:
        Rotated(name, 10, 1)
    assert e.value.status == 125
    assert name in str(e.value)
    if kind == "device":
        os.close(logfile.plain(name))
    else:
        with pytest.raises(MemrunError):
            logfile.plain(name)


def test_the_plain_one_is_an_ordinary_file_for_the_job(path):
    fd = logfile.plain(str(path))
    assert os.get_blocking(fd)
    assert not os.get_inheritable(fd)
    os.write(fd, b"a")
    os.close(fd)
    fd = logfile.plain(str(path))
    os.write(fd, b"b")
    os.close(fd)
    assert path.read_bytes() == b"ab"


def test_no_more_than_a_file_may_have(path):
    """RLIMIT_FSIZE: a write that is cut short, then one that fails; what is missing is said once, and more is written."""
    log = Rotated(str(path), 1 << 20, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        log.take(b"x" * 150 + b"\n")
        log.take(b"y\n")
        assert path.read_bytes() == b"x" * 100
        assert log.lost == 53
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.take(b"z\n")
    log.close()
    assert path.read_bytes() == b"x" * 100 + b"\nmemrun: 53 bytes of output are missing here: File too large\nz\n"
    assert log.lost == 53


def test_said_at_the_end_if_nothing_came_after_it(path):
    log = Rotated(str(path), 1 << 20, 1)
    path.unlink()
    path.mkdir()
    log.take(b"x\n")
    path.rmdir()
    log.close()
    assert path.read_bytes() == b"memrun: 2 bytes of output are missing here: Is a directory\n"


def test_where_there_is_no_room_to_say_it(path):
    log = Rotated(str(path), 10, 1)
    path.unlink()
    path.mkdir()
    log.take(b"x\n")
    path.rmdir()
    log.take(b"y\n")
    log.close()
    assert older(path) == [b"y\n"]
    assert log.lost == 2


FULL = """
import os, sys
from memrun.logfile import Rotated
folder = sys.argv[1]
log = Rotated(folder + "/new/x.log", 1 << 20, 2)
line = b"0123456789abcde" * 4 + b"789\\n"
for _ in range(4096): log.take(line)
full = os.path.getsize(folder + "/new/x.log")
assert full == 68 << 10, full
assert log.lost == 4096 * 64 - full, (log.lost, full)
late = Rotated(folder + "/other/y.log", 100, 2)  # it cannot even be made: no reason not to start the job
late.take(b"never\\n")
os.unlink(folder + "/ballast")
log.take(b"again\\n")
late.take(b"now\\n")
log.take(b"and again\\n")
text = open(folder + "/new/x.log", "rb").read()[full:].lstrip(b"\\n")
assert text == b"memrun: %d bytes of output are missing here: No space left on device\\nagain\\nand again\\n" % log.lost, text
said = open(folder + "/other/y.log").read()
assert said == "memrun: 6 bytes of output are missing here: No space left on device\\nnow\\n", said
log.close(); late.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_disk_that_is_full_and_has_room_again(tmp_path):
    script = f"""mount -t tmpfs -o size=128k,nr_inodes=5 memrun-test {tmp_path} && head -c 60k /dev/zero > {tmp_path}/ballast || exit 77
    exec {sys.executable} -c '{FULL}' {tmp_path}"""
    root = Path(logfile.__file__).parent.parent
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, cwd=root)
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert (done.returncode, done.stderr) == (0, "")
