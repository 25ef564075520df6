"""--best-effort: where no memory group is to be had, the same interface over a process that samples (sampler.py).

What is promised is less than a kernel's limit: a job is stopped or killed when a look has found it above, not before. What counts
is anonymous and shared memory and swap, each process's share of it (PSS; where that may not be read, or the kernel has none, all that is resident);
neither page cache nor what the kernel holds on its behalf. What cannot be done here is refused, never ignored.

Holding is SIGSTOP to everybody, so a job that stops children of its own finds them woken by a resume; and a process that has become another
user's (setuid) is out of reach, unless memrun is root.
"""

from __future__ import annotations

import errno
import os
import select
import time

from memrun.cgroup import Heard, Tally, grace
from memrun.cgroup.board import NONE, Board
from memrun.cgroup.members import Members
from memrun.cgroup.sampler import Channels, spread
from memrun.errors import GroupError, LimitError, MemrunError
from memrun.units import whole_pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Order, Wish
    from memrun.cgroup.ears import Ear

ADMITTED_WITHIN = 10.0  # seconds: a sampler that takes longer for that is none
REMEDY = "--best-effort has none; memrun doctor says how to get one"


class Host:
    """No directory at all. `adopter`: the process that the job's orphans come to, ours; `lifeline`: a descriptor that is at its end when
    that is dead."""

    version = "sampled"

    def __init__(self, adopter: int = 0, lifeline: int = -1, mark: str = "") -> None:
        """`mark`: a variable in the environment of all that is started, by which strays are known."""
        self.way = "no memory group: it is watched"
        self.adopter, self.lifeline, self.mark = adopter, lifeline, mark
        self.groups: dict[str, Group] = {}

    def places(self) -> tuple[str, ...]:
        return ()

    def begin(self) -> None:
        """There is nothing to be made."""

    def create(self, name: str, wish: Wish) -> Group:
        path = f"sampled/{name}"
        if "/" in name or name in {"", ".", ".."}:
            raise GroupError("make", path, errno.EINVAL)
        if name in self.groups:
            raise GroupError("make", path, errno.EEXIST)
        for word, value in (("--soft", wish.soft), ("--swap", wish.swap)):
            if value:
                raise LimitError(f"{word} takes a memory group", REMEDY)
        self.groups[name] = made = Group(self, name, wish)
        return made

    def enclosing(self) -> int | None:
        return None

    def spare(self) -> int | None:
        return None

    def end(self) -> bool:
        return all(group.remove() for group in list(self.groups.values()))


class Group:
    """One job's processes, and the sampler that looks at them."""

    version = "sampled"
    wire: int | None = None
    swap: int | None = 0

    def __init__(self, host: Host, name: str, wish: Wish) -> None:
        self.path = f"sampled/{name}"
        self._host, self._name = host, name
        self.limit = _whole_pages(wish.limit, self.path)
        theirs, self._alive = os.pipe()
        self._board = Board()
        board = self._board
        board["limit"] = NONE if self.limit is None else self.limit
        board["hold"], board["together"] = int(wish.hold), int(wish.oom_group)
        self._members = Members(board, host.adopter, os.getpid(), host.mark)
        self._channels = Channels(fd for fd in (theirs, host.lifeline) if fd >= 0)
        self._told = 0
        try:
            self._sampler = spread(board, self._members, self._channels)
        finally:
            os.close(theirs)
        self._end = os.pidfd_open(self._sampler)
        self._epoll = select.epoll()
        self._epoll.register(self._channels.news, select.EPOLLIN)
        self._epoll.register(self._end, select.EPOLLIN)

    def procs_fds(self, *, alone: bool = False) -> tuple[int, ...]:  # noqa: ARG002  (there is no group)
        return (self._channels.door.fileno(),)

    def birthplace(self) -> int:
        return -1

    def shut(self) -> None:
        """The door stays: one descriptor of a job that has no other file open costs nothing, and its end would wake the sampler for ever."""

    def set_limit(self, limit: int | None) -> int | None:
        self.limit = _whole_pages(limit, self.path)
        self._board["limit"] = NONE if self.limit is None else self.limit
        self._board["extra"] = 0
        held = self._board.held
        self._anew()
        if held and not self._board["frozen"]:
            self._members.go_on()
        return self.limit

    def _anew(self) -> None:
        """What the sampler has in mind is out of date: it is to look again."""
        self._board["turn"] += 1
        os.eventfd_write(self._channels.bell, 1)

    def usage(self) -> int:
        self._settle()
        usage = sum(self._members.memory(self._members.look(thrifty=True)).values())
        self._board["peak"] = max(self._board["peak"], usage)
        return usage

    def swapped(self) -> int:
        return 0  # it is in the use already

    def need(self) -> int:
        return self.usage()

    def peak(self) -> int | None:
        return self._board["peak"]

    def tally(self) -> Tally:
        t, board = Tally(), self._board
        t.limit, t.usage, t.peak = self.limit, self.usage(), board["peak"]
        t.kills, t.own, t.hits = board["kills"], board["own"], board["own"]
        if board["big_pid"]:
            t.largest = [(board["big_pid"], board.big_name, board["big_size"])]
        return t

    def notice_fd(self) -> int:
        return self._epoll.fileno()

    def tell(self, ear: Ear) -> None:
        ear.register(self._epoll.fileno(), select.EPOLLIN)

    def hear(self) -> Heard:
        _drain(self._channels.news)
        self._check()
        heard, board = Heard(), self._board
        heard.kills, heard.own = board["kills"], board["own"]
        before, self._told = self._told, board["holds"]
        heard.at_limit = self._told != before and board.held
        heard.populated, heard.frozen = bool(self.pids()), board.still
        return heard

    def _check(self) -> None:
        """Whether anybody samples."""
        if os.waitid(os.P_PIDFD, self._end, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            raise MemrunError("the process that watches the job's memory is gone: the job was ended")

    def can_freeze(self) -> bool:
        return True

    def freeze(self) -> bool:
        self._board["extra"] = 0
        self._board["frozen"] = 1
        self._anew()
        self.pids()
        return self._members.stop()

    def thaw(self) -> None:
        board = self._board
        board["frozen"] = 0
        self._anew()
        self._members.go_on()

    def lend(self) -> None:
        if self.limit is not None:
            self._board["extra"] = grace(self.limit)
            self._anew()

    def reflex(self) -> bool:
        board = self._board
        if not board["hold"] or board.held or board["extra"]:
            return board.held
        allowed = board.allowed
        if allowed is not None and board["usage"] > allowed and self.usage() > allowed:
            self.found_held()
            self._members.stop()
        return board.held

    def reclaim(self, size: int | None) -> None:  # noqa: ARG002
        raise LimitError("to reclaim takes a memory group", REMEDY)

    def tune(self, key: str, value: int | None) -> None:  # noqa: ARG002
        raise LimitError(f"{key} takes a memory group", REMEDY)

    def foresee(self, limits: tuple[int, ...]) -> None:
        """Nothing would hold up a raise."""

    def arm(self, order: Order | None) -> None:
        """Whoever samples has stopped it already."""

    def found_held(self) -> None:
        self._board.hold(self._board["turn"])
        os.eventfd_write(self._channels.news, 1)

    def kill(self) -> None:
        if self._end >= 0:
            self.pids()
            self._members.kill()

    def pids(self) -> list[int]:
        self._settle()
        return sorted(self._members.look())

    def _settle(self) -> None:
        """Who has entered is known to the sampler, or will be within a moment."""
        if self._end < 0:
            raise GroupError("look at", self.path, errno.EBADF)
        deadline = time.monotonic() + ADMITTED_WITHIN
        poll = select.poll()
        poll.register(self._channels.counter.fileno(), select.POLLIN)
        while poll.poll(0) and time.monotonic() < deadline:
            self._check()
            time.sleep(0.0002)

    def remove(self) -> bool:
        if self._end >= 0 and self.pids():
            return False
        self._host.groups.pop(self._name, None)
        return True

    def beats(self) -> int:
        return self._channels.beat

    def close(self) -> None:
        if self._end < 0:
            return
        self._board["quit"] = 1
        os.eventfd_write(self._channels.bell, 1)
        os.waitpid(self._sampler, 0)
        self._epoll.close()
        self._channels.close()
        for fd in (self._end, self._alive):
            os.close(fd)
        self._end = -1


def _whole_pages(limit: int | None, path: str) -> int | None:
    if limit is not None and limit < 0:
        raise GroupError("limit", path, errno.EINVAL, str(limit))
    return None if limit is None else whole_pages(limit)


def _drain(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


if TYPE_CHECKING:
    from memrun import cgroup

    as_promised: cgroup.Host = Host()
