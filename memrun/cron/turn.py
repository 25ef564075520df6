"""When a run may begin: after its random delay (`--jitter`), and when it has its lock (`--lock`). Nothing has been started until then.

The lock is an flock(2) on a file: the kernel lets go of it however its holders die. They are memrun and its dead man's hand, so that
after a `kill -9` of memrun it is free only when nothing of the job is left. A NAME is a file in a directory of our own that does not
depend on the session (XDG_RUNTIME_DIR is there in a terminal and not in cron, and goes when its user logs out); a path is taken as it is.

Nothing polls here. Somebody has to sit in flock(2) while we listen to signals: a forked copy of memrun, which takes the lock for the open
file that both have, and goes. It hears by a signal (the end of a pipe) that memrun is dead, and does not outlive it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import time

from memrun import names, signals
from memrun.errors import LockedError, MemrunError, StoppedError
from memrun.units import format_duration

ENDING = frozenset({signals.TERM, signals.INT, signals.HUP})
NO_TURN = -1


def take(jitter: float, lock: str | None, patience: float | None) -> Lock | None:
    """Wait until a run may begin; its lock, where it is to have one."""
    wait(jitter)
    return None if lock is None else Lock(lock, patience)


def wait(jitter: float) -> None:
    """A random part of so many seconds; StoppedError as soon as a signal ends it."""
    share: float = int.from_bytes(os.urandom(4), "little") / (1 << 32)
    until = time.monotonic() + jitter * share
    while (left := until - time.monotonic()) > 0:
        number = signals.wait_for(ENDING - signals.ignored(), left)
        if number:
            raise StoppedError("stopped before it was started", number)


class Lock:
    """Held from here to `release`. `fd` is to be shared with whoever cleans up after us."""

    __slots__ = ("_ours", "fd", "path")

    def __init__(self, name: str, patience: float | None = 0.0) -> None:
        """`name`: a name, or a path where there is a / in it. `patience`: seconds, None is infinity. LockedError where somebody else has
        it all that time."""
        self._ours = "/" not in name
        self.path = f"{_place()}/{name}.lock" if self._ours else name
        until = None if patience is None else time.monotonic() + patience
        while True:
            self.fd = _opened(self.path)
            try:
                self._take(name, patience, until)
            except BaseException:
                os.close(self.fd)
                raise
            if os.fstat(self.fd).st_nlink:
                break
            os.close(self.fd)  # its holder was just releasing it: the name is of another file by now
        _sign(self.fd)

    def _take(self, name: str, patience: float | None, until: float | None) -> None:
        if _locked(self.fd):
            return
        left = None if until is None else until - time.monotonic()
        if (left is None or left > 0) and _stand_in_line(self.fd, left):
            return
        waited = "" if not patience else f", also after {format_duration(patience)}"
        remedy = "" if patience else "--lock-wait TIME waits for it"
        raise LockedError(f"not started: another run has the lock {name}{_holder(self.fd)}{waited}", remedy)

    def release(self) -> None:
        """Somebody else may have it."""
        fd, self.fd = self.fd, NO_TURN
        if fd < 0:
            return
        try:
            if self._ours:
                names.unlink(self.path, os.fstat(fd))
            elif _is_signed(fd):
                os.ftruncate(fd, 0)
        except OSError:
            pass  # what counts is the lock
        os.close(fd)


def _place() -> str:
    place = names.lasting_directory()
    if place is None:
        raise MemrunError("there is no directory of our own for locks", "Name a file instead: --lock=/path/to/file")
    return place


def _opened(path: str) -> int:
    """Any file can be locked, also one that we may only read."""
    try:
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
        except OSError as e:
            if e.errno not in {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR}:
                raise
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        why = "it is a symbolic link, and those are not followed" if e.errno == errno.ELOOP else e.strerror
        raise MemrunError(f"cannot open the lock {path}: {why}") from None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        raise MemrunError(f"cannot lock: {e.strerror}", "Some network file systems have no locks: name another file") from None
    return True


def _stand_in_line(fd: int, seconds: float | None) -> bool:
    """Whether we have got it in that time; StoppedError if a signal comes first."""
    signals.default(signals.CHLD)  # where it is ignored the kernel tells nobody of a child's end
    before = signals.block({signals.CHLD})
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        _queue(fd, theirs, ours)
    os.close(theirs)
    try:
        number = signals.wait_for({signals.CHLD, *(ENDING - signals.ignored())}, seconds)
        if number != signals.CHLD:
            os.kill(pid, signals.KILL)
        got = os.waitpid(pid, 0)[1] == 0
    finally:
        os.close(ours)
        signals.set_mask(before)
    if number not in {0, signals.CHLD}:
        raise StoppedError("stopped while it waited for its lock", number)
    return got


def _queue(fd: int, pipe: int, other: int) -> None:
    """In the copy. Never returns, never raises."""
    status = 1
    try:
        os.close(other)
        signals.default(signals.IO)
        signals.set_mask(signals.every() - {signals.IO})
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO, which ends us, at its end
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        if not ready.poll(0):
            fcntl.flock(fd, fcntl.LOCK_EX)
            status = 0
    finally:
        os._exit(status)


def _is_signed(fd: int) -> bool:
    """Whether nothing but a pid is in it: what a file holds beside its lock is its owner's."""
    text = os.pread(fd, 16, 0).strip()
    return not text or text.isdigit()


def _sign(fd: int) -> None:
    """Who has it, for those who ask. A lock that cannot be signed is a lock all the same."""
    try:
        if _is_signed(fd):
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        return


def _holder(fd: int) -> str:
    """' (pid 4711)', as it is signed or as the kernel has it; '' where neither tells."""
    try:
        text = os.pread(fd, 16, 0).strip()
        pid = text.decode() if text.isdigit() else _kernels_word(fd)
    except OSError:
        return ""
    return f" (pid {pid})" if pid else ""


def _kernels_word(fd: int) -> str:
    found = os.fstat(fd)
    file = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with open("/proc/locks", encoding="ascii", errors="replace") as f:
        for words in map(str.split, f):
            if words[1:2] == ["FLOCK"] and len(words) > 5 and words[5] == file:
                return words[4] if words[4].isdigit() and words[4] != "0" else ""
    return ""
