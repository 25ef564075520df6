"""Thresholds and pressure as the kernel tells of them: what is heard, what is not, and how seldom anybody wakes up."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

import pytest
import trio

from memrun import events, gauges
from memrun.cgroup import Wish, detect, gauge
from memrun.errors import GroupError, MemrunError, UsageError
from memrun.gauges import Mark, Rule
from memrun.job import Site
from memrun.launch import Order, launch

MIB = 1 << 20
SOON = 10.0  # seconds: generous, an emulated machine is slow
TREMBLING = """
import mmap, sys
kept = mmap.mmap(-1, 24 << 20); kept.write(b"x" * (24 << 20))
for _ in range(300):
    more = mmap.mmap(-1, 600 << 10); more.write(b"x" * (600 << 10)); more.close()
print("done", flush=True); sys.stdin.readline()
"""
BUSY = "print('ready', flush=True)\nwhile True: pass"


class Bench:
    """One command in one group, behind a gate."""

    def __init__(self, limit, *argv, gate=True):
        self.site = Site()
        self.group = self.site.host.create("bench", Wish(limit))
        order = Order(argv, {**os.environ, **({"HOG_GATE": "1"} if gate else {})})
        order.procs_fds = self.group.procs_fds()
        order.stdin, self.gate = os.pipe()
        self.out, order.stdout = os.pipe()
        self.child = launch(order)
        os.close(order.stdin)
        os.close(order.stdout)
        self.looks = 0
        look = self.group.usage

        def usage():
            self.looks += 1
            return look()

        self.group.usage = usage

    async def said(self, word):
        heard = b""
        while word.encode() not in heard:
            await trio.lowlevel.wait_readable(self.out)
            chunk = os.read(self.out, 4096)
            assert chunk, f"never said {word}: {heard}"
            heard += chunk

    def go(self):
        os.write(self.gate, b"go\n")

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child.pid, signal.SIGKILL)
        select.select([self.child.pidfd], [], [], SOON)
        assert self.child.reap() is not None

    def close(self):
        if self.child.status is None:
            self.kill()
        self.group.close()
        self.child.close()
        os.close(self.gate)
        os.close(self.out)
        self.site.close()


@pytest.fixture
def bench():
    made = []

    def make(limit, *argv, **options):
        made.append(Bench(limit, *argv, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def filling(disk):
    """Shell words that write so many MiB to an open file: some file systems forget the pages of one that is closed."""
    return f"exec 3>{disk}/big; read go; dd if=/dev/zero bs=1M 2>/dev/null count="


class Mail(list):
    """What was sent; wait for the n-th."""

    def __init__(self):
        super().__init__()
        self.came = trio.Event()

    def send(self, event):
        self.append(event)
        self.came.set()
        self.came = trio.Event()

    async def until(self, n):
        with trio.fail_after(SOON):
            while len(self) < n:
                await self.came.wait()

    @property
    def crossed(self):
        return [(event.index, event.rising) for event in self if isinstance(event, events.Crossed)]


def listening(bench, marks, play):
    """Run `play(mail)` beside crossings; returns the mail."""
    mail = Mail()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gauges.crossings, bench.group, marks, mail.send)
            await play(mail)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return mail


def open_files():
    return sorted(os.listdir("/proc/self/fd"))


def test_up_and_down(bench, hog):
    job = bench(200 * MIB, hog, "step", "10240", "200", "6")

    async def play(mail):
        await job.said("ready")
        assert mail == []
        job.go()
        await mail.until(1)
        assert job.group.usage() < 60 * MIB
        await mail.until(2)
        job.kill()
        await mail.until(4)

    mail = listening(job, [Mark(20 * MIB), Mark(None), Mark(45 * MIB, swap=True), Mark(150 * MIB)], play)
    assert mail.crossed[:2] == [(0, True), (2, True)]
    assert sorted(mail.crossed[2:]) == [(0, False), (2, False)]


def test_what_is_above_at_the_start_has_been_passed(bench, hog):
    job = bench(200 * MIB, hog, "step", "30720", "100000", "2")

    async def begin():
        await job.said("ready")
        job.go()
        await job.said("step 1")

    trio.run(begin)
    marks = [Mark(10 * MIB)]
    assert listening(job, marks, lambda mail: mail.until(1)).crossed == [(0, True)]

    async def nothing(mail):
        await trio.sleep(0.1)

    assert listening(job, marks, nothing).crossed == []  # the mark knows what was told
    marks[0].move(100 * MIB)
    assert listening(job, marks, lambda mail: mail.until(1)).crossed == [(0, False)]


def test_a_hold(bench, hog):
    job = bench(200 * MIB, hog, "step", "30720", "100000", "2")
    at = {}

    async def play(mail):
        await job.said("ready")
        job.go()
        await mail.until(2)
        at["plain"], at["held"] = mail[0].at, mail[1].at
        job.kill()
        await mail.until(4)

    mail = listening(job, [Mark(20 * MIB, 0.5), Mark(20 * MIB), Mark(20 * MIB, 60.0)], play)
    assert mail.crossed[:2] == [(1, True), (0, True)]
    assert 0.5 <= at["held"] - at["plain"] < 3
    assert sorted(mail.crossed[2:]) == [(0, False), (1, False)]  # what was not told to have risen does not fall


def test_page_cache_does_not_count_where_it_is_not_to(bench, hog, disk):
    job = bench(200 * MIB, "sh", "-c", f"{filling(disk)}64 >&3; echo done; read end")

    async def play(mail):
        job.go()
        await job.said("done")
        await mail.until(1)
        await trio.sleep(0.2)

    assert listening(job, [Mark(30 * MIB, cache=False), Mark(30 * MIB)], play).crossed == [(1, True)]


def test_need_is_heard_behind_a_wall_of_page_cache(bench, hog, disk):
    """Use stands above the mark, all of it cache; then need grows beneath it."""
    job = bench(100 * MIB, "sh", "-c", f"{filling(disk)}90 >&3; echo done; unset HOG_GATE; read go; exec {hog} step 10240 100 6")

    async def play(mail):
        job.go()
        await job.said("done")
        await mail.until(1)
        job.go()
        await mail.until(2)

    assert listening(job, [Mark(40 * MIB, cache=False), Mark(40 * MIB)], play).crossed == [(1, True), (0, True)]


def test_who_trembles_about_a_mark_is_told_of_once(bench):
    job = bench(200 * MIB, sys.executable, "-I", "-S", "-c", TREMBLING, gate=False)
    base = {}

    async def play(mail):
        await job.said("done")
        base["usage"] = job.group.usage()
        await trio.sleep(0.1)

    marks = [Mark((24 * 1024 + at) << 10) for at in range(3000, 6000, 250)]  # wherever the interpreter itself stands
    mail = listening(job, marks, play)
    assert all(mail.crossed.count((index, True)) <= 1 for index in range(len(marks))), mail.crossed


def test_an_idle_job_wakes_nobody(bench, hog):
    job = bench(200 * MIB, hog, "step", "30720", "100000", "2")

    async def play(mail):
        await job.said("ready")
        job.go()
        await mail.until(1)
        await trio.sleep(4)  # to settle
        before = job.looks
        await trio.sleep(6)
        assert job.looks - before <= most(job)
        os.kill(job.child.pid, signal.SIGKILL)
        await mail.until(2)

    assert listening(job, [Mark(20 * MIB), Mark(150 * MIB)], play).crossed == [(0, True), (0, False)]


def most(job):
    """Looks in six idle seconds: none, or, where v2 does not let us have the group's clock, a few that grow rarer."""
    if job.group.version == "v1":
        return 0
    stir = gauge.Stir(job.group.path)
    allowed = stir.arm(1.0)
    stir.close()
    return 0 if allowed else 2


def test_a_busy_job_that_does_not_grow_is_seldom_looked_at(bench):
    job = bench(200 * MIB, sys.executable, "-I", "-S", "-c", BUSY, gate=False)

    async def play(mail):
        await job.said("ready")
        await trio.sleep(4)
        before = job.looks
        await trio.sleep(4)
        assert job.looks - before <= (0 if job.group.version == "v1" else 3)

    assert listening(job, [Mark(job.group.usage() + 40 * MIB)], play).crossed == []


def test_it_ends_with_the_group(bench, hog):
    job = bench(200 * MIB, hog, "touch", "1")
    before = open_files()
    mail = Mail()

    async def main():
        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gauges.crossings, job.group, [Mark(20 * MIB)], mail.send)
                if can_tell(job):
                    nursery.start_soon(gauges.pressures, job.group, [Rule("low")], mail.send)
                await job.said("ready")
                await trio.sleep(0.1)
                job.kill()
                while not job.group.remove():  # noqa: ASYNC110  ("not yet, ask again")
                    await trio.sleep(0.01)
        await gauges.crossings(job.group, [Mark(20 * MIB)], mail.send)
        await gauges.pressures(job.group, [Rule("low")], mail.send)

    trio.run(main)
    assert mail == []
    assert open_files() == before


def test_cancelled_it_leaves_no_descriptor(bench, hog):
    job = bench(200 * MIB, hog, "touch", "1")
    before = open_files()

    async def main():
        with trio.move_on_after(3):  # long enough for the clocks to have been opened
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gauges.crossings, job.group, [Mark(20 * MIB), Mark(30 * MIB, 1.0)], print)
                if can_tell(job):
                    nursery.start_soon(gauges.pressures, job.group, [Rule("low"), Rule("critical")], print)

    trio.run(main)
    assert open_files() == before


def can_tell(job):
    try:
        gauge.pressure(job.group.path, job.group.version, "low").close()
    except MemrunError as e:
        assert e.remedy
        return False
    return True


def test_pressure(bench, hog, request):
    """v1: files five times the limit, again and again, so that reclaim is going on. v2: slowed down by the kernel, which is waiting for
    memory."""
    words = "echo ready; read go; unset HOG_GATE; "
    if detect.look().version == "v1":
        words += f"while :; do {hog} file {request.getfixturevalue('disk')}/big 100; done"
        job = bench(20 * MIB, "sh", "-c", words)
    else:
        job = bench(100 * MIB, "sh", "-c", f"{words}exec {hog} touch 60")
        with open(f"{job.group.path}/memory.high", "w", encoding="ascii") as high:
            high.write(str(10 * MIB))
    if not can_tell(job):
        pytest.skip("this kernel has no PSI")
    mail = Mail()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gauges.pressures, job.group, [Rule("low")], mail.send)
            await job.said("ready")
            await trio.sleep(0.2)
            assert mail == []
            job.go()
            with trio.fail_after(30):
                while len(mail) < 2:
                    await mail.came.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert all(event.index == 0 for event in mail)
    assert mail[1].at - mail[0].at >= gauges.PRESSED_EVERY
    job.group.kill()


@pytest.mark.parametrize("level", ["low", "medium", "critical"])
def test_every_level_can_be_asked_for(bench, hog, level):
    job = bench(200 * MIB, hog, "touch", "1")
    if not can_tell(job):
        pytest.skip("this kernel has no PSI")
    for mode in ("default", "hierarchy"):
        gauge.pressure(job.group.path, job.group.version, level, mode).close()


def test_what_cannot_be_heard_is_an_error(bench, hog):
    job = bench(200 * MIB, hog, "touch", "1")
    with pytest.raises(UsageError):
        gauge.pressure(job.group.path, job.group.version, "extreme")
    if job.group.version == "v2":
        with pytest.raises(MemrunError, match="cgroup v2"):
            gauge.pressure(job.group.path, "v2", "low", "local")
    with pytest.raises(GroupError):
        gauge.pressure(job.group.path + "/none", job.group.version, "low")


@pytest.mark.v1
def test_v1_lines(bench, hog):
    """Plain bytes, both ways; memory and swap together have lines of their own; a level may be local."""
    job = bench(200 * MIB, hog, "step", "30720", "100000", "2")
    ears = [gauge.usage_line(job.group.path, 20 * MIB)]
    if os.path.exists(f"{job.group.path}/memory.memsw.usage_in_bytes"):
        ears.append(gauge.usage_line(job.group.path, 20 * MIB, swap=True))
    gauge.pressure(job.group.path, "v1", "low", "local").close()
    trio.run(job.said, "ready")
    assert [ear.take() for ear in ears] == [0] * len(ears)
    job.go()
    trio.run(job.said, "step 1")
    assert [ear.take() for ear in ears] == [1] * len(ears)
    job.kill()
    assert [bool(select.select([ear.fd], [], [], SOON)[0]) for ear in ears] == [True] * len(ears)
    for ear in ears:
        ear.close()
