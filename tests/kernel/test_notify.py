"""As a service of systemd's: READY, STATUS, RELOADING, STOPPING; and no job speaks for memrun."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

MEMRUN = [sys.executable, "-m", "memrun"]


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path, monkeypatch):
    """systemd() -> the next message, as its lines."""
    address = f"{tmp_path}/notify" if request.param == "path" else f"@memrun-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(address.replace("@", "\0"))
        wire.settimeout(20)
        yield lambda: wire.recv(1 << 16).decode().split("\n")


def test_one_run(systemd, memrun):
    name = f"one{os.getpid()}"
    done = memrun("--limit", "50M", "--name", name, "--", "sh", "-c", 'echo "<$NOTIFY_SOCKET>"; exit 3')
    assert done.stdout == "<>\n"
    assert systemd() == ["READY=1", f"STATUS={name} runs, its limit is 50M"]
    assert systemd() == ["STOPPING=1"]
    assert re.fullmatch(rf"STATUS={name}: exit-code: exited with status 3 after [\d.]+ s", *systemd())


def test_what_happens_is_its_status_and_a_signal_its_end(systemd):
    name = f"s{os.getpid()}"
    words = [
        "--name",
        name,
        "--on-event",
        "restarted=echo [$NOTIFY_SOCKET]",
        "--restart",
        "on-failure",
        "--attempts",
        "2",
        "--delay",
        "0",
    ]
    with subprocess.Popen([*MEMRUN, *words, "--", "cat", "/dev/fd/9"], stderr=subprocess.PIPE) as one:
        assert systemd()[0] == "READY=1"
        assert systemd()[0].startswith(f"STATUS={name}: restarting: ")
        assert b"[]" in one.stderr.read()
    with subprocess.Popen([*MEMRUN, "--", "sleep", "1000"], stderr=subprocess.DEVNULL) as one:
        while systemd()[0] != "READY=1":
            pass
        one.terminate()
        assert systemd() == ["STOPPING=1"]
        assert one.wait(20) == 143


def test_the_job_may_have_it_if_it_is_asked_for(systemd, memrun):
    done = memrun("--pass-env", "NOTIFY_SOCKET", "--", "/bin/sh", "-c", 'echo "<$NOTIFY_SOCKET>"')
    assert done.stdout == f"<{os.environ['NOTIFY_SOCKET']}>\n"


def test_a_batch_and_its_reload(systemd, tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[defaults]\nlimit = "20M"\n[jobs.a]\ncommand = "echo \\"<$NOTIFY_SOCKET>\\"; read _ < gate"\n')
    os.mkfifo(tmp_path / "gate")
    with subprocess.Popen([*MEMRUN, "up", "-q", str(file)], stdout=subprocess.PIPE, text=True) as one:
        assert systemd() == ["READY=1", "STATUS=x.toml: 0 of 1 jobs are done"]
        one.send_signal(signal.SIGHUP)
        told = systemd()
        assert told[0] == "RELOADING=1"
        assert re.fullmatch(r"MONOTONIC_USEC=\d+", told[1])
        assert systemd() == ["READY=1", "STATUS=x.toml: 0 of 1 jobs are done"]
        (tmp_path / "gate").write_text("\n")
        assert systemd() == ["STATUS=x.toml: 1 of 1 jobs are done"]
        assert systemd() == ["STOPPING=1"]
        assert one.stdout.read() == "<>\n"
        assert one.wait(20) == 0
