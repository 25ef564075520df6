"""The command-line tests run on whichever kernel is here; `--promise` says which that must be."""

from __future__ import annotations

from memrun.cgroup import detect


def pytest_collection_modifyitems(items):
    for item in items:
        if "/cli/" in str(item.path) and item.get_closest_marker("v1") is None and item.get_closest_marker("v2") is None:
            item.add_marker(detect.look().version or "v1")
