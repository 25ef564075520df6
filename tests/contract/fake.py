"""Memory groups without a kernel: the same promises (tests/contract holds them to it), in one dictionary.

Processes are real ones, so that whoever launches, watches and reaps may do so as ever: '0' written into a procs descriptor
comes with the writer's pid (SCM_CREDENTIALS), a pidfd tells of its end, SIGSTOP is the freezer. Memory is not: `charge` says
what a process would have taken, and the limit acts on that. What a process forks does not follow it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from typing import TYPE_CHECKING

from memrun.cgroup import Heard, Tally
from memrun.errors import GroupError, LimitError

if TYPE_CHECKING:
    from memrun import cgroup
    from memrun.cgroup import Order, Wish
    from memrun.cgroup.ears import Ear

PAGE = os.sysconf("SC_PAGESIZE")
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Host:
    """Where fake groups are made."""

    version = "fake"

    def __init__(self, above: int | None = None) -> None:
        self.above = above
        self.groups: dict[str, Group] = {}
        self.begun = False

    def places(self) -> tuple[str, ...]:
        return ("/fake/run",)

    def begin(self) -> None:
        self.begun = True

    def create(self, name: str, wish: Wish) -> Group:
        path = f"/fake/run/{name}"
        if "/" in name or name in {"", ".", ".."}:
            raise GroupError("make", path, 2)
        if path in self.groups:
            raise GroupError("make", path, 17)
        made = Group(self, path, wish)
        try:
            made.set_limit(wish.limit)
        except (GroupError, LimitError):
            made.close()
            raise
        self.groups[path] = made
        return made

    def enclosing(self) -> int | None:
        return self.above

    def spare(self) -> int | None:
        return None if self.above is None else self.above - sum(group.usage() for group in self.groups.values())

    def end(self) -> bool:
        if any(group.alive() for group in self.groups.values()):
            return False
        self.groups.clear()
        self.begun = False
        return True


class Group:
    """One fake group."""

    version = "fake"

    def __init__(self, host: Host, path: str, wish: Wish) -> None:
        self.path = path
        self.limit: int | None = None
        self.swap: int | None = 0
        self.wire: int | None = None
        self.charged: dict[int, int] = {}  # pid -> bytes
        self._host, self._wish = host, wish
        self._pidfds: dict[int, int] = {}
        self._door, self._counter = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._counter.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._counter.setblocking(False)
        self._news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._news, select.EPOLLIN)
        self._frozen = self._held = self._told = self._unasked = False
        self._order: Order | None = None
        self._wanted: dict[int, int] = {}  # pid -> bytes that it is held for
        self._peak = self._kills = self._own = self._hits = 0

    def procs_fds(self, *, alone=False) -> tuple[int, ...]:
        return (self._door.fileno(),)

    def set_limit(self, limit: int | None) -> int | None:
        if limit is not None and limit < 0:
            raise GroupError("write", f"{self.path}/limit", 22, str(limit))
        self.limit = None if limit is None else limit // PAGE * PAGE
        self._order = None
        if self._unasked:
            self._told = False
            self.thaw()
        return self.limit

    def charge(self, pid: int, size: int) -> bool:
        """A process takes that many bytes; what does not fit is an OOM kill, or holds the group. Whether it fitted."""
        self.alive()
        self.charged[pid] = self.charged.get(pid, 0) + size
        over = 0 if self.limit is None else max(0, self.usage() - self.limit)
        self.charged[pid] -= over
        self._peak = max(self._peak, self.usage())
        if over and self._wish.hold:
            self._wanted[pid] = over
            self._own += 1
            self.freeze()
            self.found_held()
        elif over:
            self._out_of_memory(pid)
        return not over

    def _out_of_memory(self, pid: int) -> None:
        self._hits += 1
        self._own += 1
        for victim in self.pids() if self._wish.oom_group else [pid]:
            self._kills += 1
            _send(victim, signal.SIGKILL)
        os.eventfd_write(self._news, 1)

    def usage(self) -> int:
        self.alive()
        return sum(self.charged.values())

    def need(self) -> int:
        return self.usage()

    def peak(self) -> int | None:
        return self._peak

    def tally(self) -> Tally:
        t = Tally()
        t.limit, t.usage, t.peak = self.limit, self.usage(), self._peak
        t.kills, t.own, t.hits = self._kills, self._own, self._hits
        t.anon, t.file, t.cpu = t.usage, 0, 0.0
        t.events = {"oom": self._own, "oom_kill": self._kills}
        return t

    def beats(self) -> int:
        return -1

    def notice_fd(self) -> int:
        self.alive()
        return self._epoll.fileno()

    def tell(self, ear: Ear) -> None:
        ear.register(self._epoll.fileno(), select.EPOLLIN)

    def hear(self) -> Heard:
        heard = Heard()
        with contextlib.suppress(BlockingIOError):  # other news than a kill
            os.eventfd_read(self._news)
        heard.populated = self.alive()
        order, before = self._order, self.limit
        if self._told and order is not None and before is not None and order.may():
            heard.raised, self._told = (before, self.set_limit(order.limit) or 0), False
            self.thaw()
        heard.at_limit, self._told = self._told, False
        heard.kills, heard.own, heard.frozen = self._kills, self._own, self._frozen
        return heard

    def swapped(self) -> int:
        return 0

    def can_freeze(self) -> bool:
        return True

    def freeze(self) -> bool:
        self._frozen, self._unasked = True, False
        for pid in self.pids():
            _send(pid, signal.SIGSTOP)
        return all(_stopped(pid) for pid in self.pids())

    def thaw(self) -> None:
        self._frozen = self._held = self._unasked = False
        for pid in self.pids():
            _send(pid, signal.SIGCONT)
        wanted, self._wanted = self._wanted, {}
        for pid, size in wanted.items():
            self.charge(pid, size)

    def lend(self) -> None:
        """Nothing is charged here that nobody says, so there is nothing to lend."""

    def reflex(self) -> bool:
        return self._held

    def reclaim(self, size: int | None) -> None:
        """There is no cache in here."""

    def tune(self, key: str, value: int | None) -> None:
        if key not in {"soft", "swap", "swappiness"}:
            raise LimitError(f"there is no {key}")

    def foresee(self, limits: tuple[int, ...]) -> None:
        """Nothing would hold up a raise."""

    def arm(self, order: Order | None) -> None:
        self._order = order

    def found_held(self) -> None:
        self._held = self._told = self._unasked = True
        os.eventfd_write(self._news, 1)

    def kill(self) -> None:
        for pid in self.pids():
            _send(pid, signal.SIGKILL)

    def pids(self) -> list[int]:
        self.alive()
        return sorted(self._pidfds)

    def alive(self) -> bool:
        """Take in who has entered and who has ended; whether anybody is left."""
        while pid := _knock(self._counter):
            try:
                self._pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue  # it is gone already
            self._epoll.register(self._pidfds[pid], select.EPOLLIN)
        for pid, pidfd in list(self._pidfds.items()):
            if select.select([pidfd], [], [], 0)[0]:
                os.close(self._pidfds.pop(pid))  # which takes it out of the epoll, too
                self.charged.pop(pid, None)
        return bool(self._pidfds)

    def remove(self) -> bool:
        if self.alive():
            return False
        self._host.groups.pop(self.path, None)
        return True

    def close(self) -> None:
        for pidfd in self._pidfds.values():
            os.close(pidfd)
        self._pidfds.clear()
        self._epoll.close()
        self._door.close()
        self._counter.close()
        if self._news >= 0:
            os.close(self._news)
            self._news = -1


def _knock(counter: socket.socket) -> int:
    """The pid of whoever has written '0'; 0 when nobody has."""
    if counter.fileno() < 0:
        return 0
    try:
        _, extra, _, _ = counter.recvmsg(8, socket.CMSG_SPACE(CREDENTIALS.size))
    except BlockingIOError:
        return 0
    return next((int(CREDENTIALS.unpack(data)[0]) for _, kind, data in extra if kind == socket.SCM_CREDENTIALS), 0)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rpartition(b")")[2].split()[0] in {b"T", b"Z", b"X"}
    except OSError:
        return True


if TYPE_CHECKING:
    as_promised: cgroup.Host = Host()  # mypy holds it to the Protocols
