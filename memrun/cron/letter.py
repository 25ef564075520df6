"""What a person wants in a cron mail (`--mail-style`): nothing of a success; of a failure the verdict, the command, the last lines of
its output, and how its memory went, in that order.

What the job writes goes into one pipe, and from there into a ring on disk: never into memrun's own memory. memrun's lines about what
happened meanwhile (restarts, pauses) are among it, where they belong. Everything is plain text on stderr: cron mails it, and so
do systemd's OnFailure= and at(1). Whether it may have block characters in it is asked of the locale, as cron does for the mail.
"""

from __future__ import annotations

import os

from memrun.cron.curve import Curve, drawn
from memrun.cron.ring import Ring
from memrun.units import format_duration, format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.identity import Identity
    from memrun.options import Spec
    from memrun.record import Record

CHUNK = 1 << 16
LINES = 40
COERCED = {"C.UTF-8", "C.utf8", "UTF-8"}


class Letter:
    """Of one run. `pipe`: what the job writes, to be read without waiting."""

    def __init__(self, spec: Spec, who: Identity | None) -> None:
        self.spec = spec
        self.ring, self.curve = Ring(), Curve()
        self.pipe, self._theirs = os.pipe()
        os.set_blocking(self.pipe, False)
        if who is not None:
            os.fchown(self._theirs, who.uid, who.gid)  # else the job could not open its own /dev/stdout
        spec.streams = (0, self._theirs, self._theirs)

    def note(self, text: str) -> None:
        """A line of ours, among those of the job."""
        self.ring.take("".join(f"memrun: {line}\n" for line in text.split("\n")).encode(errors="replace"))

    def drain(self) -> None:
        """What is there now: nobody of the job can write any more, but others who have its pipe might go on for ever."""
        for _ in range(64):
            try:
                data = os.read(self.pipe, CHUNK)
            except BlockingIOError:
                return
            self.ring.take(data)

    def text(self, verdict: str, record: Record) -> str:
        """All of it."""
        import shlex

        from memrun.report import clean

        parts = [f"memrun: {verdict}", f"command: {clean(shlex.join(record.command))}", *told(self.ring, self.spec.mail_lines)]
        return "\n\n".join([*parts, self._memory(record)]) + "\n"

    def _memory(self, record: Record) -> str:
        points = self.curve.points
        if record.peak is not None and max(points) < record.peak:
            points = [*points, record.peak]  # after the last look
        top = max([record.limit or 0, *points])
        of = "its limit" if top == record.limit else "its peak"
        said = f"memory, up to {format_size(top)} ({of}), over {format_duration(record.elapsed)}:"
        return f"{said}\n{drawn(points, top, plain=not is_utf8())}"

    def close(self) -> None:
        """It is sent, or needless."""
        for fd in (self.pipe, self._theirs):
            os.close(fd)
        self.ring.close()


def of_batch(ring: Ring, table: str, words: Sequence[str], lines: int) -> str:
    """Of a whole job file: what became of each job, how it was called, and the last lines of all."""
    import shlex

    from memrun.report import clean

    return "\n\n".join([table.strip("\n"), f"command: {clean(shlex.join(words))}", *told(ring, lines)]) + "\n"


def told(ring: Ring, lines: int) -> list[str]:
    """The last lines, harmless, under what they are."""
    from memrun.output import harmless

    found = [harmless(line) for line in ring.tail(lines)]
    if not found:
        return [f"its output ({ring.lost} bytes) could not be kept" if ring.lost else "it has written nothing"]
    all_of_it = "its output" if len(found) >= ring.lines else f"the last {len(found)} of {ring.lines} lines of its output"
    lost = f" ({ring.lost} bytes could not be kept)" if ring.lost else ""
    return ["\n".join([f"{all_of_it}{lost}:", *found])]


def is_utf8() -> bool:
    """What the mail, or the terminal, is going to be read as. Python itself sets LC_CTYPE where it finds no locale (PEP 538): that says nothing."""
    given = [os.environ.get(key, "") for key in ("LC_ALL", "LC_CTYPE", "LANG")]
    known = next((value for key, value in enumerate(given) if value and not (key == 1 and value in COERCED)), "")
    return "utf" in known.lower()


def post(text: str) -> None:
    """On stderr; one that is closed is nobody to tell."""
    data = text.encode(errors="replace")
    try:
        while data:
            data = data[os.write(2, data) :]
    except OSError:
        return
