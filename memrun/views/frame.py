"""What a person sees of a batch while it runs, as lines for a terminal of some size. Pure: a Progress in, text out.

rich knows the colours of terminals (NO_COLOR, TERM, COLORTERM) and cuts styled text by cells; the layout is ours: what a person
must do something about (a paused job) comes first, and what does not fit is counted, never scrolled. rich's own Live is not used: it
writes to the terminal whether that takes it or not, hides the cursor (kill -9 would leave it hidden), and loses its place when a
terminal gets narrower.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

from memrun.jobs import FIRST
from memrun.units import format_size
from memrun.views.cells import cut, fit, pad, plain, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.jobs import Progress, Row

STYLES = {
    "RUNNING": "green", "PAUSED": "bold yellow", "STARTING": "cyan", "BACKOFF": "magenta", "STOPPING": "red",
    "WAITING": "dim", "EXITED": "dim", "FATAL": "bold red",
}  # fmt: skip
STATE, SMALL, SINCE = 8, 10, 6  # cells of the columns of a row


class Page:
    """Turns styled lines into what this terminal understands. `encoding`: the terminal's."""

    def __init__(self, encoding: str | None) -> None:
        self.fancy = (encoding or "ascii").lower().replace("-", "").startswith("utf")
        self._console = Console(
            file=io.StringIO(), force_terminal=True, width=80, height=24, highlight=False, markup=False, emoji=False,
            legacy_windows=False,
        )  # fmt: skip

    def text(self, line: Text) -> str:
        """One line with its colours, without a line end."""
        segments = line.render(self._console)
        console = self._console
        if console.color_system is None or console.no_color:
            return "".join(segment.text for segment in segments)
        colours = console._color_system  # noqa: SLF001  (the enum behind color_system's word; print() costs five times as much)
        return "".join(
            segment.style.render(segment.text, color_system=colours) if segment.style else segment.text for segment in segments
        )

    def bar(self, parts: Sequence[tuple[float, str]], cells: int) -> Text:
        """A bar of so many cells. `parts`: (share of the whole, style), one after the other; the rest is empty."""
        glyphs = "━╍─" if self.fancy else "#=-"
        line, taken, share = Text(), 0, 0.0
        for number, (part, style) in enumerate(parts):
            share = min(1.0, share + max(0.0, part))
            filled = max(round(share * cells) - taken, 0)
            line.append(glyphs[min(number, 1)] * filled, style)
            taken += filled
        return line.append(glyphs[2] * (cells - taken), "dim")


def brief(seconds: float) -> str:
    """'12s', '3m05s', '2h05m', '3d04h': steady in width, for what changes every second."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, seconds = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{seconds:02.0f}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours < 24 else f"{hours // 24}d{hours % 24:02}h"


def batch(page: Page, progress: Progress, columns: int, height: int) -> list[str]:
    """The frame: at most `height` lines of at most `columns` cells."""
    head = [_counts(progress, columns), _done(page, progress, columns), _budget(page, progress, columns)]
    foot = [_ending(progress, columns)]
    if height < 6:
        return [page.text(line) for line in [*head[1:2], *foot, *head[:1], *head[2:]][: max(1, height)]]
    body = rows(page, progress.rows, columns, height - len(head) - len(foot))
    return [page.text(line) for line in (*head, *body, *foot)]


def _joined(parts: Sequence[tuple[str, str]], columns: int) -> Text:
    """Parts with styles, and points between them; the last that does not fit is cut."""
    line = Text(no_wrap=True)
    for number, (text, style) in enumerate(parts):
        line.append(", " if number else "").append(text, style)
    line.truncate(columns, overflow="ellipsis")
    return line


def _counts(progress: Progress, columns: int) -> Text:
    done = progress.succeeded + progress.failed + progress.skipped
    states = [row.state for row in progress.rows]
    busy = sum(state not in {"PAUSED", "WAITING", "BACKOFF", "EXITED", "FATAL"} for state in states) - progress.services
    parts = [
        (done, f"{done} of {progress.total} done", "bold"),
        (progress.failed, f"{progress.failed} failed", "bold red"),
        (states.count("PAUSED"), f"{states.count('PAUSED')} paused", "bold yellow"),
        (busy > 0, f"{busy} running", "green"),
        (progress.waiting, f"{progress.waiting} waiting", ""),
        (progress.skipped, f"{progress.skipped} skipped", ""),
        (progress.services, f"{progress.services} service{'s' if progress.services > 1 else ''}", ""),
    ]
    return _joined([(text, style) for count, text, style in parts if count or style == "bold"], columns)


def _done(page: Page, progress: Progress, columns: int) -> Text:
    whole = max(progress.total, 1)
    share = (progress.succeeded + progress.failed + progress.skipped) / whole
    left = "" if progress.left is None else f", about {brief(progress.left)} left"
    said = f" {int(share * 100):3d}%  {brief(progress.elapsed)}{left}"
    bar = [(progress.succeeded / whole, "green"), ((progress.failed + progress.skipped) / whole, "red")]
    return _barred(page, bar, ("jobs   ", said), columns)


def _budget(page: Page, progress: Progress, columns: int) -> Text:
    used = sum(row.usage or 0 for row in progress.rows)
    given = f"{format_size(progress.committed)} given out, {format_size(used)} used"
    budget = progress.budget
    if not budget:
        return Text(cut(f"memory {given}; no budget", columns))
    bar = [(used / budget, "cyan"), (max(0, progress.committed - used) / budget, "blue")]
    said = f" {given}, {format_size(max(0, budget - progress.committed))} of {format_size(budget)} free"
    return _barred(page, bar, ("memory ", said), columns)


def _barred(page: Page, bar: list[tuple[float, str]], words: tuple[str, str], columns: int) -> Text:
    """A word, a bar as wide as there is room, and figures."""
    word, said = words
    room = min(columns - width(word) - width(said), 60)
    if room < 5:
        return Text(cut(word + said.strip(), columns))
    return Text(word).append_text(page.bar(bar, room)).append(said)


def _ending(progress: Progress, columns: int) -> Text:
    alive = sum(row.state in {"RUNNING", "PAUSED", "STARTING", "STOPPING"} for row in progress.rows)
    short = columns < 72
    if progress.ending == "killing":
        said, style = f"Killing what is left ({alive}).", "bold red"
    elif progress.ending and short:
        said, style = f"Stopping: {alive} left. Ctrl-C again: kill", "bold red"
    elif progress.ending:
        said, style = f"Stopping: nothing new starts, {alive} asked to end. Ctrl-C again: kill now", "bold red"
    elif short:
        said, style = "Ctrl-C: stop the jobs; twice: kill", "dim"
    else:
        said, style = "Ctrl-C: stop the jobs, gracefully; twice: kill. `memrun up` goes on later", "dim"
    return Text(cut(said, columns), style)


class Columns(NamedTuple):
    """Cells that the columns of all rows get; 0: there is no room for it."""

    name: int
    bar: int
    sizes: int


def rows(page: Page, all_rows: Sequence[Row], columns: int, room: int) -> list[Text]:
    """As many rows as there is room for, and how many more there are."""
    ranked = sorted(all_rows, key=lambda row: FIRST.index(row.state) if row.state in FIRST else len(FIRST))
    layout = _layout(ranked[:room], columns)
    lines: list[Text] = []
    for number, row in enumerate(ranked):
        made = _row(page, row, layout, columns)
        if len(lines) + len(made) + (number + 1 < len(ranked)) > room:
            return [*lines, _more(ranked[number:], columns)][: max(0, room)]
        lines += made
    return lines


def _layout(shown: Sequence[Row], columns: int) -> Columns:
    """Names give way first, then the bars go, then the sizes."""
    name = max((width(plain(row.name)) for row in shown), default=0)
    sizes = max((width(_sizes(row)) for row in shown), default=0)
    room = columns - STATE - SINCE - 3 - sizes
    if room - SMALL - 1 >= min(name, 16):
        return Columns(min(name, 40, room - SMALL - 1), SMALL, sizes)
    if room >= 8:
        return Columns(min(name, room), 0, sizes)
    return Columns(min(name, max(8, room + sizes + 1)), 0, 0)


def _more(rest: Sequence[Row], columns: int) -> Text:
    states = [row.state for row in rest]
    counts = ", ".join(f"{states.count(state)} {state.lower()}" for state in FIRST if state in states)
    return Text(cut(f"... and {len(rest)} more: {counts}", columns), "dim")


def _sizes(row: Row) -> str:
    used = "-" if row.usage is None else format_size(row.usage)
    return f"{used}/{'none' if row.limit is None else format_size(row.limit)}"


def _row(page: Page, row: Row, layout: Columns, columns: int) -> list[Text]:
    """State, name, bar, use/limit, time, the attempt if it is not the first; below it the reason, if there is one."""
    line = Text().append(pad(row.state, STATE), STYLES.get(row.state, "")).append(" ")
    line.append(pad(fit(plain(row.name), layout.name), layout.name)).append(" ")
    if layout.bar and row.usage is not None and row.limit:
        share = row.usage / row.limit
        line.append_text(page.bar([(share, alarm(share))], layout.bar)).append(" ")
    elif layout.bar:
        line.append(" " * (layout.bar + 1))
    if layout.sizes:
        line.append(pad(_sizes(row), layout.sizes, right=True)).append(" ")
    line.append(pad(brief(row.since), SINCE, right=True))
    notes = ["service"] * row.service + [f"attempt {row.attempt}"] * (row.attempt > 1)
    for note in notes:
        if line.cell_len + 2 + len(note) <= columns:
            line.append("  " + note, "dim")
    line.truncate(columns, overflow="ellipsis")
    why = f"{'':{STATE + 1}}{plain(row.why)}"
    return [line, Text(cut(why, columns), "yellow" if row.state == "PAUSED" else "dim")] if row.why else [line]


def alarm(share: float) -> str:
    """The colour of so much of a limit."""
    return "red" if share >= 0.95 else "yellow" if share >= 0.8 else "green"
