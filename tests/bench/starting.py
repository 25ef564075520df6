"""Time to exec, and the whole of a trivial command, against the bare interpreter and the peers that are here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from statistics import median

from ruler import BARE, MEMRUN, PYTHON, clock, in_turn, line, ratio, said, timed

ROUNDS = 25
TRUE = "/bin/true"
PEERS = {
    "runexec --no-container": ["runexec", "--no-container", "--output", "/dev/null", "--memlimit", "50000000", "--", TRUE],
    "systemd-run --scope": ["systemd-run", "--scope", "-q", "-p", "MemoryMax=50M", TRUE],
    "timeout 10": ["timeout", "10", TRUE],
}


def found(words: list[str]) -> str | None:
    """A peer that works here, also where it is installed beside our interpreter."""
    there = shutil.which(words[0]) or shutil.which(words[0], path=str(Path(PYTHON).parent))
    works = there and subprocess.run([there, *words[1:]], capture_output=True, check=False).returncode == 0
    return there if works else None


def to_exec() -> float:
    return said([clock(), "from", MEMRUN, "--limit", "50M", "--", clock(), "here"])[-1] / 1e6


def run() -> None:
    whole = [MEMRUN, "--limit", "50M", "--", TRUE]
    line("ratios to python -I -c pass", "ms", "bare", "ratio")
    ones, others = in_turn(ROUNDS, to_exec, lambda: timed(BARE)[0])
    line(
        "memrun's exec to the command's first instruction",
        f"{median(ones):.1f}",
        f"{median(others):.1f}",
        f"{ratio(ones, others):.2f}",
    )
    for which, name in enumerate(("wall clock", "CPU")):
        ones, others = in_turn(ROUNDS, lambda: timed(whole)[which], lambda: timed(BARE)[which])  # noqa: B023  (used at once)
        line(f"memrun --limit 50M -- true, {name}", f"{median(ones):.1f}", f"{median(others):.1f}", f"{ratio(ones, others):.2f}")
    for name, words in PEERS.items():
        there = found(words)
        if there is None:
            line(f"memrun -- true / {name} ... true", "not here")
            continue
        ones, others = in_turn(ROUNDS // 2, lambda: timed(whole)[0], lambda: timed([there, *words[1:]])[0])  # noqa: B023
        line(f"memrun -- true / {name} ... true", f"{median(ones):.1f}", f"{median(others):.1f}", f"{ratio(ones, others):.2f}")
