"""Where the sockets of this user's memruns are, and who has which name.

The place: $XDG_RUNTIME_DIR/memrun, or /run/memrun for root, or /tmp/memrun-UID: a directory of our own with mode 0700, never a link, or
there is none. A login's /run/user/UID counts where the variable was dropped, too (cron, su), and does not for root: who asks in a
login must find what cron started, and the other way round.

A name that was given (`--name`) is a job's alone, as it is with docker and `systemd-run --unit`: who asks for one that is in
use is refused. A name that was not given is the command's, and many may have it at a time; it is claimed as far as it is free, where
the command is not over at once (a claim on a disk costs 0.3 ms, a file that is written and removed), and who then says an ambiguous one is told the candidates. The claim is a lock (flock) on NAME.name in that directory: the kernel
lets go of it when memrun dies, however it does, so that no name is lost, and two that start in the same moment cannot both
get it. Measured: 0.05 ms.
"""

from __future__ import annotations

import os
import stat
import time

from memrun.errors import JobNameError

SOCKET, UNBORN = ".sock", ".new"  # of PID: who listens; who does not yet
TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.identity import Identity

PATIENCE = (0.001, 0.01, 0.05)  # seconds: who sweeps a dead memrun's name has it for some microseconds


def directory(*, make: bool = False) -> str | None:
    """The directory of this user's sockets; None where there is none that can be trusted."""
    me = os.geteuid()
    login = f"/run/user/{me}"
    runtime = os.environ.get("XDG_RUNTIME_DIR", "") or login
    if runtime.startswith("/") and _ours(runtime, me) and not (me == 0 and runtime == login):
        place = f"{runtime}/memrun"
    elif me == 0:
        place = "/run/memrun"
    else:
        place = f"/tmp/memrun-{me}"  # noqa: S108  (made by us with 0700, and looked at before it is used)
    if make and not os.path.lexists(place):
        _make(place)
    return place if _ours(place, me, private=True) else None


def lasting_directory() -> str | None:
    """One that is the same in every session of this user, and in none: for locks."""
    me = os.geteuid()
    place = "/run/memrun" if me == 0 else f"/tmp/memrun-{me}"  # noqa: S108  (as above)
    if not os.path.lexists(place):
        _make(place)
    return place if _ours(place, me, private=True) else None


def _make(place: str) -> None:
    try:
        os.mkdir(place, 0o700)
    except OSError:
        return  # the look that follows says so


def _ours(place: str, me: int, *, private: bool = False) -> bool:
    try:
        found = os.lstat(place)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == me and not (private and stat.S_IMODE(found.st_mode) & 0o077)


def unlink(path: str, mine: os.stat_result) -> None:
    """Remove a file of ours, if this path is still its name: the directory may have been removed and made anew meanwhile, and the
    path be another run's. Never raises: tidying up costs no result."""
    try:
        if os.path.samestat(os.lstat(path), mine):
            os.unlink(path)
    except OSError:
        return


def traces(name: str, pid: int = 0, report: str | None = None, who: Identity | None = None) -> tuple[str, ...]:
    """Files that a killed memrun leaves, as the dead man's hand wants them (hand.TIDY): its socket, the claim of this name, half a report.
    `pid`: by which we are known, if not ours; `who`: whose the report is."""
    place, known_as = directory(), pid or os.getpid()
    found = [] if place is None else [f"-1 -1 {place}/{known_as}{SOCKET}", f"-1 -1 {place}/{known_as}{UNBORN}"]
    if place is not None and name:
        found.append(f"-1 -1 {place}/{name}.name")
    if report is not None:
        owner = "-1 -1" if who is None else f"{who.uid} {who.gid}"
        found.append(f"{owner} {os.path.abspath(report)}.{os.getpid()}.part")
    return tuple(line for line in found if "\n" not in line)


class Claim:
    """A name, until it is released. `path` '': it was not to be had, or there is no place for claims."""

    __slots__ = ("_fd", "path")

    def __init__(self, name: str, *, insist: bool) -> None:
        """JobNameError where somebody else has it and we `insist`."""
        self._fd, self.path = -1, ""
        place = directory(make=True)
        path = f"{place}/{name}.name"
        if place is None or len(os.fsencode(name)) > 200:
            return
        try:
            self._fd = _locked(path)
            for pause in PATIENCE if insist else ():
                if self._fd < 0:  # perhaps it is only being swept
                    time.sleep(pause)
                    self._fd = _locked(path)
        except OSError:
            return  # a read-only or full file system is no place for claims, and says nothing of who else runs
        if self._fd >= 0:
            self.path = path
            _sign(self._fd)
        elif insist:
            raise JobNameError(
                f"a job called {name} is running already{_by(path)}", f"Choose another --name, or: memrun stop {name}"
            )

    def release(self) -> None:
        """Somebody else may have it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            unlink(self.path, os.fstat(fd))
            os.close(fd)


def _sign(fd: int) -> None:
    """Say whose claim it is. What counts is the lock: on a full file system a claim has no more than its name."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError:
        return


def _locked(path: str, *, make: bool = True) -> int:
    """The file, locked; -1 where somebody else has it."""
    import fcntl

    while True:
        fd = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return -1
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # its owner was just releasing it: the name is of another file by now


def _by(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            pid = f.read(16).strip()
    except OSError:
        return ""
    return f" (memrun {pid})" if pid.isdigit() else ""


def sweep(path: str) -> None:
    """Remove a claim whose owner has died without a chance to."""
    try:
        fd = _locked(path, make=False)
    except OSError:
        return
    if fd >= 0:
        unlink(path, os.fstat(fd))
        os.close(fd)
