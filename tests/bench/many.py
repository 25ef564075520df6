"""Wake-ups and memory of who waits, for one job and for many; how soon many are started, and how soon one of many is heard.

A reaction is what reacting.py calls "last process gone", of jobs of the same batch, one after the other. CPU is the supervisor's and its
midwife's (the job's own exec is not in it), of the first and of the last tenth of the starts: other work on the machine does not change it much.
"""

from __future__ import annotations

import os
import re
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

from ruler import MEMRUN, PYTHON, SCRATCH, clock, line, quantile

from memrun.batch import openfiles

MOST = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - openfiles.OURS) // openfiles.EACH
LONG = 10.0  # seconds
PROBES = 20
SIZES = [int(word) for word in os.environ.get("MEMRUN_BENCH_JOBS", "1 100 1000 5000").split() if int(word) + PROBES <= MOST]


def field(pid: int, file: str, name: str) -> int:
    """A number from /proc/PID/FILE."""
    found = re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/{file}").read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) if found else 0


def switches(pid: int) -> int:
    return field(pid, "status", "voluntary_ctxt_switches") + field(pid, "status", "nonvoluntary_ctxt_switches")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def cpu(pids: list[int]) -> float:
    """Seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


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
    """`memrun up` with so many jobs that tell when they began and then wait, and some that wait for a byte to get out of memory."""

    def __init__(self, number: int) -> None:
        self._folder = SCRATCH / str(number)
        self._folder.mkdir()
        fifo, file = self._folder / "fifo", self._folder / "jobs.toml"
        os.mkfifo(fifo)
        for probe in range(1, PROBES + 1):
            os.mkfifo(self._folder / f"gate{probe}")
            (self._folder / f"page{probe}").write_bytes(bytes(4096))
        file.write_text(
            f'[batch]\nmemory = "infinity"\nparallel = {number + PROBES}\n'
            f'[jobs.probe]\narray = "1-{PROBES}"\nlimit = "24M"\n'
            f'command = ["{clock()}", "crowd", "{self._folder}/page{{index}}", "60", "{self._folder}/gate{{index}}"]\n'
            f'[jobs.wait]\narray = "1-{number}"\nlimit = "4M"\ncommand = ["{clock()}", "tell", "{fifo}"]\n',
            encoding="utf-8",
        )
        self._fifo = os.open(fifo, os.O_RDWR)
        self.known = subprocess.Popen([MEMRUN, "up", "-q", str(file)])
        self.stamps: list[int] = []
        spent = [self._spent(number * tenth // 10) for tenth in (0, 1, 9, 10)]
        self.cpu = [(after - before) / max(1, number // 10) * 1000 for before, after in (spent[:2], spent[2:])]
        time.sleep(3)
        self.pids = [self.known.pid, *children(self.known.pid), *self._workers()[:1]]

    def _workers(self) -> list[int]:
        """The one that does the work, and its midwife."""
        worker = children(children(self.known.pid)[0])[0]
        midwives = [
            pid for pid in children(worker) if Path(f"/proc/{pid}/comm").read_text(encoding="ascii") == "memrun-midwife\n"
        ]
        return [worker, *midwives]

    def _spent(self, started: int) -> float:
        """CPU seconds, once so many have told that they began."""
        while len(self.stamps) < max(1, started):
            self.stamps.append(self._stamp())
        return cpu(self._workers())

    def _stamp(self) -> int:
        text = b""
        while len(text) < 21:
            text += os.read(self._fifo, 21 - len(text))
        return int(text)

    def descriptors(self) -> int:
        """Of the one that does the work."""
        return len(os.listdir(f"/proc/{self.pids[-1]}/fd"))

    def reactions(self) -> list[float]:
        """Milliseconds."""
        return [self._reaction(probe) for probe in range(1, PROBES + 1)]

    def _reaction(self, probe: int) -> float:
        gate, page = self._folder / f"gate{probe}", self._folder / f"page{probe}"
        fd = os.open(gate, os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)
        before, now = b"", page.read_bytes()[:16]
        while before != now or not all(struct.unpack("qq", now)):
            time.sleep(0.1)
            before, now = now, page.read_bytes()[:16]
        victim, other = struct.unpack("qq", now)
        return max(0, other - victim) / 1e6

    def end(self) -> float:
        """Seconds until all of it was gone."""
        began = time.monotonic()
        self.known.terminate()
        self.known.wait()
        os.close(self._fifo)
        return time.monotonic() - began


def crowds() -> None:
    line("live jobs under one `memrun up`", *SIZES)
    table: dict[str, list[str]] = {}
    rss: list[int] = []
    for number in SIZES:
        crowd = Crowd(number)
        took = (max(crowd.stamps) - min(crowd.stamps)) / 1e9
        rss.append(field(crowd.pids[-1], "smaps_rollup", "Rss"))
        open_files = crowd.descriptors()
        wakes = asleep(crowd.pids)
        reactions = crowd.reactions()
        more = (rss[-1] - rss[-2]) / (number - SIZES[len(rss) - 2]) if len(rss) > 1 else 0
        for what, figure in (
            ("starts a second", f"{number / took:.0f}" if took else "-"),
            (
                "CPU of memrun's for a start, ms: first tenth / last",
                "{:.1f} / {:.1f}".format(*crowd.cpu) if number >= 1000 else "-",
            ),
            ("descriptors of the supervisor", str(open_files)),
            ("RSS of the supervisor, MB", f"{rss[-1] / 1024:.1f}"),
            ("KB for each job more", f"{more:.1f}" if more else "-"),
            (f"wake-ups in {LONG:.0f} s", str(wakes)),
            ("an OOM kill: last process gone, ms, p50", f"{quantile(reactions, 0.5):.2f}"),
            ("the same, p90", f"{quantile(reactions, 0.9):.2f}"),
            ("seconds to end them all", f"{crowd.end():.1f}"),
        ):
            table.setdefault(what, []).append(figure)
    for what, figures in table.items():
        line(what, *figures)


def run() -> None:
    one_shot()
    crowds()
    sys.stdout.flush()
