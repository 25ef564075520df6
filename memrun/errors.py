"""Everything that memrun says when it cannot: a short family of errors, and the exit-status table.

An error carries facts in fields; `str()` is one sentence, and a remedy, where there is one, is the second.
This is the only home of 75, 124, 125, 126, 127 and 128+n.
"""

from __future__ import annotations

import os

SUCCESS = 0
SOME_FAILED = 1  # of a batch: each job's own status is in its record
LOCKED = 75  # another run has the lock (sysexits' EX_TEMPFAIL: try again later)
TIMED_OUT = 124  # GNU timeout
FAILED = 125  # memrun itself (GNU env, timeout, docker)
NOT_EXECUTABLE = 126  # found, but cannot be run (POSIX shells)
NOT_FOUND = 127


def died_of(signal: int) -> int:
    """Exit status of a command that died of a signal, as shells count it."""
    return 128 + signal


class MemrunError(Exception):
    """What the user is told: `what` happened, and the `remedy` if there is one."""

    status = FAILED

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


def refused(e: OSError) -> MemrunError:
    """What nobody foresaw of the system (no descriptor left, a full disk), as a sentence."""
    return MemrunError(f"the system refused: {e.strerror or e}{f' ({e.filename})' if e.filename else ''}")


def printable(text: str) -> str:
    """Nothing in it that a terminal would obey: names come from programs that may be hostile. Lines stay lines."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def expected(e: BaseException) -> MemrunError | None:
    """What the user is told of a group of failures (they come out of a nursery in groups), if each of them is of a kind that happens."""
    if isinstance(e, MemrunError):
        return e
    if isinstance(e, OSError):
        return refused(e)
    if isinstance(e, MemoryError):
        return MemrunError("there is no memory left for memrun itself")
    found = [expected(each) for each in getattr(e, "exceptions", ())]
    if found and all(found):
        return found[0]
    loop = type(e).__name__ == "TrioInternalError" and e.__cause__  # what the kernel refuses an event loop, confuses it
    refusals = [each for each in leaves(loop) if isinstance(each, OSError)] if loop else []
    return refused(refusals[0]) if refusals else None


def leaves(e: BaseException) -> list[BaseException]:
    """The failures that a group of failures is made of; of any other one itself."""
    inside = getattr(e, "exceptions", ())
    return [leaf for each in inside for leaf in leaves(each)] if inside else [e]


def mistake(e: BaseException) -> MemrunError:
    """The user is told of what nobody foresaw: what, and where. MEMRUN_TRACEBACK in the environment: all of it comes first."""
    if os.environ.get("MEMRUN_TRACEBACK"):
        import traceback

        traceback.print_exception(e)
    e = leaves(e)[0]
    at = e.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = "" if at is None else f", {os.path.basename(at.tb_frame.f_code.co_filename)} line {at.tb_lineno}"
    return MemrunError(
        f"a mistake of memrun's own ({type(e).__name__}{f': {e}' if str(e) else ''}{place})",
        "Please report it; MEMRUN_TRACEBACK=1 in the environment shows more",
    )


class UsageError(MemrunError):
    """The command line, or a value on it, makes no sense."""


class NoCgroupError(MemrunError):
    """This machine, or this place on it, gives no memory cgroup; the remedy says how to get one."""


class GroupError(MemrunError):
    """One operation on a kernel control file failed: which, on what, with what data."""

    def __init__(self, op: str, path: str, errno: int, data: str = "", remedy: str = "") -> None:
        said = f" {data!r} to" if data else ""
        super().__init__(f"cannot {op}{said} {path}: {os.strerror(errno)}", remedy)
        self.op, self.path, self.errno, self.data = op, path, errno, data


class LimitError(MemrunError):
    """A limit cannot be set, or the kernel made something else of it."""


class LockedError(MemrunError):
    """Another run has the lock: this one was not started."""

    status = LOCKED


class StoppedError(MemrunError):
    """A signal to memrun came before anything was started."""

    def __init__(self, what: str, signal: int) -> None:
        super().__init__(what)
        self.signal, self.status = signal, died_of(signal)


class LaunchError(MemrunError):
    """The command did not start; `status` is 126, 127, or 125 where memrun is to blame."""

    def __init__(self, what: str, status: int, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.status = status


class CrowdedError(LaunchError):
    """There are as many processes as there may be, now: it may go well when one has ended."""


class JobFileError(MemrunError):
    """A job file that is not run: `problems` are all that is wrong with it, one sentence each, with file, line, table and key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class JobNameError(MemrunError):
    """A name that no running memrun answers to, or that more than one does."""


class RefusedError(MemrunError):
    """A command to a running job that would do harm, or makes no sense in its state."""
