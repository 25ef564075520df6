"""Why `memrun up` is three processes: so that a SIGKILL of those that somebody can name loses no finished work.

A job that has exited with 0 in the very moment in which its supervisor is killed has done its work, and nobody knows: its status went to
init. Recorded later it can never be. So the process that was started, whose pid the shell, the ledger and `ps` name, only waits (the
keeper), and a descendant supervises. When the keeper is killed, the end of a pipe tells the supervisor, which is alive and well: it ends
the jobs, reaps every one of them, records those that had succeeded, and lets go of the ledger, for which whoever starts `up` again waits meanwhile.

Between the two stands the heir, in a process group of its own and under another name, so that neither `killpg`, nor `killall memrun`, nor
`pkill -f 'memrun up'` hits it: the parent of the supervisor, and a "subreaper", to whom the jobs come when that is killed. It reaps them while
the dead man's hand ends them, and records who had succeeded (will.py: what the supervisor knew and had not written down yet). It
sleeps until then. Whoever kills all three and the hand has jobs that run on unwatched, and no memrun can help that.

The keeper forwards the signals that it hears, but those of the terminal, which go to the supervisor anyway. Each of both costs 3 MB of its own:
all else is shared.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from memrun import errors, signals
from memrun.launch import call_itself

if TYPE_CHECKING:
    from collections.abc import Callable

SUBREAPER = 36  # prctl(2)
ENDING = 30  # seconds in which a supervisor without an heir ends its jobs
HEIR = b"memrun-heir: records what was done if memrun is killed"


def divide(inherit: Callable[[], None]) -> tuple[int, int]:
    """(descriptor, -1) in the process that is to do the work: readable when the one that is known is dead. (-1, exit status)
    in the one that is known, when the work is done. `inherit`: what the third does when the first of these was killed. Signals are
    blocked, and stay so."""
    theirs, ours = os.pipe()
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.close(told)
        worker = os.fork()
        if worker == 0:
            os.close(tell)
            return theirs, -1
        os.close(theirs)
        _stand_by(worker, tell, inherit)
    os.close(theirs)
    os.close(tell)
    worker = int.from_bytes(os.read(told, 4), "little")
    return -1, _Keeper(pid, worker, ours, told).wait()


class _Keeper:
    """What the process that is known does."""

    def __init__(self, heir: int, worker: int, alive: int, told: int) -> None:
        self._heir, self._alive, self._told = heir, alive, told
        try:
            self._worker = os.pidfd_open(worker) if worker else -1
        except OSError:
            self._worker = -1  # it is over already

    def wait(self) -> int:
        before = signals.block({signals.CHLD})
        try:
            while True:
                found, status = os.waitpid(self._heir, os.WNOHANG)
                if found:
                    return self._said(status)
                number, by_terminal = signals.wait({*signals.HEARD, signals.CHLD})
                if number != signals.CHLD and not by_terminal:
                    self._forward(number)
        finally:
            os.close(self._told)
            if self._worker >= 0:
                os.close(self._worker)
            signals.set_mask(before)

    def _forward(self, number: int) -> None:
        try:
            signals.send_pidfd(self._worker, number)
        except OSError:
            return  # it has ended

    def _said(self, status: int) -> int:
        died_of = int.from_bytes(os.read(self._told, 4), "little")
        os.close(self._alive)
        if not status and not died_of:
            return errors.SUCCESS
        if not status & 0x7F and not died_of:
            return status >> 8
        if not died_of:  # the heir was killed: the supervisor does what it does when we are
            select.select([self._worker], [], [], ENDING)
            raise errors.MemrunError("a part of memrun was killed, and its jobs were ended", "memrun up goes on with them")
        raise errors.MemrunError(
            f"the supervisor died of {signals.name(died_of)}, and its jobs were ended", "memrun up goes on with them"
        )


def _stand_by(worker: int, tell: int, inherit: Callable[[], None]) -> None:
    """What the heir does; never returns. `tell`: the worker's pid goes there, and what it died of."""
    status = errors.FAILED
    try:
        os.write(tell, worker.to_bytes(4, "little"))
        signals.block(signals.every())
        os.setpgid(0, 0)
        _take_in_orphans()
        _disguise()
        found = 0
        while found != worker:
            found, status = os.waitpid(-1, 0)  # orphans of jobs that have ended come by
        if status & 0x7F:
            inherit()
            os.write(tell, (status & 0x7F).to_bytes(4, "little"))
        status >>= 8
    finally:
        os._exit(status)


def _take_in_orphans() -> None:
    import ctypes  # nobody waits for us

    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)


def _disguise() -> None:
    """Another name and command line than memrun's, written over those that the kernel shows."""
    call_itself(HEIR.partition(b":")[0].decode())
    try:
        with open("/proc/self/stat", "rb", buffering=0) as f:
            start, end = map(int, f.read().rpartition(b")")[2].split()[45:47])
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            memory.write(HEIR[: end - start - 1].ljust(end - start, b"\0"))
    except OSError:
        return  # hardened kernels forbid it: then it is to be found by memrun's name
