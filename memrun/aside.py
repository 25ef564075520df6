"""Do one thing in a short-lived child process, and wait for it without holding up the event loop.

For the few control-file writes that take their time: lowering a limit and reclaiming make the *writer* do the reclaim, for seconds
(measured 2.6 s for 300 -> 50 MB with swap). A thread could do it; a process keeps fork safe, and can be killed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from memrun import signals
from memrun.errors import GroupError

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 30.0  # seconds
GAVE_UP = 110  # errno ETIMEDOUT


async def aside(act: Callable[[], object], longest: float = LONGEST) -> int:
    """Run `act` in a forked copy; 0, or the errno of the GroupError that it ended with (ETIMEDOUT: it was ended)."""
    pid = os.fork()
    if pid == 0:
        _act(act)
    pidfd = os.pidfd_open(pid)
    status = GAVE_UP << 8
    try:
        with trio.move_on_after(longest):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
        status = _reap(pid, status)
    return status >> 8 if status & 0x7F == 0 else GAVE_UP


def _reap(pid: int, otherwise: int) -> int:
    found, status = os.waitpid(pid, os.WNOHANG)
    if found:
        return status
    os.kill(pid, signals.KILL)
    os.waitpid(pid, 0)
    return otherwise


def _act(act: Callable[[], object]) -> None:
    status = 1
    try:
        act()
        status = 0
    except GroupError as e:
        status = min(255, e.errno)
    finally:
        os._exit(status)
