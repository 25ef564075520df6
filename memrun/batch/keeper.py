"""Why `memrun up` is two processes: so that a SIGKILL of the one that everybody knows loses no finished work.

A job that has exited with 0 in the very moment in which its supervisor is killed has done its work, and nobody knows: its status went to
init. Recorded later it can never be. So the process that was started, whose pid the shell, the ledger and `ps` name, only waits, and its
child supervises. When the first one is killed, the end of a pipe tells the second, which is alive and well: it ends the jobs, reaps
every one of them, records those that had succeeded, and lets go of the ledger, for which whoever starts `up` again waits meanwhile.
When it is the second that is killed, the dead man's hand does the same work, but for the records.

The first forwards the signals that it hears, but those of the terminal, which go to both anyway. It costs 3 MB of its own: all else is shared.
"""

from __future__ import annotations

import os

from memrun import errors, signals


def divide() -> tuple[int, int]:
    """(descriptor, -1) in the process that is to do the work: readable when the one that is known is dead. (-1, exit status)
    in the one that is known, when the work is done. Signals are blocked, and stay so."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        return theirs, -1
    os.close(theirs)
    try:
        return -1, _wait(pid)
    finally:
        os.close(ours)


def _wait(pid: int) -> int:
    before = signals.block({signals.CHLD})
    try:
        while True:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                return _said(status)
            number, by_terminal = signals.wait({*signals.HEARD, signals.CHLD})
            if number != signals.CHLD and not by_terminal:
                os.kill(pid, number)
    finally:
        signals.set_mask(before)


def _said(status: int) -> int:
    died_of = status & 0x7F
    if not died_of:
        return status >> 8
    raise errors.MemrunError(
        f"the supervisor died of {signals.name(died_of)}, and its jobs were ended", "memrun up goes on with them"
    )
