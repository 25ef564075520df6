"""What a supervisor would have written down next, kept where it outlives a SIGKILL: in a file in memory, which its heir has, too.

From a job's exit to the commit that tells of it there are milliseconds: the reap, the counters, the end of the group. So each process of a batch notes
down before it acts (a write of some bytes, into a file that no disk is behind): the child, that it is about to become a job; the supervisor,
that a job has exited with 0, *before* it reaps it; and that it has asked one to end, for then an exit with 0 is no proof of anything.

    + PID ATTEMPT DIGEST NAME   it is about to become this job's attempt
    = PID                       it has exited with 0
    x PID                       it has ended otherwise
    ! PID                       it was asked to end
    - NAME                      it was judged otherwise than by its exit
    h PID                       the dead man's hand
    p DIRECTORY                 what it is spread over

Services, and jobs that are over only when what they left behind is (wait_all), are not in it: their exit is no success.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from memrun import hand
from memrun.errors import LaunchError
from memrun.job import iso
from memrun.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from memrun.batch.ledger import Ledger

WHY = "memrun was killed when it had ended: that it succeeded is all that is known"
Done = tuple[int, str]  # attempt, digest


class Will:
    """The file. Inherited by all that memrun forks; gone with the last of them."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("memrun-will", os.MFD_CLOEXEC)

    def note(self, line: str) -> None:
        """One line."""
        os.write(self.fd, f"{line}\n".encode())

    def words(self, attempt: int, digest: str, name: str) -> bytes:
        """What a child says of itself behind its pid."""
        return f"{attempt} {digest or '-'} {name}".encode("unicode_escape")

    def read(self) -> Opened:
        """All of it, as it is now."""
        return Opened(os.pread(self.fd, os.fstat(self.fd).st_size, 0).decode())


class Opened:
    """`done`: what had succeeded; `hand`: a pid, 0 where there is none; `places`: the directories that it ends what is in."""

    def __init__(self, text: str) -> None:
        self.done: dict[str, Done] = {}
        self.hand = 0
        self.places: list[str] = []
        self._live: dict[int, tuple[str, Done]] = {}
        self._asked: set[int] = set()
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            self._take(word, rest)

    def _take(self, word: str, rest: str) -> None:
        match word:
            case "+":
                pid, attempt, digest, name = rest.split(" ", 3)
                name = name.encode().decode("unicode_escape")
                self._live[int(pid)] = name, (int(attempt), digest)
                self._asked.discard(int(pid))
                self.done.pop(name, None)
            case "-":
                self.done.pop(rest.encode().decode("unicode_escape"), None)
            case "!":
                self._asked.add(int(rest))
            case "h":
                self.hand = int(rest)
            case "p":
                self.places.append(rest.encode().decode("unicode_escape"))
            case _:
                self.ended(int(rest), ok=word == "=")

    def ended(self, pid: int, *, ok: bool) -> None:
        """One process has."""
        name, done = self._live.pop(pid, ("", (0, "")))
        if name and ok and pid not in self._asked:
            self.done[name] = done


def execute(opened: Opened, book: Ledger, commands: Mapping[str, list[str]]) -> None:
    """Reap who was left to us, and write down what had succeeded and is not in the ledger. `commands`: of the jobs, where known."""
    for pid, status in _orphans(opened.hand):
        opened.ended(pid, ok=not status)
    if any(map(os.path.isdir, opened.places)):  # the hand has been killed, too
        for pid, status in _orphans(_another_hand(opened.places)):
            opened.ended(pid, ok=not status)
    known = book.known()
    for name, (attempt, digest) in opened.done.items():
        if name not in known or known[name].state != "ended":
            record = Record(name, commands.get(name, []))
            record.result, record.exit_code, record.status, record.note = "success", 0, 0, WHY
            record.ended = iso(time.time())
            book.launched(name, digest, attempt)
            book.ended(name, "success", WHY, record.as_dict())
    book.commit(durably=True)


def _another_hand(places: list[str]) -> int:
    """Its pid, at work already; 0 where no process is to be had."""
    try:
        another = hand.spread(tuple(places))
    except LaunchError:
        return 0
    another.let_go()
    return another.pid


def _orphans(hand: int) -> Iterator[tuple[int, int]]:
    """(pid, status) of each, until the hand has ended them all; what it could not end is not waited for."""
    wait = bool(hand)
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        wait = wait and pid != hand
        yield pid, status
