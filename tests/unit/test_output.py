"""Sinks with real pipes and processes: nothing is lost, nobody waits, nothing stays open."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from time import perf_counter

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from memrun import output
from memrun.errors import MemrunError
from memrun.output import LONGEST, Prefixer, open_sink, prefixed


@pytest.fixture(autouse=True)
def nothing_left_open():
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


def start(sink, code, *args):
    child = subprocess.Popen([sys.executable, "-I", "-c", code, *args], stdout=sink.fd)
    sink.handed()
    return child


def run(sink, code, *args):
    child = start(sink, code, *args)
    trio.run(sink.pump)
    sink.drain()
    sink.close()
    assert child.wait() == 0


def test_all_of_it_arrives(tmp_path):
    run(open_sink(str(tmp_path / "a/x"), 1 << 30, 1), "for n in range(100000): print(n)")
    assert (tmp_path / "a/x").read_text() == "".join(f"{n}\n" for n in range(100_000))


def test_without_a_bound_it_is_the_file_itself(tmp_path):
    sink = open_sink(str(tmp_path / "x"), None, 3)
    run(sink, "import os; assert os.lseek(1, 0, os.SEEK_CUR) == 0; print(1)")
    assert (tmp_path / "x").read_text() == "1\n"


def test_a_sink_that_cannot_be_opened_leaves_nothing_open(tmp_path):
    for most in (None, 5):
        with pytest.raises(MemrunError):
            open_sink(str(tmp_path), most, 3)
    open_sink(str(tmp_path / "x"), 5, 3).close()
    open_sink(str(tmp_path / "x"), None, 3).close()


def test_no_descriptors_left(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    ballast = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(highest)]  # fill the gaps
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(ballast) + 2, hard))
    try:
        with pytest.raises(MemrunError, match=r"cannot make a pipe .* open files"):
            open_sink(str(tmp_path / "x"), 5, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in ballast:
            os.close(fd)


def test_the_pipe_is_large_and_blocks_only_for_the_job(tmp_path):
    sink = open_sink(str(tmp_path / "x"), 5, 3)
    assert os.get_blocking(sink.fd)
    assert not os.get_inheritable(sink.fd)
    assert fcntl.fcntl(sink.fd, fcntl.F_GETPIPE_SZ) == (output.PIPE if os.geteuid() == 0 else output.PIPE // 4)
    sink.close()
    sink = open_sink(str(tmp_path / "x"), 5, 3, pipe=8192)
    assert fcntl.fcntl(sink.fd, fcntl.F_GETPIPE_SZ) <= 8192
    sink.close()


def test_somebody_else_holds_the_pipe_for_ever(tmp_path):
    """The pump does not end by itself then: it is cancelled, and what is there is taken without waiting, a pipeful at most."""
    sink = open_sink(str(tmp_path / "x"), 1 << 30, 3)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sink.pump)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    os.write(sink.fd, b"left\n")
    sink.drain()
    assert (tmp_path / "x").read_bytes() == b"left\n"
    sink.drain()
    sink.close()


def test_a_drain_ends_though_somebody_goes_on_writing(tmp_path):
    sink = open_sink(str(tmp_path / "x"), 1 << 20, 0)
    child = start(sink, "import os, signal\nsignal.signal(13, signal.SIG_DFL)\nwhile True: os.write(1, b'x' * 4096)")
    trio.run(trio.lowlevel.wait_readable, sink._read)
    sink.drain()
    sink.close()
    assert child.wait() == -signal.SIGPIPE  # nobody reads any more


def test_nobody_waits_for_a_full_disk():
    """A device that is always full: the job ends as if all had been written."""
    sink = output._behind(Broken(), output.PIPE)
    run(sink, "import os\nfor _ in range(100): os.write(1, b'x' * 65536)")


class Broken:
    def take(self, data):
        """Drop it."""

    def close(self):
        """Nothing."""


def test_one_that_is_closed_or_stopped_holds_up_nothing(tmp_path):
    """`ready` is where a slow terminal holds up its own job only."""
    gate, seen = trio.Event(), []
    slow, quick = prefixed("slow", seen.append), open_sink(str(tmp_path / "x"), 1 << 30, 1)

    async def main():
        children = [start(slow, "print('a')"), start(quick, "print('b')")]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slow.pump, gate.wait)
            await quick.pump()
            assert seen == []
            gate.set()
        assert [child.wait() for child in children] == [0, 0]

    trio.run(main)
    slow.close()
    quick.close()
    assert seen == [b"slow | a\n"]


def test_a_job_that_writes_much_is_hardly_slowed(tmp_path):
    """200 MB take 0.15 to 0.5 s, as into a file of its own. The bound here is for machines that do something else, too."""
    code = "import os\nfor _ in range(500): os.write(1, b'x' * 99999 + b'\\n')"
    took = []
    for most in (None, 10_000_000):
        before = perf_counter()
        run(open_sink(str(tmp_path / str(most)), most, 1), code)
        took.append(perf_counter() - before)
        files = sorted(tmp_path.glob(f"{most}*"))
        assert [one.stat().st_size for one in files] == ([50_000_000] if most is None else [10_000_000] * 2)
        for one in files:
            one.unlink()
    print(took)
    assert took[1] < 10 * took[0] + 1


def lines(*texts, name="job", width=0):
    shown = []
    prefixer = Prefixer(name, shown.append, width)
    for text in texts:
        prefixer.take(text)
    prefixer.close()
    return b"".join(shown).decode()


def test_whole_lines_with_the_name_before_them():
    assert lines(b"a\nb", b"c\n\nd") == "job | a\njob | bc\njob | \njob | d\n"
    assert lines(b"x\n", name="a", width=5) == "a     | x\n"
    assert lines(b"x\n", name="a\x1b[2Jb\n") == "a?[2Jb? | x\n"
    assert lines() == ""


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"\x1b[31;1mred\x1b[0m", "red"),
        (b"\x1b[2J\x1b]0;title\x07\x1bc", "?[2J?]0;title??c"),
        (b"\x9b2J", "\ufffd2J"),
        ("\x9b2J\u202eevil\u2028".encode(), "?2J?evil?"),
        (b"10 %\r20 %\r", "20 %"),
        (b"windows\r", "windows"),
        (b"a\tb\x00\x08", "a\tb??"),
        ("grün \U0001f600 \xa0".encode(), "grün \U0001f600 ?"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_nothing_that_a_terminal_obeys(written, shown):
    assert lines(written + b"\n") == f"job | {shown}\n"


def test_long_lines_are_cut_and_never_kept():
    prefixer = Prefixer("j", lambda text: None)
    for _ in range(100):
        prefixer.take(b"x" * 50_000)
        assert len(prefixer._rest) <= LONGEST
    assert lines(b"x" * LONGEST + b"\n") == f"job | {'x' * LONGEST}\n"
    assert lines(b"x" * (LONGEST + 1) + b"\n") == f"job | {'x' * LONGEST}\njob | x\n"
    assert lines(("x" + "ü" * LONGEST).encode()).replace("\njob | ", "") == f"job | x{'ü' * LONGEST}\n"


@given(st.lists(st.binary() | st.text().map(str.encode) | st.sampled_from([b"\x1b[", b"3", b"m", b"\r", b"\n"])))
def test_any_bytes_are_lines_that_print(texts):
    shown = lines(*texts)
    assert shown == "" or shown.endswith("\n")
    for line in shown.split("\n")[:-1]:
        assert line.startswith("job | ")
        assert line.replace("\t", "").isprintable()


def test_nobody_reads_what_is_shown():
    def gone(text):
        raise BrokenPipeError

    prefixer = Prefixer("x", gone)
    prefixer.take(b"a\n")
    prefixer.close()


def test_woken_and_closed_at_once(tmp_path, monkeypatch):
    """The group is empty in the moment in which its last words arrive: what is closed by then is not read."""
    sink = open_sink(str(tmp_path / "x"), 1 << 30, 1)
    scope = trio.CancelScope()

    async def woken(_fd):
        scope.cancel()
        sink.drain()
        sink.close()

    async def main():
        with scope:
            await sink.pump()

    monkeypatch.setattr(trio.lowlevel, "wait_readable", woken)
    trio.run(main)
