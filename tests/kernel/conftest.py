"""Kernel tests run on whichever kernel is here; `--promise` says which that must be."""

from __future__ import annotations

import json
import subprocess

import pytest

from memrun.cgroup import detect


def pytest_collection_modifyitems(items):
    """Every test of these folders needs a memory controller: the one that is here, or, where there is none, both (and is skipped)."""
    here = detect.look().version
    for item in items:
        if "/kernel/" in str(item.path) and item.get_closest_marker("v1") is None and item.get_closest_marker("v2") is None:
            item.add_marker(here or "v1")


@pytest.fixture
def kept():
    """A list for what a test starts: each one's `process` has ended after it."""
    made = []
    yield made
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.fixture
def run():
    """run(*words) -> CompletedProcess, in text."""

    def act(*words, **options):
        return subprocess.run(words, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options)

    return act


@pytest.fixture
def judged(memrun, tmp_path):
    """judged(*words) -> (CompletedProcess, record as a dict)."""

    def run(*words, **options):
        path = tmp_path / "record.json"
        done = memrun("--report", str(path), *words, **options)
        return done, json.loads(path.read_text()) if path.exists() else None

    return run
