"""Ratios against the bare interpreter and the peers that are installed here. Prints; asserts nothing.

Every figure is the median of pairs taken in turn (A B A B ...), so that a machine whose speed drifts gives the same ratio.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 20
MEMRUN = str(Path(sys.executable).parent / "memrun")
BARE = [sys.executable, "-I", "-c", "pass"]
STAMP = [sys.executable, "-I", "-S", "-c", "import time; print(time.monotonic())"]


def seconds(words: list[str]) -> float:
    """Wall-clock time of a whole command."""
    began = time.monotonic()
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.monotonic() - began


def ratio(one: list[str], other: list[str]) -> tuple[float, float, float]:
    """(median of one in ms, median of the other in ms, median of the pairwise ratios)."""
    seconds(one), seconds(other)
    pairs = [(seconds(one), seconds(other)) for _ in range(ROUNDS)]
    ones, others = zip(*pairs, strict=True)
    return statistics.median(ones) * 1e3, statistics.median(others) * 1e3, statistics.median(a / b for a, b in pairs)


def to_exec() -> tuple[float, float, float]:
    """From memrun's own start to the command's first line, less what the command's interpreter takes to get there by itself."""
    found = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        there = float(subprocess.check_output([MEMRUN, "--limit", "50M", "--", *STAMP])) - began
        began = time.monotonic()
        alone = float(subprocess.check_output(STAMP)) - began
        found.append((there - alone, seconds(BARE)))
    ones, others = zip(*found, strict=True)
    return statistics.median(ones) * 1e3, statistics.median(others) * 1e3, statistics.median(a / b for a, b in found)


def main() -> None:
    """A table."""
    true = [MEMRUN, "--limit", "50M", "--", "/bin/true"]
    rows = [("start of the command / bare interpreter", *to_exec()), ("memrun -- true / bare interpreter", *ratio(true, BARE))]
    peers = {
        "runexec": ["runexec", "--no-container", "--memlimit", "50000000", "--", "/bin/true"],
        "systemd-run": ["systemd-run", "--scope", "-q", "-p", "MemoryMax=50M", "/bin/true"],
        "timeout": ["timeout", "10", "/bin/true"],
    }
    rows += [(f"memrun -- true / {name} ... true", *ratio(true, words)) for name, words in peers.items() if shutil.which(name)]
    print(f"{'':<42}{'ms':>8}{'ms':>8}{'ratio':>8}   (medians of {ROUNDS} pairs)")
    for what, one, other, both in rows:
        print(f"{what:<42}{one:8.1f}{other:8.1f}{both:8.2f}")


if __name__ == "__main__":
    main()
