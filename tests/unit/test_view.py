"""The view on a real terminal (a pty) and elsewhere; what stands still, goes away, or is narrow never holds up who has something to say."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import struct
import termios
import tty

import pytest
import trio
import trio.testing

from memrun.jobs import Outcome, Progress, Row
from memrun.views import cells
from memrun.views import live as view
from memrun.views.outlet import Outlet

M = 1 << 20
ROW = Row("align", "RUNNING", 8 * M, 4 * M, 1, 1.0)


def progress(done=1, **known):
    return Progress(**{
        "total": 3, "succeeded": done, "failed": 0, "skipped": 0, "waiting": 1, "budget": 16 * M, "committed": 8 * M, "elapsed": 1.0,
        "left": None, "rows": (ROW,), **known,
    })  # fmt: skip


class Glass:
    """What a terminal shows: enough of one for what the view writes. `grid`: lines, the last that the cursor was on last."""

    def __init__(self):
        self.grid, self.row, self.column = [""], 0, 0
        self._decoder, self._cut = codecs.getincrementaldecoder("utf-8")(), ""

    def feed(self, data):
        pieces = re.split(r"(\x1b\[[0-9]*(?:;[0-9]*)*[A-Za-z]|\x1b.*\Z)", self._cut + self._decoder.decode(data))
        self._cut = ""
        for number, piece in enumerate(pieces):
            if not number % 2:
                for character in piece:
                    self._put(character)
            elif piece[-1].isalpha():
                self._obey(piece[-1], piece[2:-1])
            else:
                self._cut = piece  # the rest of it is in the next read

    def _put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row += 1
            while len(self.grid) <= self.row:
                self.grid.append("")
        else:
            line = self.grid[self.row].ljust(self.column)
            self.grid[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _obey(self, verb, number):
        if verb == "A":
            self.row = max(0, self.row - int(number))
        elif verb == "K":
            self.grid[self.row] = self.grid[self.row][: self.column]
        elif verb == "J":
            self.grid[self.row] = self.grid[self.row][: self.column]
            del self.grid[self.row + 1 :]
        else:
            assert verb == "m", verb


class Tty:
    """A pty: `slave` is what memrun has as its stderr."""

    def __init__(self, columns=80, height=24):
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave)
        self.resize(columns, height)
        self.glass = Glass()
        os.set_blocking(self.master, False)

    def resize(self, columns, height):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", height, columns, 0, 0))

    async def until(self, wanted):
        """Read until the screen is as wanted."""
        with trio.fail_after(20):
            while not wanted(self.glass.grid):
                await trio.lowlevel.wait_readable(self.master)
                self.drain()

    def drain(self):
        try:
            while data := os.read(self.master, 1 << 16):
                self.glass.feed(data)
        except OSError:
            return

    def close(self):
        for fd in (self.master, self.slave):
            os.close(fd)


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(view, "_encoding", lambda: "utf-8")
    monkeypatch.setattr(view, "TICK", 0.02)
    monkeypatch.setattr(view, "SHORTEST", 0.0)
    made = Tty()
    yield made
    made.close()


def seen(text):
    return lambda grid: any(text in line for line in grid)


def test_the_live_view_is_painted_over_and_leaves_only_what_was_said(screen):
    done = [1]

    async def main():
        send, receive = trio.open_memory_channel[str](10)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(lambda: progress(done[0]), receive, over, fd=screen.slave))
            await screen.until(seen("1 of 3 done"))
            await send.send("align | hello\nalign | \x1b[2Jworld\n")
            await screen.until(seen("world"))
            assert screen.glass.grid[:3] == ["align | hello", "align | ?[2Jworld", "1 of 3 done, 1 running, 1 waiting"]
            done[0] = 2
            await screen.until(seen("2 of 3 done"))
            assert not seen("1 of 3")(screen.glass.grid)
            await send.send("last words")
            over.set()

    trio.run(main)
    screen.drain()
    assert screen.glass.grid == ["align | hello", "align | ?[2Jworld", "last words", ""]


def test_a_narrower_terminal(screen):
    async def main():
        _send, receive = trio.open_memory_channel[str](10)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(progress, receive, over, fd=screen.slave))
            await screen.until(seen("gracefully; twice"))
            screen.resize(30, 24)
            await screen.until(seen("…"))
            over.set()

    trio.run(main)


def test_back_to_the_start_of_what_a_narrower_terminal_has_broken(screen):
    async def main():
        shown = view.Screen(screen.slave)
        shown._shown = ["\x1b[32m" + "x" * 79 + "\x1b[0m", "y" * 30]
        assert shown._back(80, 24) == "\r\x1b[1A"
        assert shown._back(40, 24) == "\r\x1b[2A"
        assert shown._back(20, 24) == "\r\x1b[5A"
        assert shown._back(20, 4) == "\r\x1b[3A"
        shown._shown = []
        shown.close()

    trio.run(main)


def test_a_terminal_that_stands_still_holds_up_nobody(screen, monkeypatch):
    monkeypatch.setattr(view, "BACKLOG", 50_000)

    async def main():
        send, receive = trio.open_memory_channel[str](0)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(progress, receive, over, fd=screen.slave))
            await screen.until(seen("1 of 3 done"))
            with trio.fail_after(20):
                for _ in range(5000):
                    await send.send("x" * 70)  # 350 kB, and nobody reads the terminal
            await screen.until(seen("lines are missing here"))
            over.set()
            await screen.until(lambda grid: grid[-1] == "" and not seen("of 3 done")(grid))

    trio.run(main)


def test_a_cancelled_view_waits_for_no_terminal(screen):
    async def main():
        send, receive = trio.open_memory_channel[str](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(progress, receive, trio.Event(), fd=screen.slave))
            await screen.until(seen("1 of 3 done"))
            for _ in range(2000):
                await send.send("x" * 70)
            nursery.cancel_scope.cancel()

    trio.run(main)
    trio.run(main)


def test_nothing_is_painted_in_the_background(screen, monkeypatch):
    monkeypatch.setattr(view.Screen, "_in_front", lambda _: False)

    async def main():
        send, receive = trio.open_memory_channel[str](0)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(progress, receive, over, fd=screen.slave))
            await send.send("one")
            await screen.until(seen("one"))
            over.set()

    trio.run(main)
    screen.drain()
    assert screen.glass.grid == ["one", ""]


def test_a_terminal_that_hangs_up(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(view, "TICK", 0.01)
    monkeypatch.setattr(view, "SHORTEST", 0.0)
    screen = Tty()

    async def main():
        send, receive = trio.open_memory_channel[str](0)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.live(progress, receive, over, fd=screen.slave))
            await screen.until(seen("1 of 3 done"))
            os.close(screen.master)
            for _ in range(100):
                await send.send("hello")
            over.set()

    trio.run(main)
    os.close(screen.slave)


def test_what_is_no_live_terminal(monkeypatch, screen):
    assert cells.is_live(screen.slave)
    for term in ("", "dumb"):
        monkeypatch.setenv("TERM", term)
        assert not cells.is_live(screen.slave)
    reader, writer = os.pipe()
    assert not cells.is_live(writer)
    os.close(reader)
    assert not cells.is_live(reader)
    os.close(writer)


async def show_plainly(fd, *texts):
    send, receive = trio.open_memory_channel[str](100)
    over = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: view.show(progress, receive, over, fd=fd))
        for text in texts:
            await send.send(text)
        over.set()


def test_plain_lines_in_a_file_and_a_pipe(tmp_path):
    with open(tmp_path / "file", "ab") as f:
        f.write(b"before\n")
        f.flush()
        trio.run(show_plainly, f.fileno(), "one", "two\nthree\n", "a\x1b[31mb")
    assert (tmp_path / "file").read_text() == "before\none\ntwo\nthree\na?[31mb\n"
    reader, writer = os.pipe()
    trio.run(show_plainly, writer, "one")
    assert os.get_blocking(writer)
    os.close(writer)
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)


def test_plain_lines_to_nobody():
    reader, writer = os.pipe()
    os.close(reader)
    trio.run(show_plainly, writer, "one", "two")
    os.close(writer)
    trio.run(show_plainly, 9999, "one", "two")


def test_plain_lines_go_on_after_the_channel_is_closed():
    async def main():
        send, receive = trio.open_memory_channel[str](10)
        over = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: view.plain(receive, over, fd=fd))
            await send.send("one")
            send.close()
            await trio.testing.wait_all_tasks_blocked()
            over.set()

    fd = os.open(os.devnull, os.O_WRONLY)
    trio.run(main)
    os.close(fd)


def test_sentences_of_the_plain_view():
    record = {"name": "align", "result": "success", "elapsed": 2.0, "peak": 4 * M, "limit": 8 * M}
    assert view.started(ROW) == "align: started with 8M"
    assert view.started(Row("a", "RUNNING", None, 1, 2, 0.0)) == "a: started with infinity, attempt 2"
    assert view.ended(Outcome("align", "success", 1, record), 1, 3) == "align: success after 2.0 s, peak 4M [1 of 3]"
    assert view.stopping(progress()) == ""
    assert view.stopping(progress(ending="stopping")).endswith("1 job asked to end; a second Ctrl-C kills them")
    assert view.stopping(progress(ending="killing")) == "killing what is left (1 job)"


def test_an_outlet_leaves_what_others_share_as_it_was():
    """A pipe that is full: the write waits without blocking anything, and the descriptor that the jobs have stays a blocking one."""

    async def main():
        outlet = Outlet(writer)
        got = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.write, b"x" * 300_000)
            await trio.testing.wait_all_tasks_blocked()
            assert os.get_blocking(writer)
            while len(got) < 300_000:
                await trio.lowlevel.wait_readable(reader)
                got += os.read(reader, 1 << 16)
        outlet.close()
        assert got == b"x" * 300_000

    reader, writer = os.pipe()
    trio.run(main)
    os.write(writer, b"still ours")
    for fd in (reader, writer):
        os.close(fd)


def test_an_outlet_that_cannot_open_it_anew_writes_small_pieces(monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "no")

    async def main():
        outlet = Outlet(writer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outlet.write, b"y" * 5000)
            await trio.testing.wait_all_tasks_blocked()
        outlet.last(b"never")
        outlet.close()

    reader, writer = os.pipe()
    monkeypatch.setattr(os, "open", refuse)
    trio.run(main)
    monkeypatch.undo()
    os.close(writer)
    assert os.read(reader, 1 << 16) == b"y" * 5000
    os.close(reader)
