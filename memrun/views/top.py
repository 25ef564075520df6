"""`memrun top`: what `memrun ps` says, again every second, until q or Ctrl-C.

Asking is polling, which is what a person who looks wants; nothing is asked for when nobody looks. Signals come through a pipe
(set_wakeup_fd) into the one loop that also waits for keys, so that nothing is ever interrupted half painted, and the terminal
is always given back: also when it is suspended, hung up, or terminated.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING, NamedTuple, final

from rich.text import Text

from memrun import clients, errors
from memrun.jobs import FIRST
from memrun.units import format_size
from memrun.views.cells import cut, fit, pad, plain, width
from memrun.views.frame import SMALL, STYLES, Page, alarm, brief

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from memrun.clients import Words

EVERY = 1.0  # seconds
PATIENCE = 1.0  # seconds for a memrun to answer: one that is stopped must not hold up the others
HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH)
ENTER, LEAVE = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l"  # the other screen, and no cursor


class Line(NamedTuple):
    """A job's row, in words. `share`: of its limit."""

    state: str
    name: str
    pid: str
    use: str
    limit: str
    peak: str
    attempt: str
    age: str
    share: float | None


HEAD = Line("STATE", "NAME", "PID", "USE", "LIMIT", "PEAK", "ATTEMPT", "SINCE", None)


def watch() -> int:
    """The command: paints until it is told to end -> exit status."""
    with Terminal() as terminal:
        page = Page(sys.stdout.encoding)
        while True:
            rows = [row for _, row in clients.jobs(PATIENCE)[0]]
            columns, height = terminal.size()
            terminal.paint(screen(page, [line_of(row, time.time()) for row in rows], columns - 1, height))
            said = terminal.wait(EVERY)
            if said is not None:
                return said


def line_of(row: Words, now: float) -> Line:
    """A row of ps, in words. `now`: seconds since the epoch."""
    limit, use = _bytes(row, "limit"), _bytes(row, "usage")
    since = _epoch(str(row.get("since")))
    return Line(
        state=plain(str(row.get("state"))),
        name=plain(str(row.get("name"))),
        pid=plain(str(row.get("pid") or "-")),
        use="-" if use is None else format_size(use),
        limit=format_size(limit),
        peak="-" if (peak := _bytes(row, "peak")) is None else format_size(peak),
        attempt=plain(str(row.get("attempt"))),
        age="-" if since is None else brief(now - since),
        share=use / limit if use is not None and limit else None,
    )


def _bytes(row: Words, key: str) -> int | None:
    value = row.get(key)
    return value if isinstance(value, int) else None


def _epoch(text: str) -> float | None:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def screen(page: Page, lines: Sequence[Line], columns: int, height: int) -> list[str]:
    """At most `height` lines of at most `columns` cells; who needs looking after comes first."""
    states = [line.state for line in lines]
    counts = [f"{states.count(state)} {state.lower()}" for state in FIRST if state in states]
    counts += [f"{sum(state not in FIRST for state in states)} other"] * any(state not in FIRST for state in states)
    title = Text(cut(f"memrun: {', '.join(counts) or 'nothing runs'}", columns), "bold")
    foot = Text(cut("q: quit", columns), "dim")
    ranked = sorted(lines, key=lambda line: FIRST.index(line.state) if line.state in FIRST else len(FIRST))
    room = height - 3
    shown = ranked if len(ranked) <= room else ranked[: max(0, room - 1)]
    body = table(page, shown, columns) if shown else []
    if len(shown) < len(ranked):
        body.append(Text(cut(f"... and {len(ranked) - len(shown)} more", columns), "dim"))
    return [page.text(line) for line in [title, *body, foot][: max(1, height)]]


def table(page: Page, lines: Sequence[Line], columns: int) -> list[Text]:
    """A head and one line each. Where it is narrow, names give way, then columns go: the bar, SINCE, ATTEMPT, PEAK, PID."""
    every = [HEAD, *lines]
    wide = {key: max(width(str(getattr(line, key))) for line in every) for key in HEAD._fields if key != "share"}
    wide["bar"] = SMALL
    keys = ["state", "name", "pid", "bar", "use", "limit", "peak", "attempt", "age"]
    least = min(wide["name"], 16)
    for goes in ("bar", "age", "attempt", "peak", "pid"):
        if sum(wide[key] + 2 for key in keys) - 2 - wide["name"] + least > columns:
            keys.remove(goes)
    others = sum(wide[key] + 2 for key in keys) - 2 - wide["name"]
    wide["name"] = min(wide["name"], max(columns - others, 8))
    return [_text(page, line, [(key, wide[key]) for key in keys], columns) for line in every]


def _text(page: Page, line: Line, keys: Sequence[tuple[str, int]], columns: int) -> Text:
    text = Text()
    for number, (key, cells) in enumerate(keys):
        text.append("  " if number else "")
        if key == "bar":
            text.append_text(Text(" " * cells) if line.share is None else page.bar([(line.share, alarm(line.share))], cells))
        elif key == "state":
            text.append(pad(line.state, cells), STYLES.get(line.state, ""))
        elif key == "name":
            text.append(pad(fit(line.name, cells), cells))
        else:
            text.append(pad(str(getattr(line, key)), cells, right=True))
    if line is HEAD:
        text.stylize("bold")
    text.truncate(columns, overflow="ellipsis")
    return text


@final
class Terminal:
    """The terminal while we have it: another screen, no cursor, keys as they are pressed."""

    def __init__(self) -> None:
        self._keys = 0 if os.isatty(0) else -1
        self._before: list[object] | None = None
        self._signals, self._bell = os.pipe()
        for fd in (self._signals, self._bell):
            os.set_blocking(fd, False)

    def __enter__(self) -> Terminal:
        signal.set_wakeup_fd(self._bell)
        for number in HEARD:
            signal.signal(number, _heard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, termios.error):  # it may be gone
            self._give_back()

    def _take(self) -> None:
        if self._keys >= 0:
            self._before = termios.tcgetattr(self._keys)
            ours = termios.tcgetattr(self._keys)
            ours[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self._keys, termios.TCSANOW, ours)
        _write(ENTER)

    def _give_back(self) -> None:
        if self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSANOW, self._before)  # type: ignore[arg-type]
        _write(LEAVE)

    def size(self) -> tuple[int, int]:
        """Columns and lines; 80 by 24 where it does not say."""
        columns, height = os.get_terminal_size(1)
        return columns or 80, height or 24

    def paint(self, lines: Sequence[str]) -> None:
        """All of the screen, in one write."""
        text = "\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J"
        _write(text.encode(sys.stdout.encoding or "utf-8", "replace"))

    def wait(self, seconds: float) -> int | None:
        """Until it is time to paint again (None), or to end (exit status)."""
        ready, _, _ = select.select([self._signals, *([self._keys] if self._keys >= 0 else [])], [], [], seconds)
        if self._signals in ready:
            heard = os.read(self._signals, 64)
            for number in (signal.SIGHUP, signal.SIGTERM):
                if number in heard:
                    return errors.died_of(number)
            if signal.SIGINT in heard:
                return errors.SUCCESS
            if signal.SIGTSTP in heard:
                self._suspend()
        if self._keys in ready and os.read(self._keys, 64) in {b"q", b"Q", b"\x04", b""}:
            return errors.SUCCESS
        return None

    def _suspend(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()  # somebody said fg


def _heard(_number: int, _frame: FrameType | None) -> None:
    """The pipe has it."""


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
