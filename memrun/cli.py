"""The order of work of the command line, and the one `except MemrunError`: whatever happens, it ends in a sentence and a status.

First the signals are held: they stay so (see news.signal_fd).
"""

from __future__ import annotations

import gc
import os
import sys

from memrun import errors, signals
from memrun.launch import FALLBACK_PATH, find
from memrun.oneshot import attach, one_shot
from memrun.options import SECTIONS, nearest
from memrun.telling import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

USAGE = """\
memrun --limit 5M -- ./mem-allocate     run a command under a memory limit
memrun up FILE [JOB...]                 run a job file within one budget of memory
memrun ps | top | show NAME             what runs under memrun, and how it fares
memrun logs [-f] NAME | events [-f]     what a job has written; what has happened
memrun raise NAME SIZE                  give a running or paused job another limit (7M, +2G, x1.5)
memrun pause | resume | restart | stop | kill NAME
memrun signal NAME SIGNAL | set NAME KEY=VALUE... | reclaim NAME [SIZE] | wait NAME
memrun check FILE [JOB...]              what a job file comes to: order, memory, every mistake in it; --schema for editors
memrun attach --limit 1G PID...         put running processes under a limit
memrun history [NAME] | suggest NAME    what earlier runs used; what limit to give the next one
memrun doctor                           what this machine allows, and what mends the rest
memrun --help | --version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    _open_standard_descriptors()
    mask = signals.block(signals.HEARD)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _dispatch(words, mask)
        sys.stdout.flush()  # a full disk is an error while somebody is there to hear of it
    except errors.MemrunError as e:
        say(str(e))
        return e.status
    except OSError as e:
        if not isinstance(e, BrokenPipeError):  # the reader of our own output left (memrun --help | head): nobody to tell
            say(str(errors.refused(e)))
        _drop_output()
        return errors.FAILED
    except BaseException as e:  # noqa: BLE001  (the last one: no status of Python's own is to be taken for the command's)
        known = errors.expected(e) or errors.mistake(e)
        say(str(known))
        return known.status
    return status


def _drop_output() -> None:
    """What the interpreter would still write at its end, and fail."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError:
        return


def _open_standard_descriptors() -> None:
    """Where stdout or stderr is closed, what we open next would be taken for it. The command finds it closed, all the same."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _dispatch(words: list[str], mask: frozenset[int]) -> int:
    first = words[0] if words else ""
    if first in {"--help", "-h", "help"}:
        sys.stdout.write(help_text())
        return errors.SUCCESS
    if first in {"--version", "-V"}:
        from memrun import __version__

        sys.stdout.write(f"memrun {__version__}\n")
        return errors.SUCCESS
    if not first:
        raise errors.UsageError("nothing to run", "Try: memrun --limit 500M -- COMMAND, or memrun --help")
    if first.startswith("-"):
        return _one_shot(words, mask)
    gc.enable()  # see __main__.py
    verb = VERBS.get(first)
    if verb is None:
        raise errors.UsageError(f"{first!r} is not a memrun command", _meant(first))
    return verb(words[1:], mask)


def _meant(word: str) -> str:
    hint = nearest(word, VERBS)
    if hint:
        return hint
    try:
        find(word, os.environ.get("PATH", FALLBACK_PATH))
    except errors.LaunchError as e:
        if e.status == errors.NOT_FOUND and "/" not in word:
            return "See memrun --help"
    return f"To run it: memrun --limit 500M -- {word}"


def _one_shot(words: list[str], mask: frozenset[int]) -> int:
    """memrun [run] OPTIONS -- COMMAND."""
    if "--help" in words[: words.index("--") if "--" in words else len(words)]:
        sys.stdout.write(help_text())
        return errors.SUCCESS
    return one_shot(words, mask)


def help_text() -> str:
    """Everything that a first-time user needs."""
    lines = ["Run a command under a memory limit, and decide what happens when memory runs out.\n\n", USAGE]
    for title, section in SECTIONS:
        lines.append(f"\n{title}:\n")
        for option in section:
            names = f"{option.typed} {option.metavar}".rstrip()
            first, *rest = option.help.split("\n")
            lines.append(f"  {names:<26} {first}\n" + "".join(f"{'':29}{line}\n" for line in rest))
    lines.append(STATUSES)
    return "".join(lines)


STATUSES = """
exit status: the command's own; 128+n if it died of signal n (137: killed, also at the limit);
  75 somebody else has its --lock, 124 timed out, 125 memrun itself failed, 126 not executable, 127 not found.
  Why it ended is in one line on stderr, and in the record (--report FILE).
"""


def _doctor(words: list[str], _mask: frozenset[int]) -> int:
    if any(word.startswith("--setup") for word in words):
        from memrun.setup import main as prepare

        return prepare(words)
    from memrun.doctor import main as examine

    return examine(words)


def _check(words: list[str], mask: frozenset[int]) -> int:
    from memrun import checking

    _be_ordinary(mask)
    return checking.main(words)


def _be_ordinary(mask: frozenset[int]) -> None:
    """Nothing of ours runs: Ctrl-C ends us as it ends any command, without Python's traceback."""
    signals.default(signals.INT)
    signals.set_mask(mask)


def _verb(name: str) -> Callable[[list[str], frozenset[int]], int]:
    def act(words: list[str], mask: frozenset[int]) -> int:
        from memrun import verbs

        _be_ordinary(mask)
        return verbs.act(name, words)

    return act


def _up(words: list[str], mask: frozenset[int]) -> int:
    from memrun.batch.up import main as up

    return up(words, mask)


ASKING = (
    "ps",
    "raise",
    "pause",
    "resume",
    "restart",
    "stop",
    "kill",
    "signal",
    "show",
    "set",
    "reclaim",
    "events",
    "wait",
    "logs",
    "top",
    "history",
    "suggest",
)
VERBS: dict[str, Callable[[list[str], frozenset[int]], int]] = {
    "run": _one_shot,
    "attach": lambda words, _mask: attach(words),
    "up": _up,
    "doctor": _doctor,
    "check": _check,
    **{name: _verb(name) for name in ASKING},
}
