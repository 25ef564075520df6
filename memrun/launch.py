"""Start a command inside its group: hold signals, fork, enter, exec. No group is known here: only descriptors to write '0' into.

Order in the child, and why (what can be, is made before the fork: whatever the child writes to first, it copies):
 1. everything that touches memory (dispositions, descriptors, arguments) before it enters: fork copies a page on first
    touch, and whatever is touched after entering is charged to the job;
 2. '0' into each group's file (one of them it may be born in: birth.py): the memory group last, so that little but the exec itself happens inside it. It is written with
    the rights with which memrun opened the file, so a user who may not enter the group is put into it all the same;
 3. only then, where somebody else is to run it, privileges go (surroundings.py): what lowers a nice value or an OOM score has
    happened before, what opens the user's files comes after;
 4. exec. What fails comes back as (stage, errno) or as a sentence, through a close-on-exec pipe, whose silence means success.

The pipe to the dead man's hand is inherited until the exec closes it. That is on purpose: the hand sees the end of
that pipe only when memrun is dead *and* no child is between fork and exec, so nothing can start behind its back.

Called in the main thread only: fork and a parent-death bond belong to the thread that forks.
"""

from __future__ import annotations

import errno
import os

from memrun import birth, signals
from memrun.errors import FAILED, NOT_EXECUTABLE, NOT_FOUND, CrowdedError, LaunchError, MemrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memrun.surroundings import Surroundings

STAGES = ("prepare", "enter its memory group", "execute")
PREPARE, ENTER, EXEC, SAID = range(4)  # SAID: a sentence follows, and the number is the exit status
FALLBACK_PATH = "/usr/local/bin:/usr/bin:/bin"
SCORE = "/proc/self/oom_score_adj"
UNBORN = (
    "memrun-launch"  # a child's name until the exec gives it its own: what the kernel kills by this name was not the command yet
)


class Order:
    """What to start. `procs_fds`: files that take '0'; `birthplace`: a directory that spares the first of them. `mask`: the signal mask that the command gets."""

    __slots__ = (
        "argv",
        "around",
        "birthplace",
        "environ",
        "exempt",
        "immune",
        "keep",
        "mask",
        "note",
        "own_group",
        "path",
        "procs_fds",
        "score",
        "stderr",
        "stdin",
        "stdout",
        "undo",
        "words",
    )

    files: tuple[int, int] | None = (
        None  # limit on open files for whatever is started, where memrun has changed its own (batch/openfiles.py)
    )
    scheduling: tuple[int, int] | None = None  # its policy and nice value, where memrun has changed its own (priority.py)

    deliver: Callable[[Order, int], int] | None = None  # who forks for us, if we are large (batch/midwife.py)

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str] | None = None, directory: str = "") -> None:
        """`directory`: where the command will be looked up and start, if not here."""
        self.argv = list(argv)
        self.words = [_encoded(word) for word in argv]
        self.environ = dict(os.environb) if environ is None else {_encoded(k): _encoded(v) for k, v in environ.items()}
        self.path = find(self.argv[0] if self.argv else "", self.places(), directory)
        self.around: Surroundings | None = None  # user, directory, files: takes them on, in the child
        self.procs_fds: tuple[int, ...] = ()
        self.birthplace = -1
        self.note: tuple[int, bytes] | None = None  # what the child says there before it enters, behind its pid (batch/will.py)
        self.mask: frozenset[int] = frozenset()
        self.keep: frozenset[int] = frozenset()  # signals that stay ignored (nohup)
        self.undo = signals.ignored()  # those that are now
        self.exempt = _is_exempt()  # so are we
        self.immune = False  # to the OOM killer, where we may: for a job that is held at its limit instead (v2)
        self.score: int | None = None  # oom_score_adj that was asked for: it goes before immunity
        self.own_group = False  # a process group of its own
        self.stdin: int | None = None
        self.stdout: int | None = None
        self.stderr: int | None = None

    def places(self) -> str:
        """Its PATH."""
        return os.fsdecode(self.environ.get(b"PATH", FALLBACK_PATH))


def _encoded(text: str) -> bytes:
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise LaunchError(f"no program can be given {text!r}", FAILED) from None


class Child:
    """A started command: its pid, a descriptor that becomes readable when it has ended, and when it began (monotonic)."""

    __slots__ = ("counted", "left", "pid", "pidfd", "rusage", "status", "will")

    def __init__(self, pid: int, pidfd: int, will: int = -1) -> None:
        """`will`: where its end is noted down before it is reaped (batch/will.py)."""
        self.pid = pid
        self.pidfd = pidfd
        self.will = will
        self.counted = False  # its CPU time, by its group
        self.left: list[int] = []  # processes that it had left behind when it ended
        self.status: int | None = None  # as from waitpid
        self.rusage: tuple[float, int] | None = None  # CPU seconds, largest RSS in bytes: of it and those it waited for

    def reap(self) -> int | None:
        """The raw wait status, or None while it runs. Reaps once; afterwards the answer is remembered."""
        if self.status is None:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            well = found.si_code == os.CLD_EXITED and not found.si_status
            if self.will >= 0:  # reaped first, nobody else could ever know
                os.write(self.will, b"%s %d\n" % (b"=" if well else b"x", self.pid))
            self._bury(well=well)
        return self.status

    def _bury(self, *, well: bool) -> None:
        if well and self.counted:  # all that is of interest then is known: wait4 loads a shared library first, 0.3 ms
            self.status = os.waitpid(self.pid, 0)[1]
        else:
            _, self.status, usage = os.wait4(self.pid, 0)
            self.rusage = (usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has been reaped."""
        if self.status is None:
            signals.send_pidfd(self.pidfd, number)

    def close(self) -> None:
        """Let go of the descriptor."""
        fd, self.pidfd = self.pidfd, -1
        if fd >= 0:
            os.close(fd)


def find(command: str, path: str, directory: str = "") -> str:
    """The file that the command names, by execvp's rules, as seen from `directory` (here); LaunchError 127 or 126 where there is
    none to run. A place that is closed to us is left to the exec."""
    if not command:
        raise LaunchError("no command was given", NOT_FOUND)
    places = [command] if "/" in command else [f"{p or '.'}/{command}" for p in path.split(":")]
    refused = ""
    for place in places:
        there = os.path.join(directory, place)
        if os.path.isdir(there):
            refused = refused or f"{place} is a directory, not a command"
        elif os.access(there, os.X_OK) or (there == os.path.join(directory, command) and _is_closed(there)):
            return place
        elif os.path.lexists(there) and os.path.exists(there):
            refused = refused or f"{place} is not executable"
    if refused and "/" in command:
        raise LaunchError(refused, NOT_EXECUTABLE, "" if "directory" in refused else f"Try: chmod +x {command}")
    if refused and "directory" not in refused:
        raise LaunchError(refused, NOT_EXECUTABLE)
    where = "there is no such file" if "/" in command else "it is nowhere on PATH"
    raise LaunchError(f"command {command!r} not found: {where}", NOT_FOUND)


def _is_closed(place: str) -> bool:
    try:
        os.stat(place)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


class Underway:
    """A child between fork and exec. `news`: a descriptor that is readable when it is through, one way or the other.

    Entering a group can take the kernel milliseconds (since 6.0 it waits for an RCU grace period), in which a batch has better to do.
    """

    __slots__ = ("_order", "child", "news")

    def __init__(self, order: Order, child: Child, news: int) -> None:
        self._order, self.child, self.news = order, child, news

    def settle(self) -> Child:
        """Wait until the command is running, once. LaunchError says which step failed; the child is reaped then."""
        said = b""
        try:
            while part := os.read(self.news, 4096):
                said += part
        finally:
            os.close(self.news)
        if said:
            os.waitpid(self.child.pid, 0)
            self.child.close()
            raise _failure(self._order, said[0], int.from_bytes(said[1:5], "little"), said[5:])
        return self.child


def launch(order: Order) -> Child:
    """Fork, enter, exec; returns when the command is running. LaunchError says which step failed."""
    return start(order).settle()


def start(order: Order) -> Underway:
    """Fork. LaunchError where there can be no further process."""
    told, tell = os.pipe()
    before = signals.block(signals.every())
    try:
        pid = order.deliver(order, tell) if order.deliver is not None else 0
        if not pid:
            pid, born = birth.fork(order.birthplace)
            if pid == 0:
                become(order, tell, born=born)
    except OSError as e:
        os.close(tell)
        os.close(told)
        raise CrowdedError(f"cannot start a process: {os.strerror(e.errno or 0)}", 125) from None
    finally:
        signals.set_mask(before)
    os.close(tell)
    return Underway(order, Child(pid, os.pidfd_open(pid), -1 if order.note is None else order.note[0]), told)


def _failure(order: Order, stage: int, number: int, words: bytes) -> LaunchError:
    if stage == SAID:
        what, _, remedy = words.decode(errors="replace").partition("\0")
        return LaunchError(what, number, remedy)
    if stage != EXEC:
        kind = CrowdedError if number == errno.EAGAIN else LaunchError
        return kind(f"{order.argv[0]} could not {STAGES[stage]}: {os.strerror(number)}", 125)
    if number == errno.ENOEXEC:
        return LaunchError(
            f"{order.path} is not a program: it has no #! line and no known binary format", NOT_EXECUTABLE,
            f"Start it with an interpreter: sh {order.path}",
        )  # fmt: skip
    if number == errno.ENOENT:
        return LaunchError(f"the interpreter that {order.path} names does not exist", NOT_FOUND)
    if number == errno.E2BIG:
        return LaunchError(f"the arguments and environment of {order.argv[0]} are too long", NOT_EXECUTABLE)
    as_whom = order.around.as_whom if order.around is not None else ""
    if number == errno.EAGAIN and as_whom:
        return LaunchError(
            f"cannot execute {order.path}{as_whom}: that user has all the processes that it may", FAILED, "See ulimit -u"
        )
    if number in {errno.ENOMEM, errno.EAGAIN}:
        return LaunchError(f"the limit leaves no room to start {order.argv[0]}", 125, "Give it a larger --limit")
    return LaunchError(f"cannot execute {order.path}{as_whom}: {os.strerror(number)}", NOT_EXECUTABLE)


def become(order: Order, tell: int, *, born: bool) -> None:
    """Between fork and exec. `born`: in the birthplace. Never returns, never raises."""
    stage = PREPARE
    try:
        _reset(order)
        if order.own_group:
            os.setpgid(0, 0)
        _redirect(order)
        if order.around is not None:
            order.around.before()
        _warm(order)
        call_itself(UNBORN)
        if order.note is not None:
            os.write(order.note[0], b"+ %d %s\n" % (os.getpid(), order.note[1]))
        stage = ENTER
        for fd in order.procs_fds[1 if born else 0 :]:
            os.write(fd, b"0")
        if order.around is not None:
            order.around.after()
        stage = EXEC
        _execute(order)
    except MemrunError as e:
        os.write(tell, bytes([SAID]) + e.status.to_bytes(4, "little") + f"{e.what}\0{e.remedy}".encode(errors="replace"))
    except OSError as e:
        os.write(tell, bytes([stage]) + (e.errno or errno.EIO).to_bytes(4, "little"))
    except BaseException:  # noqa: BLE001  (a forked copy of memrun must not go on as a second memrun)
        os.write(tell, bytes([stage]) + errno.EINVAL.to_bytes(4, "little"))
    finally:
        os._exit(125)


def _execute(order: Order) -> None:
    try:
        os.execve(order.path, order.words, order.environ)
    except PermissionError:
        if order.around is None or "/" in order.argv[0]:
            raise
        # found with root's eyes; the user that we are by now may have to look further down PATH
        os.execve(find(order.argv[0], order.places()), order.words, order.environ)


def _reset(order: Order) -> None:
    """Default dispositions (Python ignores SIGPIPE and SIGXFSZ), the caller's mask, and no inherited OOM immunity."""
    for number in order.undo - order.keep:
        signals.default(number)
    signals.set_mask(order.mask)
    if order.files is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, order.files)
    if order.scheduling is not None:
        _schedule(*order.scheduling)
    if order.exempt or order.immune or order.score is not None:
        _score(order.score, immune=order.immune)


def _schedule(policy: int, nice: int) -> None:
    """As memrun was before it was ahead of everybody, which it might be again: so it may do this, too."""
    try:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except PermissionError:
        return  # real time by RLIMIT_RTPRIO, and a nice value below 0 that only somebody else may give: it starts at 0


def _score(asked: int | None, *, immune: bool) -> None:
    """An inherited oom_score_adj of -1000 would make the limit unenforceable (Nomad#10663): back to 0, unless it is asked for.
    Immunity is for jobs that are held at their limit; lowering the score takes CAP_SYS_RESOURCE, and without it, or with another
    score asked for, the trip wire stands alone."""
    fd = os.open(SCORE, os.O_RDWR | os.O_CLOEXEC)
    try:
        if asked is not None:
            os.pwrite(fd, b"%d" % asked, 0)
        elif immune:
            os.pwrite(fd, b"-1000", 0)
        elif os.read(fd, 16).strip() == b"-1000":
            os.pwrite(fd, b"0", 0)
    except PermissionError:
        if asked is not None:
            why = "To lower it takes CAP_SYS_RESOURCE: root has it, though not in every container"
            raise LaunchError(f"cannot set oom_score_adj to {asked}: Permission denied", FAILED, why) from None
    finally:
        os.close(fd)


def _is_exempt() -> bool:
    """Asked before the fork: the child's own directory in /proc, which the kernel has to make first, takes five times as long."""
    try:
        fd = os.open(SCORE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 16).strip() == b"-1000"
        finally:
            os.close(fd)
    except OSError:
        return True  # the child will say what is wrong


def _redirect(order: Order) -> None:
    for target, fd in enumerate((order.stdin, order.stdout, order.stderr)):
        if fd is not None and fd != target:
            os.dup2(fd, target)


def call_itself(name: str) -> None:
    """In ps and top, 15 bytes of it."""
    fd = os.open("/proc/self/comm", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, name.encode())
    finally:
        os.close(fd)


def _warm(order: Order) -> None:
    """Take the road of the coming exec once, to a place that cannot be executed: its pages are ours then, not the job's."""
    try:
        os.execve("/", order.words, order.environ)
    except OSError:
        return
