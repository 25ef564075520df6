"""Where memrun's own lines go: --log-target."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest

ELSEWHERE = """mount -t tmpfs none /run && mkdir -p /run/systemd/journal && : > /run/systemd/journal/socket &&
mount --bind "$0" /run/systemd/journal/socket && exec "$@\""""


@pytest.fixture
def journal(tmp_path):
    """journal() -> the next entry, as text; .words: what makes memrun see this socket as journald's."""
    if os.geteuid():
        pytest.skip("only root may mount")

    class Journal:
        path = str(tmp_path / "journal")
        words = ("unshare", "-m", "sh", "-c", ELSEWHERE, path, sys.executable, "-m", "memrun")

        def __call__(self):
            return dict(line.split("=", 1) for line in wire.recv(1 << 16).decode().splitlines())

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(Journal.path)
        wire.settimeout(10)
        yield Journal()


def test_the_verdict_goes_to_the_journal_with_its_figures(run, journal, hog):
    done = run(*journal.words, "--limit", "20M", "--log-target", "journal", "--name", "big-one", "--", hog, "touch", "60")
    assert (done.returncode, done.stderr) == (137, "")
    entry = journal()
    assert entry["MESSAGE"].startswith("big-one: oom-kill: killed at the limit of 20M")
    assert (entry["MEMRUN_NAME"], entry["MEMRUN_RESULT"], entry["MEMRUN_STATUS"]) == ("big-one", "oom-kill", "137")
    assert (entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], entry["MEMRUN_LIMIT"]) == ("3", "memrun", str(20 << 20))
    assert 19 << 20 < int(entry["MEMRUN_PEAK"]) <= 20 << 20


def test_a_success_is_news_there_and_so_is_what_could_not_be_started(run, journal):
    done = run(*journal.words, "--quiet", "--log-target", "journal", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    entry = journal()
    assert (entry["PRIORITY"], entry["MEMRUN_RESULT"]) == ("6", "success")
    done = run(*journal.words, "--log-target", "journal", "--", "no-such-thing")
    assert (done.returncode, done.stderr) == (127, "")
    assert "not found" in journal()["MESSAGE"]


def test_a_batch_tells_of_each_job(run, journal, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[defaults]\nlimit = "20M"\n[jobs.a]\ncommand = "true"\n[jobs.b]\ncommand = "exit 3"\ndepends_on = ["a"]\n')
    done = run(*journal.words, "up", "--log-target=journal", "--quiet", str(file))
    assert (done.returncode, done.stderr) == (1, "")
    found = [journal(), journal()]
    assert [(one["MEMRUN_NAME"], one["MEMRUN_RESULT"], one["PRIORITY"]) for one in found] == [
        ("a", "success", "6"),
        ("b", "exit-code", "3"),
    ]


def test_a_file(memrun, tmp_path):
    log = tmp_path / "own.log"
    done = memrun("--log-target", str(log), "--", "sh", "-c", "exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    assert "]: sh: exit-code: exited with status 3 after " in log.read_text()
    done = memrun("--log-target", f"{log}/x", "--", "true")
    assert (done.returncode, done.stderr.startswith(f"memrun: cannot write the log {log}/x")) == (125, True)


JOURNALD = "/lib/systemd/systemd-journald"
THERE = """mount -t tmpfs none /run && mkdir -p /run/systemd/journal /run/log/journal || exit 1
"$0" > /dev/null 2>&1 & journald=$!
trap 'kill $journald; wait $journald' EXIT
until [ -S /run/systemd/journal/socket ]; do kill -0 $journald || exit 1; sleep 0.02; done
"$1" -m memrun --log-target journal --name real --limit 20M -- "$2" touch 60
"$1" -c 'from memrun.ownlog import Log; Log("journal").say("longlong " * 40000, 5, {"MEMRUN_NAME": "large"})'
journalctl --sync
journalctl -o json MEMRUN_NAME=real MEMRUN_RESULT=oom-kill
journalctl -a -o cat MEMRUN_NAME=large"""


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists(JOURNALD), reason="wants root, and systemd-journald")
def test_journald_itself(run, hog):
    """Also what is too large for a datagram, and goes as a sealed file."""
    done = run("unshare", "-m", "sh", "-c", THERE, JOURNALD, sys.executable, hog)
    entry, large, *_ = done.stdout.split("\n")
    entry = json.loads(entry)
    assert (entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["MEMRUN_LIMIT"]) == ("memrun", "3", str(20 << 20)), done.stderr
    assert large == "longlong " * 40000
