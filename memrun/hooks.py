"""Commands of the user's that memrun runs when something happens: outside of the job's group, bounded in time, waited for by nobody."""

from __future__ import annotations

import os

import trio

from memrun import launch, signals

LONGEST = 60.0  # seconds


async def run(command: str, environ: dict[str, str]) -> None:
    """`sh -c COMMAND`, its output on memrun's stderr; killed with its process group when its time is up."""
    child = _start(command, environ)
    try:
        with trio.move_on_after(LONGEST):
            await trio.lowlevel.wait_readable(child.pidfd)
    finally:
        _end(child)


def _start(command: str, environ: dict[str, str]) -> launch.Child:
    order = launch.Order(["/bin/sh", "-c", command], {**os.environ, **environ})
    order.own_group = True
    order.stdout = 2
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        order.stdin = null
        return launch.launch(order)
    finally:
        os.close(null)


def _end(child: launch.Child) -> None:
    if child.reap() is None:
        os.killpg(child.pid, signals.KILL)
        os.waitpid(child.pid, 0)
    child.close()
