"""From the kernel's event to the job running again, and to the last process gone: by the job's own clock, against listener.c.

A raise: the job touches memory and notes how long each page took; where its limit is (and with memrun a little before, where its trip wire
is) the longest is the reaction. The first raise of a run is not counted: memrun's view of the largest processes is loaded then.
A kill: one process of two touches memory until the kernel kills it; what counts is how much longer the other one wrote down the time.
"""

from __future__ import annotations

import os
import struct
import subprocess
from contextlib import nullcontext

from ruler import MEMRUN, SCRATCH, Busy, built, clock, line, memory_group, quantile

LIMIT, PERCENT, END = 20 << 20, 125, 150
RUNS = 5
KILLS = 15


def gated(launcher: list[str]) -> list[tuple[int, int]]:
    """(byte, ns) of the slow pages of a job that begins when the launcher has long been ready."""
    gate = SCRATCH / "gate"
    if not gate.exists():
        os.mkfifo(gate)
    with subprocess.Popen([*launcher, clock(), "touch", str(END), "30", str(gate)], stdout=subprocess.PIPE) as job:
        fd = os.open(gate, os.O_WRONLY)  # waits for the job to open it
        try:
            job.wait(0.7)
        except subprocess.TimeoutExpired:
            os.write(fd, b"x")
        os.close(fd)
        words = job.communicate()[0].split()
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
    subprocess.run([*launcher, clock(), "crowd", str(page), "60"], stderr=subprocess.DEVNULL, check=False)
    victim, other = struct.unpack("qq", page.read_bytes()[:16])
    return max(0, other - victim) / 1e6


def tell(what: str, ours: list[float], theirs: list[float]) -> None:
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        one, other = quantile(ours, part), quantile(theirs, part)
        line(
            f"{what}, {name} of {len(ours)}",
            f"{one:.2f}",
            f"{other:.2f}" if theirs else "-",
            f"{one / other:.1f}" if theirs else "-",
        )


def run() -> None:
    group = memory_group()
    listener = [built("listener")] if group is not None else []
    raising = [MEMRUN, "-q", "--limit", str(LIMIT), "--on-oom", "pause", "--grow", str(PERCENT / 100), "--"]
    line("reaction", "memrun ms", "C ms", "ratio")
    for name, around in (("idle", nullcontext), ("busy", Busy)):
        with around():
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(RUNS):
                ours += reactions(gated(raising))
                theirs += reactions(gated([*listener, "raise", str(group), str(LIMIT), str(PERCENT)])) if listener else []
            tell(f"{name}: running again after a raise", ours, theirs)
            ours = [outlived([MEMRUN, "-q", "--limit", "20M", "--"]) for _ in range(KILLS)]
            theirs = [outlived([*listener, "kill", str(group), str(LIMIT), "-"]) for _ in range(KILLS)] if listener else []
            tell(f"{name}: last process gone", ours, theirs)
    if group is not None:
        group.rmdir()
