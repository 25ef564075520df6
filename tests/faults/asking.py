"""A memrun in trouble, and what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

MEMRUN = [sys.executable, "-m", "memrun"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make trouble for a machine")


def memrun(*words, **options):
    done = subprocess.run(
        [*MEMRUN, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False, **options
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def inside(mounts, *words, folder="/none"):
    """memrun in a mount namespace of its own, in which `mounts` (a shell's words, $0 is the folder) was done before."""
    script = f'{mounts} exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(folder), *MEMRUN, *words],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def sentence(done, words, status=125):
    """That and nothing else was said."""
    assert done.returncode == status, done.stderr
    assert re.fullmatch(rf"memrun: .*({words}).*\n", done.stderr), done.stderr
