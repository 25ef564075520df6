"""What all benchmarks share: the C programs, pairs taken in turn, a table."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

HERE = Path(__file__).parent
PYTHON = sys.executable
MEMRUN = str(Path(sys.executable).parent / "memrun")
BARE = [PYTHON, "-I", "-c", "pass"]
SCRATCH = Path(tempfile.mkdtemp(prefix="memrun-bench-"))

# As an installed package has its .pyc files: with this set, every start would compile memrun anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Somebody's `memrun ps` wakes every memrun of the same directory.
os.environ["XDG_RUNTIME_DIR"] = str(SCRATCH)


def built(name: str, *flags: str) -> str:
    """The path of a C program of this directory."""
    found = SCRATCH / name
    if not found.exists():
        subprocess.run(["cc", "-O2", *flags, "-o", found, HERE / f"{name}.c"], check=True)
    return str(found)


def clock() -> str:
    return built("clock", "-static")


def said(words: list[str]) -> list[int]:
    """The numbers that a command prints; none where it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return [int(word) for word in done.stdout.split() if word.isdigit()]


def timed(words: list[str]) -> tuple[float, float]:
    """(wall-clock, CPU) milliseconds of a command and all that it waited for."""
    wall, cpu = said([clock(), "time", *words])[-2:]
    return wall / 1e6, cpu / 1e6


def in_turn(rounds: int, *measures: Callable[[], float]) -> list[list[float]]:
    """Each measure once unheeded (caches), then A B C, A B C ...: a machine whose speed drifts gives the same ratios."""
    for measure in measures:
        measure()
    rows = [[measure() for measure in measures] for _ in range(rounds)]
    return [list(column) for column in zip(*rows, strict=True)]


def ratio(ones: Iterable[float], others: Iterable[float]) -> float:
    """The median of the pairwise ratios."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True) if other)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def line(what: str, *figures: object) -> None:
    """One row: what, then figures."""
    print(f"  {what:<58}" + "".join(f"{figure:>12}" for figure in figures), flush=True)


def text_of(group: Path, file: str) -> str:
    """A control file; '' where there is none."""
    try:
        return (group / file).read_text(encoding="ascii")
    except OSError:
        return ""


@contextmanager
def memory_group() -> Iterator[Path | None]:
    """A memory group of ours, for the peers; None where there is none to be had. Gone when the block ends, with all in it."""
    found = None
    for entry in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, names, place = entry.split(":", 2)
        if "memory" in names.split(","):
            found = Path(f"/sys/fs/cgroup/memory{place}/memrun-bench-{os.getpid()}")
            found.mkdir(exist_ok=True)
        elif not names and "memory" in text_of(root := Path(f"/sys/fs/cgroup{place}"), "cgroup.subtree_control").split():
            found = root / f"memrun-bench-{os.getpid()}"  # v2
            found.mkdir(exist_ok=True)
    try:
        yield found
    finally:
        while found is not None and found.exists():
            for pid in (found / "cgroup.procs").read_text(encoding="ascii").split():
                os.kill(int(pid), signal.SIGKILL)
            try:
                found.rmdir()
            except OSError:
                time.sleep(0.01)


class Busy:
    """A process per CPU that computes, for as long as the block lasts."""

    def __enter__(self) -> None:
        self._hogs = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]

    def __exit__(self, *_: object) -> None:
        for hog in self._hogs:
            hog.kill()
            hog.wait()
