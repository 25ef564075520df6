"""Tests that need a systemd of their own, and the users alice (whose user manager runs) and bob (who has none): `make test-systemd`
boots a guest with all of that. Elsewhere they are skipped, for they start, stop and change what is the machine's.
"""

from __future__ import annotations

import os
import time

import pytest
from systemd.people import BARE, GUEST, MEMRUN, as_user, run, scopes

from memrun.cgroup import detect


def pytest_runtest_setup(item):
    if not (os.geteuid() == 0 and GUEST.is_dir() and os.path.isdir("/run/systemd/system")):
        pytest.skip("needs a guest whose first process is systemd: make test-systemd")
    legacy = detect.look().version == "v1"
    if (item.get_closest_marker("v1") is not None) != legacy:
        pytest.skip(f"needs cgroup {'v2' if legacy else 'v1'}")


@pytest.fixture
def as_alice():
    """as_alice("--limit", "50M", "--", "true") -> CompletedProcess of alice's memrun, in a bare environment."""
    return lambda *words: run(*as_user("alice", *MEMRUN, *words))


@pytest.fixture
def as_bob():
    return lambda *words: run(*as_user("bob", *MEMRUN, *words))


@pytest.fixture
def as_root():
    """The same for root, in the service that the guest's command is: pytest is in there, too."""
    return lambda *words: run(*MEMRUN, *words, env={**BARE, "HOME": "/root"})


@pytest.fixture
def unit():
    """unit("MemoryMax=200M", ..., command=[...]) -> CompletedProcess of a command in a service of its own."""

    def start(*properties, command=MEMRUN):
        words = ["systemd-run", "--quiet", "--wait", "--pipe"]
        return run(
            *words, *(word for p in properties for word in ("-p", p)), "env", *[f"{k}={v}" for k, v in BARE.items()], *command
        )

    return start


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """No scope, group or hand is there after a test."""
    yield
    deadline = time.monotonic() + 3
    while left := [*scopes(), *run("pgrep", "-f", "memrun-hand").stdout.split()]:
        if time.monotonic() > deadline:
            pytest.fail(f"left behind: {left}", pytrace=False)
        time.sleep(0.05)
