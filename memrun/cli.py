"""The order of work of the command line, and the one `except MemrunError`.

First the signals are held (they stay so: see watch.signal_fd), then parse, make the group, start the command; whatever is
heavy comes after that. A short look lets a command that is already done be reported without trio at all.
"""

from __future__ import annotations

import os
import select
import sys

from memrun import errors, hand, signals
from memrun.job import Attempt, Site, unstarted
from memrun.launch import FALLBACK_PATH, find
from memrun.names import Claim
from memrun.options import SECTIONS, Spec, nearest, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from memrun.identity import Identity
    from memrun.job import Stay
    from memrun.record import Record
    from memrun.strangers import Strangers
    from memrun.turn import Lock

SHORT_LOOK = 30  # ms: most trivial commands are done by then; importing trio takes 160

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


def say(text: str) -> None:
    """Each line on stderr with our name before it, in one write; a closed stderr is nobody to tell."""
    try:
        os.write(2, "".join(f"memrun: {line}\n" for line in text.split("\n")).encode(errors="replace"))
    except OSError:
        return


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
        return one_shot(words, mask)
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


def one_shot(words: list[str], mask: frozenset[int]) -> int:
    """memrun [run] OPTIONS -- COMMAND."""
    if "--help" in words[: words.index("--") if "--" in words else len(words)]:
        sys.stdout.write(help_text())
        return errors.SUCCESS
    spec = parse(words)
    if not spec.command:
        raise errors.UsageError("no command was given", "Try: memrun --limit 500M -- COMMAND")
    spec.mask = mask
    who = _whose(spec)
    if spec.report:
        from memrun import report

        report.check_writable(spec.report, who)
    lock = _take_turn(spec)
    try:
        return _tell(spec, _claimed(spec, () if lock is None else (lock.fd,)))
    finally:
        if lock is not None:
            lock.release()


def _take_turn(spec: Spec) -> Lock | None:
    """Wait until it may begin."""
    if spec.lock is None and not spec.jitter:
        return None
    from memrun import turn

    try:
        return turn.take(spec.jitter, None if spec.lock is None else spec.lock or spec.name, spec.lock_wait)
    except errors.StoppedError as e:
        _tell_unstarted(spec, e)
        if e.signal == signals.INT:
            say(f"{spec.name}: {e}")
            _die_of_it(signals.INT)
        raise


def _claimed(spec: Spec, locks: tuple[int, ...]) -> Record:
    claim = Claim(spec.name, insist="name" in spec.asked)
    try:
        return _live(spec, locks)
    except (errors.LaunchError, errors.LimitError, errors.NoCgroupError) as e:
        _tell_unstarted(spec, e)
        raise
    finally:
        claim.release()


def _whose(spec: Spec) -> Identity | None:
    """Whose files those of the run are, if not ours. Asked first: who may not be somebody else need not get as far as a group."""
    if not spec.user and not spec.group:
        return None
    from memrun.identity import look_up

    return look_up(str(spec.user), str(spec.group))


def _live(spec: Spec, locks: tuple[int, ...]) -> Record:
    site = Site(locks)
    try:
        attempt = Attempt(site, spec, guarded=True)
        try:
            if spec.verbose:
                say(f"its group is {attempt.group.path}, {site.host.way}")
            done = _already_done(attempt, spec)
            if not done:
                import trio  # noqa: F401  (the command runs by now)

                from memrun import company  # noqa: F401
            attempt.relieve()
        except BaseException:
            attempt.abandon()
            raise
        return attempt.finish("") if done else _supervise(attempt)
    finally:
        site.close()


def _already_done(attempt: Attempt, spec: Spec) -> bool:
    """A short look: whether the command has ended, nothing is left of it, and it is not to be started again."""
    if spec.on_oom == "restart" or spec.restart != "no":
        return False
    poll = select.poll()
    poll.register(attempt.child.pidfd, select.POLLIN)
    poll.poll(SHORT_LOOK)
    return attempt.child.reap() is not None and not attempt.group.pids()


def _attach(words: list[str], _mask: frozenset[int]) -> int:
    """memrun attach OPTIONS PID...: everything is loaded first, because these processes run already."""
    import trio  # noqa: F401

    from memrun import attach, company, strangers  # noqa: F401

    if "--help" in words or "-h" in words:
        sys.stdout.write(attach.USAGE)
        return errors.SUCCESS
    spec, pids = attach.parse(words)
    if spec.report:
        from memrun import report

        report.check_writable(spec.report)
    found = strangers.find(pids)
    attach.introduce(spec, found)
    claim = Claim(spec.name, insist="name" in spec.asked)
    try:
        record = _borrow(spec, found)
    finally:
        found.close()
        claim.release()
    return _tell(spec, record)


def _borrow(spec: Spec, found: Strangers) -> Record:
    from memrun.attach import Attachment

    site = Site(script=hand.LET_GO)
    try:
        stay = Attachment(site, spec, found)
        if not spec.quiet:
            say(stay.account)
        return _supervise(stay)
    finally:
        site.close()


def _supervise(attempt: Stay) -> Record:
    from memrun.company import supervise

    return supervise(attempt, say)


def _tell(spec: Spec, record: Record) -> int:
    if not record.ok or spec.report or spec.verbose:
        from memrun import report  # nothing to say, nothing to load

        line = report.verdict(record)
        if line and not spec.quiet:
            say(line)
        if spec.report:
            report.write(spec.report, report.to_json(record), _whose(spec))
    if record.signal == signals.INT and record.result == "signal":
        _die_of_it(signals.INT)
    return record.status


def _tell_unstarted(spec: Spec, error: errors.MemrunError) -> None:
    """A report that was asked for is there in any case: an old one left in its place would be taken for this run's."""
    if spec.report:
        from memrun import report

        record = unstarted(spec, error.status)
        record.result = "stopped" if isinstance(error, errors.StoppedError) else record.result
        report.write(spec.report, report.to_json(record), _whose(spec))


def _die_of_it(number: int) -> None:
    """A shell goes on with its script after a command that exits 130, but not after one that died of the Ctrl-C."""
    signals.default(number)
    os.kill(os.getpid(), number)
    signals.set_mask(signals.every() - {number})


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
    from memrun.up import main as up

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
)
VERBS: dict[str, Callable[[list[str], frozenset[int]], int]] = {
    "run": one_shot,
    "attach": _attach,
    "up": _up,
    "doctor": _doctor,
    "check": _check,
    **{name: _verb(name) for name in ASKING},
}
