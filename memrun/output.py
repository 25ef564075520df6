"""Where the output of a batch's jobs goes: log files that are rotated, or lines on the terminal with the job's name before them.

What a job writes to is a pipe, and memrun copies from there (`Sink.pump`, one task per pipe; nothing wakes up while nothing is
written). So a full disk, a deleted file or a rotation is never the job's affair: it is not blocked, gets no error, and no SIGPIPE
while memrun lives. What cannot be written is dropped, counted, and said in the file, once, when there is room again.

A file that is never rotated needs none of this: it is handed to the job itself, as a shell's `>>` would do it, at no cost and
without a bound on speed. A full disk is then the job's affair, and a deleted file stays deleted.

What the kernel makes of it, and was decided for:
 - A full pipe blocks the job. It has 1 MiB where that is allowed, so that a memrun which is busy for some milliseconds is not felt.
   Pages in a pipe are charged to the group of the job that wrote them until they are read: `pipe` is there for jobs with
   small limits. Users other than root get a quarter: 64 MiB in the pipes of one user, and all their new ones are of two pages.
 - Writing into a regular file cannot be waited for with epoll, and there are no threads here: where the kernel makes writers wait
   (more dirty pages than it likes, a dead NFS server), memrun waits. Local disks: milliseconds.
 - A process that has left the group may keep the pipe open for ever. So an end is never waited for: when the group is empty, all that
   was written is in the pipe; the pump is cancelled and `drain` takes what is there.
"""

from __future__ import annotations

import fcntl
import os
import re
from typing import TYPE_CHECKING, Protocol

import trio

from memrun import logfile
from memrun.errors import MemrunError
from memrun.report import clean

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memrun.identity import Identity

PIPE = 1 << 20  # bytes
CHUNK = 1 << 16  # bytes that are copied between two looks at everything else
LONGEST = 1 << 16  # bytes of a line on the terminal
COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")


class Target(Protocol):
    """Takes what a job writes. Never raises, never waits."""

    def take(self, data: bytes) -> None: ...
    def close(self) -> str: ...


class Sink:
    """Where one stream of a job goes. `fd` is for the child (after the fork: `handed`); `target` None: it is the file itself."""

    __slots__ = ("_read", "fd", "target")

    def __init__(self, target: Target | None, fd: int = -1, pipe: int = PIPE) -> None:
        self.target, self.fd, self._read = target, fd, -1
        if target is not None:
            self._read, self.fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._read, False)  # our end only: the job's is a pipe like any other
            _enlarge(self._read, pipe)

    @classmethod
    def over(cls, pipe: int, target: Target) -> Sink:
        """From a pipe that is there already; both are let go of by who brought them."""
        made = cls(None)
        made.target, made._read = target, pipe
        return made

    def handed(self) -> None:
        """The child has its end: ours is closed, so that the pipe has an end when nobody writes any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def pump(self, ready: Callable[[], Awaitable[object]] | None = None) -> None:
        """Copy until nobody can write any more, or cancelled. `ready` is awaited before each piece, where the lines go to something
        that may stop for long (a terminal after Ctrl-S): the job stops with it then, as it would without memrun."""
        while self.target is not None:
            if ready is not None:
                await ready()
            await trio.lowlevel.wait_readable(self._read)
            await trio.lowlevel.checkpoint_if_cancelled()  # woken and cancelled at once: it is closed by now
            if not self._copy(CHUNK):
                return

    def drain(self) -> None:
        """What is there now, without waiting: a pipeful at most, for there may be somebody who goes on writing."""
        if self.target is None:
            return
        for _ in range(-(-fcntl.fcntl(self._read, fcntl.F_GETPIPE_SZ) // CHUNK)):
            try:
                if not self._copy(CHUNK):
                    return
            except BlockingIOError:
                return

    def close(self) -> str:
        """After the pump has ended, and the last `drain`. What is missing of it; '' if nothing is."""
        missing = ""
        self.handed()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1
        if self.target is not None:
            missing = self.target.close()
            self.target = None
        return missing

    def _copy(self, most: int) -> bool:
        """Whether there can be more."""
        data = os.read(self._read, most)
        if data and self.target is not None:
            self.target.take(data)
        return bool(data)


def open_sink(path: str, most: int | None, keep: int, pipe: int = PIPE, who: Identity | None = None) -> Sink:
    """A log file, opened now: MemrunError where that cannot be. `most`: bytes of it, and of each of the `keep` older ones
    (`path`.1 is the youngest); None: the file itself is what the job writes to. `who`: whom the job runs as, and whose the files are to be."""
    if most is None:
        return Sink(None, logfile.plain(path, who))
    return _behind(logfile.Rotated(path, most, keep, who), pipe)


def prefixed(name: str, write: Callable[[bytes], object], width: int = 0, pipe: int = PIPE) -> Sink:
    """Lines for people, through `write`; the name in a column of `width`."""
    return _behind(Prefixer(name, write, width), pipe)


def _behind(target: Target, pipe: int) -> Sink:
    try:
        return Sink(target, pipe=pipe)
    except OSError as e:
        target.close()
        raise MemrunError(
            f"cannot make a pipe for a job's output: {e.strerror}", "Raise the limit on open files (ulimit -n)"
        ) from None


def _enlarge(fd: int, size: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size if os.geteuid() == 0 else size // 4)
    except OSError:
        return  # it has the 64 KiB, or the page, that the kernel gives everybody


class Prefixer:
    """`name | line`, for whole lines only; what a terminal would obey is made harmless.

    Colours are taken out, of what was written over with carriage returns the last stays (a progress bar), anything else that does not print
    becomes `?`. A line of more than 64 KiB is shown in pieces. Each call of `write` gets whole lines.
    """

    __slots__ = ("_before", "_rest", "_write")

    def __init__(self, name: str, write: Callable[[bytes], object], width: int = 0) -> None:
        self._before, self._write, self._rest = f"{clean(name).ljust(width)} | ", write, b""

    def take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        lines = [piece for line in lines for piece in _pieces(line)]
        if len(rest) > LONGEST:
            *more, rest = _pieces(rest)
            lines += more
        self._rest = rest
        self._show(lines)

    def close(self) -> str:
        """The last line may have no end."""
        rest, self._rest = self._rest, b""
        self._show([rest] if rest else [])
        return ""

    def _show(self, lines: list[bytes]) -> None:
        if not lines:
            return
        text = "".join([f"{self._before}{harmless(line)}\n" for line in lines])
        try:
            self._write(text.encode())
        except OSError:
            return  # nobody is there to read it any more: no reason to stop the job


def _pieces(line: bytes) -> list[bytes]:
    """Of LONGEST at most; no character is cut in two."""
    pieces = []
    while len(line) > LONGEST:
        cut = next((at for at in range(LONGEST, LONGEST - 4, -1) if line[at] & 0xC0 != 0x80), LONGEST)
        pieces.append(line[:cut])
        line = line[cut:]
    return [*pieces, line]


def harmless(line: bytes) -> str:
    """One line, for people: what a terminal would obey is gone."""
    text = line.decode(errors="replace")
    if text.isprintable():
        return text
    text = COLOUR.sub(b"", line).rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
    return "".join([c if c.isprintable() or c == "\t" else "?" for c in text])
