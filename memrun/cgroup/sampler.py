"""In place of a kernel's limit: a process of its own that looks at a job's memory again and again, and acts when it is too much.

It is forked from memrun before the job is launched, so that nobody is unwatched while memrun imports an event loop, and so that reading
a gigabyte's page tables (smaps_rollup: some ms) keeps nobody else waiting. It stops or kills by itself, as the kernel would, and
rings a bell afterwards. When memrun dies, or the outer process that it is known by, it kills all that it knows, and goes.

How often it looks: the job cannot be at its limit sooner than distance / speed. Speed is taken as 2 GiB/s, or twice what the job
was just seen to do. Between 5 ms and a second; no more than a tenth of a processor (nine times as long as the look took; half of one while it grows); and a
job that stands still close to its limit is looked at 20 times a second. So a job passes its limit by what it takes in one such pause, and in the time that
the machine lets the sampler wait. Measured on two busy CPUs (load 6), 15 runs each, medians and worst: at 50 MiB a program that
takes 200 MB/s 1.5 and 50 MiB, one that touches page by page 3 and 25; at 300 MiB 39 and 77, one `memset` 45 and 128.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from memrun import kin, signals
from memrun.cgroup.members import send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from memrun.cgroup.board import Board
    from memrun.cgroup.members import Members

MIB = 1 << 20
SHORTEST, STILL, LONGEST = 0.005, 0.05, 1.0  # seconds between looks; STILL: near the limit, without growing
SPEED = 2048 * MIB  # bytes a second: what one thread can touch
SHARE = 9  # pauses are at least so many times as long as looks
LAST = 200  # rounds of killing when memrun is dead
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Channels:
    """What joins the two. `door`: who writes '0' into it is in; `bell` wakes the sampler; `news` and `beat` memrun; a `lifeline`
    is at its end when that process is dead."""

    __slots__ = ("beat", "bell", "counter", "door", "lifelines", "news")

    def __init__(self, lifelines: Iterable[int]) -> None:
        self.door, self.counter = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.counter.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.bell, self.news, self.beat = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(3))
        self.lifelines = tuple(lifelines)

    def kept(self) -> set[int]:
        """What the sampler needs."""
        return {self.counter.fileno(), self.bell, self.news, self.beat, *self.lifelines}

    def close(self) -> None:
        self.door.close()
        self.counter.close()
        for fd in (self.bell, self.news, self.beat):
            os.close(fd)


class Pace:
    """How long until the next look. Figures come in, seconds go out."""

    __slots__ = ("ease", "time", "usage")

    def __init__(self) -> None:
        self.time, self.usage, self.ease = 0.0, 0, SHORTEST

    def next(self, began: float, took: float, usage: int, allowed: int | None) -> float:
        """`began`, `took`: the look that found `usage`."""
        passed, grown = began - self.time, usage - self.usage
        self.time, self.usage = began, usage
        if allowed is None:
            return LONGEST
        speed = max(SPEED, int(2 * grown / passed)) if passed > 0 else SPEED
        wanted = min(max((allowed - usage) / speed, SHORTEST), LONGEST)
        self.ease = wanted if grown > 0 else max(wanted, min(self.ease * 1.5, STILL))
        return max(self.ease, took * (1 if grown > 0 else SHARE))


class Sampler:
    """The process's own side."""

    def __init__(self, board: Board, members: Members, channels: Channels) -> None:
        self.board, self.members, self.channels = board, members, channels
        self.pace = Pace()
        self.poll = select.poll()
        for fd in (channels.counter.fileno(), channels.bell, *channels.lifelines):
            self.poll.register(fd, select.POLLIN)
        self.ends: dict[int, int] = {}  # pid -> pidfd, of those whose end is news
        self.looked = 0.0

    def work(self) -> None:
        """Until memrun has no more use for it."""
        wait = LONGEST
        while not self.board["quit"]:
            ready = {fd for fd, _ in self.poll.poll(wait * 1000)}
            if ready & set(self.channels.lifelines):
                self.end()
                return
            if self.channels.bell in ready:
                os.eventfd_read(self.channels.bell)
            elif self.channels.counter.fileno() not in ready:  # ends come in storms: one look for many
                time.sleep(max(0.0, min(wait, SHORTEST) - (time.monotonic() - self.looked)))
            self.admit()
            wait = self.look()

    def admit(self) -> None:
        """Take in who has come through the door: noted first, and taken from the door then, so that memrun never sees it in between."""
        counter = self.channels.counter
        space = socket.CMSG_SPACE(CREDENTIALS.size)
        while pid := _knock(counter, space, socket.MSG_PEEK):
            one = kin.read(pid)
            if one is not None:
                self.board.admit(pid, one.born)
                self.watch([pid])
            _knock(counter, space, 0)

    def watch(self, pids: Iterable[int]) -> None:
        """Their ends are news."""
        for pid in pids:
            if pid not in self.ends:
                try:
                    self.ends[pid] = os.pidfd_open(pid)
                except OSError:
                    continue
                self.poll.register(self.ends[pid], select.POLLIN)

    def forget(self, pids: Iterable[int]) -> None:
        for pid in list(self.ends):
            if pid not in pids:
                self.poll.unregister(self.ends[pid])
                os.close(self.ends.pop(pid))

    def look(self) -> float:
        """One sample, and what is to be done about it. Seconds until the next."""
        board, began, turn = self.board, time.monotonic(), self.board["turn"]
        self.looked = began
        found = self.members.look(thrifty=True)
        self.forget(found)
        if found and not board.roots().keys() & set(found):
            self.watch(found)  # the command is gone, its children are not: whose end is the last one's nobody knows
        read = time.monotonic()
        sizes = self.members.memory(found)
        took = time.monotonic() - read
        usage, allowed = sum(sizes.values()), board.allowed
        board["usage"] = usage
        board["peak"] = max(board["peak"], usage)
        if board.still:
            self.stop()
        elif allowed is not None and usage > allowed and turn == board["turn"]:
            self.react(sizes, turn)
        if board["live"] != bool(found):
            board["live"] = int(bool(found))
            os.eventfd_write(self.channels.news, 1)
        os.eventfd_write(self.channels.beat, 1)
        wait = self.pace.next(began, took, usage, allowed)
        return LONGEST if board.still else wait

    def react(self, sizes: dict[int, int], turn: int) -> None:
        """It has more than its limit."""
        board = self.board
        largest = max(sizes, key=sizes.__getitem__)
        board["big_pid"], board["big_size"], board.big_name = largest, sizes[largest], kin.slurp(largest, "comm").strip()
        board["own"] += 1
        if board["hold"]:
            board.hold(turn)
            self.stop()
        elif board["together"]:
            board["kills"] += len(sizes)  # counted first: memrun may have reaped them before we are back
            self.members.kill()
        else:
            board["kills"] += 1
            send(largest, signals.KILL)
        os.eventfd_write(self.channels.news, 1)

    def stop(self) -> None:
        """Stop them all; if memrun has let them go on meanwhile, that stands."""
        self.members.stop()
        if not self.board.still:
            self.members.go_on()

    def end(self) -> None:
        """memrun is dead: nobody is left, as far as they are known."""
        self.admit()
        for _ in range(LAST):
            self.members.find_strays()
            if not self.members.kill():
                return
            time.sleep(SHORTEST)


def _knock(counter: socket.socket, space: int, flags: int) -> int:
    """The pid of whoever has written '0'; 0 when nobody has."""
    try:
        _, extra, _, _ = counter.recvmsg(8, space, flags | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    return next((int(CREDENTIALS.unpack(data)[0]) for _, kind, data in extra if kind == socket.SCM_CREDENTIALS), 0)


def spread(board: Board, members: Members, channels: Channels) -> int:
    """Fork it; returns its pid. In the child this never returns and never raises."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # no terminal's signal reaches it
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nowhere, fd)
        kept = channels.kept()
        for word in os.listdir("/proc/self/fd"):
            if int(word) > 2 and int(word) not in kept:
                try:
                    os.close(int(word))
                except OSError:
                    continue
        with open("/proc/self/comm", "wb", buffering=0) as f:
            f.write(b"sampler")  # a pkill for memrun is to leave it, so that it can clean up
        Sampler(board, members, channels).work()
    finally:
        os._exit(0)
