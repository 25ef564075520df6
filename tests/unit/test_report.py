"""What is said, to a person and to a file."""

from __future__ import annotations

import json
import os
import threading

import pytest

from memrun import report
from memrun.cgroup import Tally
from memrun.errors import MemrunError
from memrun.record import RESULTS, Record, judge

M = 1 << 20


def ended(result: str, **known: object) -> Record:
    made = Record("hog", ["./hog"])
    made.result, made.limit, made.peak, made.elapsed, made.status = result, 5 * M, 5 * M, 0.034, 137
    for key, value in known.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (ended("success"), ""),
        (
            ended("oom-kill", oom_kills=1, largest=[{"pid": 7, "name": "hog", "rss": 6 * M}]),
            "hog: oom-kill: killed at the limit of 5M (peak 5M) after 0.03 s; largest: hog (pid 7) 6M; give it more: --limit 10M",
        ),
        (
            ended("oom-kill", oom_kills=3, peak=None),
            "hog: oom-kill: killed at the limit of 5M after 0.03 s; give it more: --limit 10M",
        ),
        (
            ended("host-oom", oom_kills=1, note="see there"),
            "hog: host-oom: killed because memory ran out outside of its limit of 5M (peak 5M) after 0.03 s (see there); run less beside it, or raise the limit of the group that memrun is in",
        ),
        (ended("timeout", elapsed=200), "hog: timeout: stopped because its time was up (peak 5M) after 3 min 20 s"),
        (ended("signal", signal=11), "hog: signal: died of SIGSEGV, not for memory (peak 5M) after 0.03 s"),
        (ended("signal", signal=64), None),
        (ended("exit-code", exit_code=3), "hog: exit-code: exited with status 3 after 0.03 s"),
        (
            ended("exit-code", exit_code=3, may_have_failed=True),
            "hog: exit-code: exited with status 3 after 0.03 s; it may have seen ENOMEM: it has used all of its limit",
        ),
        (ended("success", may_have_failed=True), ""),
        (ended("stopped", status=143), "hog: stopped: ended with status 143 after 0.03 s"),
        (
            ended("stopped", status=143, oom_kills=2),
            "hog: stopped: ended with status 143 after 0.03 s; 2 killed for memory before that",
        ),
        (
            ended("exhausted", oom_kills=1, oom_events=1, note="2 attempts, all killed for memory at the limit of 5M"),
            "hog: exhausted: ended with status 137 after 0.03 s (2 attempts, all killed for memory at the limit of 5M); give it more: --limit 10M",
        ),
        (
            ended("patience", patience=3600.0, awaited="raise"),
            "hog: patience: killed because nobody raised it within 1 h (peak 5M) after 0.03 s; give it more: --limit 10M",
        ),
        (
            ended("patience", patience=60.0, awaited="resume"),
            "hog: patience: killed because nobody resumed it within 1 min (peak 5M) after 0.03 s",
        ),
    ],
)
def test_the_verdict(record, line):
    if line is None:
        assert "SIG" in report.verdict(record)
    else:
        assert report.verdict(record) == line


@pytest.mark.parametrize("result", [r for r in RESULTS if r != "success"])
@pytest.mark.parametrize(
    "known", [{}, {"limit": None, "peak": None}, {"oom_kills": 2, "largest": [{"pid": 1, "name": "x", "rss": None}]}]
)
def test_one_line_whatever_is_unknown(result, known):
    line = report.verdict(ended(result, **known))
    assert line.startswith(f"hog: {result}: ")
    assert "\n" not in line
    assert "None" not in line.replace("status None", "")


def test_a_verdict_of_a_judged_record():
    made, counted = Record("a", ["a"]), Tally()
    made.take_status(9)
    counted.kills = counted.own = 1
    counted.limit = 5 * M
    made.take_tally(counted)
    judge(made, "", counted, oom_group=True)
    assert report.verdict(made) == "a: oom-kill: killed at the limit of 5M after 0.00 s; give it more: --limit 10M"


@pytest.mark.parametrize(
    "evil",
    ["\x1b]0;owned\x07", "\x1b[2J", "a\nmemrun: all is well", "\r", "\x9b31m", "\u202egnp.exe", "\u2028", "\x00", "\udcff"],
)
def test_nothing_that_a_terminal_would_obey_gets_through(evil):
    line = report.verdict(ended("oom-kill", name=f"a{evil}b", oom_kills=1, largest=[{"pid": 1, "name": f"c{evil}d", "rss": 1}]))
    assert line.isprintable()
    assert evil not in line
    assert report.clean("größe 漢字 ok") == "größe 漢字 ok"


class TestFile:
    def test_written_whole_and_alone(self, tmp_path):
        path = tmp_path / "out.json"
        report.write(str(path), "one\n")
        report.write(str(path), "two\n")
        assert path.read_text() == "two\n"
        assert os.listdir(tmp_path) == ["out.json"]

    def test_a_reader_never_sees_half_of_it(self, tmp_path):
        path = tmp_path / "out.json"
        texts = [json.dumps({"n": n, "pad": "x" * 100_000}) for n in range(20)]
        report.write(str(path), texts[0])
        seen, done = [], threading.Event()

        def look() -> None:
            while not done.is_set():
                seen.append(len(path.read_text()))

        reader = threading.Thread(target=look)
        reader.start()
        for text in texts:
            report.write(str(path), text)
        done.set()
        reader.join()
        assert set(seen) <= {len(text) for text in texts}

    def test_the_mask_of_the_user_counts(self, tmp_path):
        before = os.umask(0o027)
        try:
            report.write(str(tmp_path / "out"), "x")
        finally:
            os.umask(before)
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640

    def test_a_pipe_is_written_to_not_replaced(self, tmp_path):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        report.write(str(path), "hello\n")
        assert os.read(reader, 100) == b"hello\n"
        os.close(reader)
        assert os.listdir(tmp_path) == ["fifo"]

    def test_a_device_is_written_to_not_replaced(self):
        report.write("/dev/null", "x")
        assert not os.path.isfile("/dev/null")

    @pytest.mark.parametrize("path", ["/dev/full", "/nowhere/out.json"])
    def test_what_cannot_be_written_is_said(self, path):
        with pytest.raises(MemrunError, match=f"cannot write the report {path}"):
            report.write(path, "x")

    def test_a_failure_leaves_no_part_behind(self, tmp_path):
        (tmp_path / "folder").mkdir()
        with pytest.raises(MemrunError):
            report.write(str(tmp_path / "folder"), "x")
        assert os.listdir(tmp_path) == ["folder"]

    def test_names_that_are_no_utf8_are_written_all_the_same(self, tmp_path):
        made = ended("success", command=["./h\udcff"])
        path = tmp_path / "out.json"
        report.write(str(path), report.to_json(made))
        assert json.loads(path.read_text(encoding="utf-8"))["command"] == ["./h\udcff"]

    @pytest.mark.parametrize("kind", ["pipe", "file"])
    def test_a_descriptor_of_ours_is_written_to_not_replaced(self, tmp_path, kind):
        """--report /dev/stdout, /dev/fd/3, >(...): links that lead to whatever is open there."""
        reader, fd = os.pipe() if kind == "pipe" else (-1, os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | os.O_APPEND))
        os.write(fd, b"before ")
        for path in (f"/dev/fd/{fd}", f"/proc/self/fd/{fd}"):
            report.check_writable(path)
            report.write(path, "x")
        said = os.read(reader, 100) if kind == "pipe" else (tmp_path / "file").read_bytes()
        assert said == b"before xx"
        for one in {reader, fd} - {-1}:
            os.close(one)

    def test_a_link_to_a_device_is_written_through(self, tmp_path):
        (tmp_path / "link").symlink_to("/dev/null")
        report.write(str(tmp_path / "link"), "x")
        assert (tmp_path / "link").is_symlink()
        assert os.listdir(tmp_path) == ["link"]

    def test_a_full_disk_leaves_no_part_behind(self, tmp_path, monkeypatch):
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(report.os, "replace", full)
        with pytest.raises(MemrunError, match="No space left"):
            report.write(str(tmp_path / "out.json"), "x")
        assert os.listdir(tmp_path) == []

    def test_complaints_come_before_anything_is_started(self, tmp_path):
        report.check_writable(str(tmp_path / "out.json"))
        report.check_writable("/dev/null")
        for path in (str(tmp_path), str(tmp_path / "no" / "out.json"), ""):
            with pytest.raises(MemrunError, match="cannot write the report"):
                report.check_writable(path or str(tmp_path) + "/")
