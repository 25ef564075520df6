"""Wake-ups and memory of who waits, for one job and for many; how soon many are started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from ruler import MEMRUN, PYTHON, SCRATCH, clock, line

SIZES = [int(word) for word in os.environ.get("MEMRUN_BENCH_JOBS", "1 100 1000").split()]
LONG = 10.0  # seconds


def field(pid: int, file: str, name: str) -> int:
    """A number from /proc/PID/FILE."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


def switches(pid: int) -> int:
    return field(pid, "status", "voluntary_ctxt_switches") + field(pid, "status", "nonvoluntary_ctxt_switches")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def sizes(pid: int) -> str:
    """RSS and PSS in MB."""
    return " / ".join(f"{field(pid, 'smaps_rollup', name) / 1024:.1f}" for name in ("Rss", "Pss"))


def asleep(pids: list[int]) -> int:
    """Times that any of them ran in LONG seconds."""
    before = sum(map(switches, pids))
    time.sleep(LONG)
    return sum(map(switches, pids)) - before


def one_shot() -> None:
    with subprocess.Popen([MEMRUN, "--limit", "50M", "--", "/bin/sleep", "1000"]) as run:
        time.sleep(2)
        hand = next(pid for pid in children(run.pid) if b"memrun-hand" in Path(f"/proc/{pid}/cmdline").read_bytes())
        line("a waiting memrun: RSS / PSS in MB", sizes(run.pid))
        line("its dead man's hand", sizes(hand))
        line(f"wake-ups of both in {LONG:.0f} s", asleep([run.pid, hand]))
        run.terminate()
    with subprocess.Popen([PYTHON, "-I", "-c", "input()"], stdin=subprocess.PIPE) as bare:
        time.sleep(0.3)
        line("a waiting bare interpreter", sizes(bare.pid))
        bare.kill()


class Crowd:
    """`memrun up` with so many jobs that tell when they began and then wait."""

    def __init__(self, number: int) -> None:
        fifo, self.file = SCRATCH / f"fifo{number}", SCRATCH / f"jobs{number}.toml"
        os.mkfifo(fifo)
        text = f'[batch]\nmemory = "infinity"\nparallel = {number}\n[jobs.wait]\narray = "1-{number}"\nlimit = "4M"\n'
        self.file.write_text(text + f'command = ["{clock()}", "tell", "{fifo}"]\n', encoding="utf-8")
        self._fifo = os.open(fifo, os.O_RDWR)
        self.known = subprocess.Popen([MEMRUN, "up", "-q", str(self.file)])
        self.stamps = sorted(self._stamp() for _ in range(number))
        time.sleep(3)
        heir = children(self.known.pid)
        self.pids = [self.known.pid, *heir, children(heir[0])[0]]  # the last one does the work

    def _stamp(self) -> int:
        text = b""
        while len(text) < 21:
            text += os.read(self._fifo, 21 - len(text))
        return int(text)

    def end(self) -> float:
        """Seconds until all of it was gone."""
        began = time.monotonic()
        self.known.terminate()
        self.known.wait()
        os.close(self._fifo)
        return time.monotonic() - began


def crowds() -> None:
    line("live jobs under one `memrun up`", *SIZES)
    rates, rss, wakes, ends = [], [], [], []
    for number in SIZES:
        crowd = Crowd(number)
        took = (crowd.stamps[-1] - crowd.stamps[0]) / 1e9
        rates.append(f"{number / took:.0f}" if took else "-")
        rss.append(field(crowd.pids[-1], "smaps_rollup", "Rss"))
        wakes.append(asleep(crowd.pids))
        ends.append(f"{crowd.end():.1f}")
    line("starts a second", *rates)
    line("RSS of the supervisor, MB", *(f"{size / 1024:.1f}" for size in rss))
    line(
        "KB for each job more",
        "-",
        *(f"{(b - a) / (m - n):.1f}" for a, b, n, m in zip(rss, rss[1:], SIZES, SIZES[1:], strict=False)),
    )
    line(f"wake-ups in {LONG:.0f} s", *wakes)
    line("seconds to end them all", *ends)


def run() -> None:
    one_shot()
    crowds()
    sys.stdout.flush()
