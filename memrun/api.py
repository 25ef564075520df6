"""`await memrun.run(["cmd"], limit="5M")`: the Python API, which the command line uses, too.

Options are those of the command line, by each of their long names, with `_` for `-`; values are what one would type, or the plain Python ones (bytes,
seconds, True). Nothing is said on stderr, and signals stay with the program that calls.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

from memrun.errors import MemrunError, UsageError
from memrun.job import Attempt, Site
from memrun.options import BY_WORD, COMMAND_LINE, Option, Share, Spec, nearest
from memrun.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memrun.events import Event, Tell

MEASURES = {"SIZE", "TIME", "SIGNAL", "FACTOR", "N"}  # metavars of options whose values are numbers

__all__ = ["MemrunError", "Record", "run", "spec"]


async def run(command: Sequence[str], *, on_event: Callable[[Event | Tell], None] | None = None, **options: object) -> Record:
    """Run a command under a memory limit until nothing of it is left; returns its Record.

    Under trio, in the main thread. Cancelling kills the job and waits until its group is empty. `on_event` is called with
    each event (memrun.events) before it is acted upon.
    Raises MemrunError (its `status` is what the command line would exit with) where it cannot be started.
    """
    import trio

    from memrun.supervisor import Run  # trio; `spec` is of use without it

    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise UsageError(
            "memrun.run works in trio's event loop only, and was called in another one",
            "Call it in trio.run(main); under asyncio, start the command: asyncio.create_subprocess_exec('memrun', '--limit', '5M', ...)",
        ) from None
    site = Site()
    try:
        attempt = Attempt(site, spec(command, **options))
        return await Run(site, attempt, on_event).live()
    finally:
        site.close()


def spec(command: Sequence[str], **options: object) -> Spec:
    """Check options as the command line does: text is converted, plain values are taken as they are."""
    known = {word[2:].replace("-", "_"): option for word, option in BY_WORD.items() if word.startswith("--")}
    values: dict[str, object] = {}
    asked: dict[str, str] = {}
    for word, value in options.items():
        if word not in known:
            raise UsageError(f"there is no option {word}", nearest(word, known))
        key = known[word].key
        if key in COMMAND_LINE:
            raise UsageError(f"{word} is for the command line only")
        if key in values:
            raise UsageError(f"{word} is given twice: it is another name for {key}")
        values[key], asked[key] = _converted(known[word], value), str(value)
    made = Spec(_words(command), values)
    made.asked = asked
    return made


def _converted(option: Option, value: object) -> object:
    """Text as the command line takes it, also each of several; what may be given more than once need not be."""
    if isinstance(value, str):
        return (option.convert(value),) if option.many else option.convert(value)
    if option.many and isinstance(value, (list, tuple)):
        return tuple(option.convert(each) if isinstance(each, str) else each for each in value)
    if option.metavar in MEASURES and value is not None and not isinstance(value, Share):
        return option.convert(_text(option, value))
    return value


def _text(option: Option, value: object) -> str:
    """A plain number is checked as what one would type: a limit of 100 bytes is too little here, too."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{option.key}: {value!r} is neither text nor a number")
    if value == math.inf:
        return "infinity"
    return str(int(value)) if isinstance(value, int) else f"{value:.9f}"  # int(): signal.SIGTERM is a number as well


def _words(command: Sequence[str]) -> list[str]:
    """The command's words; paths and bytes are words as well."""
    if isinstance(command, (str, bytes)):
        raise UsageError(f"the command is one string: {command!r}", "Give a list of words, or ['sh', '-c', command]")
    try:
        words = [os.fsdecode(word) for word in command]
    except TypeError:
        raise UsageError(f"the command is no list of words: {command!r}") from None
    if any("\0" in word for word in words):
        raise UsageError("the command has a NUL character in it")
    return words
