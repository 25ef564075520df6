"""A batch while it runs, on stderr: a live view on a terminal, one line for each transition elsewhere.

Everything that memrun says goes to stderr, the table at the end too, as in GNU parallel and cargo: stdout belongs to the jobs, and what
programs want to read is in --report and --joblog. Whoever has something to say puts lines into a channel; they are taken from it
at once, whatever the terminal does, so that no sender ever waits. What a terminal that stands still (Ctrl-S) does not take
is kept up to BACKLOG, then dropped and counted.

The live view is the last lines of the screen, painted over in one write; lines are put above it and scroll away as usual. The cursor
stays visible and nothing of the terminal is set, so `kill -9` of memrun leaves a terminal that works. In the background
nothing is painted (lines still come), as the screen is another's then.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import TYPE_CHECKING

import trio

from memrun.units import format_size
from memrun.views.cells import is_live, width
from memrun.views.cells import plain as harmless
from memrun.views.outlet import Outlet

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.jobs import Outcome, Progress, Row

TICK = 0.5  # seconds between frames when nothing is said
SHORTEST = 0.25  # ... and when much is
LATE = 2.0  # seconds after which we were stopped (Ctrl-Z), and the screen is not what it was
BACKLOG = 4 << 20  # characters


async def show(
    progress: Callable[[], Progress], lines: trio.MemoryReceiveChannel[str], over: trio.Event, *, quiet: bool = False, fd: int = 2
) -> None:
    """The view that fits what `fd` is, until it is over and everything is said. `quiet`: no live view."""
    if is_live(fd) and not quiet:
        await live(progress, lines, over, fd=fd)
    else:
        await plain(lines, over, fd=fd)


async def plain(lines: trio.MemoryReceiveChannel[str], over: trio.Event, *, fd: int = 2) -> None:
    """One line each, as they come. Wakes up for nothing else."""
    outlet, said, end = Outlet(fd), Said(), "\r\n" if os.isatty(fd) else "\n"
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(said.listen, lines, over)
            while not said.ended or said.waiting:
                await said.stir.wait()
                said.stir = trio.Event()
                await outlet.write("".join(line + end for line in said.take()).encode(_encoding(), "replace"))
    finally:
        outlet.close()


async def live(progress: Callable[[], Progress], lines: trio.MemoryReceiveChannel[str], over: trio.Event, *, fd: int = 2) -> None:
    """Painted at most four times a second, until it is over and everything is said; then nothing of it is left on the screen."""
    screen, said = Screen(fd), Said()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(said.listen, lines, over)
            while not said.ended or said.waiting:
                await screen.paint(said.take(), progress())
                with trio.move_on_after(TICK):
                    await said.stir.wait()
                said.stir = trio.Event()
                with trio.move_on_after(SHORTEST):
                    await over.wait()
            await screen.paint(said.take(), None)
    finally:
        screen.close()


class Said:
    """What is to be said, taken from the channel without delay. `ended`: nothing more will come."""

    def __init__(self) -> None:
        self.stir = trio.Event()
        self.ended = False
        self._kept: deque[str] = deque()
        self._size = self._dropped = 0

    @property
    def waiting(self) -> bool:
        """Whether there is something to be said."""
        return bool(self._kept or self._dropped)

    async def listen(self, lines: trio.MemoryReceiveChannel[str], over: trio.Event) -> None:
        """Until it is over and the channel is empty."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, over, nursery.cancel_scope)
                async for text in lines:
                    self._keep(text)
            while True:
                self._keep(lines.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            self.ended = True
            self.stir.set()

    def _keep(self, text: str) -> None:
        if self._size > BACKLOG:
            self._dropped += 1
        else:
            self._kept.append(text)
            self._size += len(text)
        self.stir.set()

    def take(self) -> list[str]:
        """Everything, harmless, line by line."""
        found = [harmless(line.rstrip("\r")) for text in self._kept for line in text.removesuffix("\n").split("\n")]
        if self._dropped:
            found.append(f"memrun: {self._dropped} lines are missing here: nobody took them in time")
        self._kept.clear()
        self._size = self._dropped = 0
        return found


async def _cancel_after(over: trio.Event, scope: trio.CancelScope) -> None:
    await over.wait()
    scope.cancel()


def _encoding() -> str:
    return getattr(sys.stderr, "encoding", None) or "utf-8"


class Screen:
    """The last lines of a terminal, painted over and over."""

    def __init__(self, fd: int) -> None:
        from memrun.views.frame import Page, batch  # rich: 40 ms, and only a terminal has use for it

        self._fd, self._outlet = fd, Outlet(fd)
        self._page, self._frame = Page(_encoding()), batch
        self._shown: list[str] = []
        self._painted = trio.current_time()

    async def paint(self, lines: list[str], progress: Progress | None) -> None:
        """Lines above, the frame below; None: no frame any more."""
        columns, height = self._size()
        ours = self._in_front()
        if trio.current_time() - self._painted > LATE or not ours:
            self._shown = []  # it has scrolled away, or somebody else has written since
        frame = self._frame(self._page, progress, columns - 1, height - 1) if progress and ours else []
        if lines or frame != self._shown:
            # From here on only whole frames: one write each, so that nothing flickers.
            data = self._back(columns, height) + ("\x1b[J" if lines and ours else "")
            data += "".join(f"{line}\x1b[K\r\n" for line in lines) + "\r\n".join(f"{line}\x1b[K" for line in frame)
            self._shown = frame
            await self._outlet.write((data + ("\x1b[J" if ours else "")).encode(_encoding(), "replace"))
        self._painted = trio.current_time()

    def _size(self) -> tuple[int, int]:
        try:
            columns, height = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return max(columns or 80, 10), max(height or 24, 2)

    def _in_front(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # not our session's terminal
            return True

    def _back(self, columns: int, height: int) -> str:
        """To the first cell of what was painted. Terminals break long lines anew when they get narrower."""
        taken = sum(max(1, -(-width(_bare(line)) // columns)) for line in self._shown)
        up = min(taken, height) - 1
        return "\r" + (f"\x1b[{up}A" if up > 0 else "")

    def close(self) -> None:
        """Whatever happened: no half-painted screen, if the terminal takes that much."""
        if self._shown and self._in_front():
            self._outlet.last((self._back(*self._size()) + "\x1b[J").encode())
        self._outlet.close()


def _bare(line: str) -> str:
    """Without its colours."""
    return "".join(part if not number else part.partition("m")[2] for number, part in enumerate(line.split("\x1b[")))


def started(row: Row) -> str:
    """What the plain view says of a start."""
    again = f", attempt {row.attempt}" if row.attempt > 1 else ""
    return f"{row.name}: started with {format_size(row.limit)}{again}"


def ended(outcome: Outcome, done: int, total: int) -> str:
    """What the plain view says of an end, and how far the batch is. Figures, not a Progress: that reads the use of all that runs,
    which is too much for every end of thousands."""
    from memrun.batch.summary import sentence

    return f"{sentence(outcome)} [{done} of {total}]"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"


def stopping(progress: Progress) -> str:
    """What the plain view says of the first and the second Ctrl-C (or SIGTERM); '' before that."""
    alive = sum(row.state not in {"WAITING", "BACKOFF", "EXITED", "FATAL"} for row in progress.rows)
    if progress.ending == "killing":
        return f"killing what is left ({_jobs(alive)})"
    if progress.ending:
        return f"stopping: nothing new is started, {_jobs(alive)} asked to end; a second Ctrl-C kills them"
    return ""
