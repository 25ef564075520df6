"""From the kernel's event to the job running again, and to the last process gone: by the job's own clock, against listener.c.

A raise: the job touches memory and notes how long each page took; where its limit is (and with memrun a little before, where its trip wire
is) the longest is the reaction. The first raise of a run is not counted: memrun's view of the largest processes is loaded then.
A kill: one process of two touches memory until the kernel kills it; what counts is how much longer the other one wrote down the time.
Both begin when the launcher has been waiting for a while. Takes less than a minute.
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

LIMIT, PERCENT, END = 20 << 20, 125, 120
RUNS = 4
KILLS = 12
READY = 0.4  # seconds until a launcher waits in whatever way it waits


def gated(launcher: list[str], *words: str) -> bytes:
    """What a job prints that begins when the launcher has long been ready, and that ends by itself or at its limit."""
    gate = SCRATCH / "gate"
    if not gate.exists():
        os.mkfifo(gate)
    with subprocess.Popen([*launcher, clock(), *words, str(gate)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as job:
        fd = os.open(gate, os.O_WRONLY)  # waits for the job to open it
        try:
            job.wait(READY)
        except subprocess.TimeoutExpired:
            os.write(fd, b"x")
        os.close(fd)
        return job.communicate()[0]


def touched(launcher: list[str]) -> list[tuple[int, int]]:
    """(byte, ns) of the slow pages."""
    words = gated(launcher, "touch", str(END), "30").split()
    return [(int(at), int(took)) for at, took in zip(words[::2], words[1::2], strict=True)]


def reactions(slow: list[tuple[int, int]]) -> list[float]:
    """Milliseconds for each raise but the first."""
    found, limit = [], LIMIT * PERCENT // 100
    while limit < END << 20:
        near = [took for at, took in slow if limit * 0.88 - (2 << 20) < at <= limit]
        found += [max(near) / 1e6] if near else []
        limit = limit * PERCENT // 100
    return found


def outlived(launcher: list[str]) -> float:
    """Milliseconds."""
    page = SCRATCH / "page"
    page.write_bytes(bytes(4096))
    gated(launcher, "crowd", str(page), "60")
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
                ours.append(outlived([MEMRUN, "-q", "--limit", "20M", "--"]))
                theirs += [outlived([*listener, "kill", str(group), str(LIMIT), "-"])] if listener else []
            tell(f"{name}: last process gone", ours, theirs)
