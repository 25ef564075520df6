"""From the kernel's event to the job running again, and to the last process gone: by the job's own clock, against listener.c.

A raise: the job touches memory in bursts, at full speed, and notes every moment in which it was stopped for longer than SHORT (a page that
took its time, or a sleep that lasted too long). The longest of those between a little before memrun's trip wire and the limit is the
reaction; 0, where there was none: a job that is given more before it has got as far as its limit does not stop at all. listener.c hears of
it at the limit itself, on v1, where the kernel has parked the job by then.
A kill: one process of two touches memory until the kernel kills it; what counts is how much longer the other one wrote down the time.
Both begin when the launcher has been waiting for a while. Takes about a minute; in a User-Mode Linux ten.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ruler import MEMRUN, SCRATCH, Busy, built, clock, line, memory_group, quantile

if TYPE_CHECKING:
    from pathlib import Path

LIMIT, PERCENT = 24 << 20, 110
END = min(480, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGESIZE") // 2 >> 20)  # MiB: a guest may have little
SHORT = 20  # microseconds
SLACK = 4 << 20  # what the job uses beside what it touches (its notes: 2 MiB), and what the CPUs have charged for it in advance
RUNS = 3  # of 32 raises each, where there is memory for them
KILLS = 100
READY, KILLER_READY = 0.4, 0.25  # seconds until a launcher waits in whatever way it waits, for a raise and for a kill


def gated(launcher: list[str], *words: str, ready: float = READY) -> bytes:
    """What a job prints that begins when the launcher has long been ready, and that ends by itself or at its limit."""
    gate = SCRATCH / "gate"
    if not gate.exists():
        os.mkfifo(gate)
    with subprocess.Popen([*launcher, clock(), *words, str(gate)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        fd = os.open(gate, os.O_WRONLY)  # waits for the job to open it
        try:
            job.wait(ready)
        except subprocess.TimeoutExpired:
            os.write(fd, b"x")
        os.close(fd)
        return job.communicate()[0]


def touched(launcher: list[str]) -> list[tuple[int, int]]:
    """(byte, ns) of each stop."""
    words = gated(launcher, "touch", str(END), str(SHORT)).split()
    return [(int(at), int(took)) for at, took in zip(words[::2], words[1::2], strict=True)]


def reactions(slow: list[tuple[int, int]]) -> list[float]:
    """Milliseconds for each raise."""
    found, limit = [], LIMIT
    while limit < END << 20:
        near = [took for at, took in slow if limit - wire_gap(limit) - SLACK < at <= limit]
        found.append(max(near, default=0) / 1e6)
        limit = limit * PERCENT // 100
    return found


def wire_gap(limit: int) -> int:
    """A little more than what either kernel's wire of memrun's is below the limit."""
    return min(limit // 10, max(3 << 20, int(17 * limit ** (2 / 3))))


def outlived(launcher: list[str]) -> float:
    """Milliseconds."""
    page = SCRATCH / "page"
    page.write_bytes(bytes(4096))
    gated(launcher, "crowd", str(page), "60", ready=KILLER_READY)
    victim, other = struct.unpack("qq", page.read_bytes()[:16])
    return max(0, other - victim) / 1e6


def tell(what: str, ours: list[float], theirs: list[float]) -> None:
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        one, other = quantile(ours, part), quantile(theirs, part)
        line(
            f"{what}, {name} of {len(ours)}",
            f"{one:.2f}",
            f"{other:.2f}" if theirs else "-",
            f"{one / other:.1f}" if theirs and other else "-",
        )


def run() -> None:
    with memory_group() as group:
        compare(group)


def compare(group: Path | None) -> None:
    listener = [built("listener")] if group is not None else []
    raising = [MEMRUN, "-q", "--limit", str(LIMIT), "--on-oom", "pause", "--grow", str(PERCENT / 100), "--"]
    line("reaction", "memrun ms", "C ms", "ratio")
    for name, around in (("idle", nullcontext), ("busy", Busy)):
        with around():
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(RUNS):
                ours += reactions(touched(raising))
                theirs += reactions(touched([*listener, "raise", str(group), str(LIMIT), str(PERCENT)])) if listener else []
            tell(f"{name}: running again after a raise", ours, theirs)
            ours, theirs = [], []
            for _ in range(KILLS):
                ours.append(outlived([MEMRUN, "-q", "--limit", str(LIMIT), "--"]))
                theirs += [outlived([*listener, "kill", str(group), str(LIMIT), "-"])] if listener else []
            tell(f"{name}: last process gone", ours, theirs)
