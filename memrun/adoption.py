"""--best-effort needs several processes, as `memrun up` does (batch/keeper.py): orphans must come to somebody of ours, and be told from what
memrun starts for itself.

The process that was started, which the shell knows, is the outer one: a "subreaper", so that whatever in the job loses its parent becomes its
child, daemons too. Its only other child is the inner one, which is memrun as ever. If that is killed, all of the job comes to the outer
one, which kills until nobody is left. If the outer one is killed, the sampler (cgroup/sampler.py) hears of it and kills all that it knows,
with whom it finds by the variable that the job's environment has, and the inner one is asked to stop (PR_SET_PDEATHSIG): what escapes
then is only who was orphaned since the latest look *and* has another environment. If all three are killed in the same moment, the job goes on.
"""

from __future__ import annotations

import os
import time

from memrun import cgroup, errors, kin, signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.cgroup import sampled
    from memrun.options import Spec

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
MARK = "MEMRUN_ADOPTED"  # in the job's environment
AGAIN, ROUNDS = 0.005, 2000  # seconds between rounds of killing; who has become another user's outlasts any number of them


class Adopted:
    """What the inner process is told. `lifeline`: a descriptor that is at its end when the outer one is dead."""

    __slots__ = ("lifeline", "outer", "why")

    def __init__(self, outer: int, lifeline: int, why: str) -> None:
        self.outer, self.lifeline, self.why = outer, lifeline, why


def enter(spec: Spec) -> int:
    """-1 in the process that is to run the job; in the outer one, when it is over, the exit status. Signals are blocked, and stay so."""
    why = _missing()
    if why is None:
        return -1
    _prctl(SET_CHILD_SUBREAPER, 1)
    theirs, ours = os.pipe()
    outer, pid = os.getpid(), os.fork()
    if pid:
        os.close(theirs)
        return _wait(pid)
    os.close(ours)
    spec.adopted = Adopted(outer, theirs, why.what)
    _prctl(SET_PDEATHSIG, signals.TERM)
    if os.getppid() != outer:
        os._exit(errors.FAILED)
    return -1


def host(spec: Spec, say: Callable[[str], None]) -> sampled.Host:
    """In place of the kernel's groups; in the inner process."""
    from memrun.cgroup import sampled

    adopted = spec.adopted
    assert adopted is not None
    if spec.pressure:
        raise errors.LimitError(f"--pressure takes a memory group: {adopted.why}", sampled.REMEDY)
    os.environ[MARK] = mark = f"{adopted.outer}.{os.urandom(4).hex()}"  # for the job, and whatever it starts
    say(f"{spec.name}: best effort: {adopted.why}; its memory is only looked at, and may pass the limit for a moment")
    return sampled.Host(adopted.outer, adopted.lifeline, f"{MARK}={mark}")


def _missing() -> errors.NoCgroupError | None:
    """Why no memory group is to be had."""
    try:
        host = cgroup.open_host(os.getpid())
        host.begin()
    except errors.NoCgroupError as e:
        return e
    host.end()
    return None


def _prctl(what: int, value: int) -> None:
    import ctypes  # the standard library has no prctl; only who asks for this pays for it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(what, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "prctl")


def _wait(inner: int) -> int:
    """Forward signals, reap orphans; when the inner one has ended nobody is left."""
    signals.block({signals.CHLD})
    while (status := _reap(inner)) is None:
        number, by_terminal = signals.wait({*signals.HEARD, signals.CHLD})
        if number != signals.CHLD and not by_terminal:
            os.kill(inner, number)
    rounds = ROUNDS
    while rounds and _kill_below():
        _reap(0)
        time.sleep(AGAIN)
        rounds -= 1
    died_of = status & 0x7F
    if died_of == signals.INT:
        signals.default(signals.INT)
        os.kill(os.getpid(), signals.INT)
        signals.set_mask(signals.every() - {signals.INT})
    if died_of:
        raise errors.MemrunError(f"the process that ran the job died of {signals.name(died_of)}, and the job was ended")
    return status >> 8


def _reap(inner: int) -> int | None:
    """Everybody who has ended; the inner one's wait status, if it is among them."""
    found = None
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return found
            if pid == inner:
                found = status
    except ChildProcessError:
        return found


def _kill_below() -> bool:
    """SIGKILL to all that descends from us; whether there was anybody. Who is stopped first cannot fork meanwhile."""
    for number in (signals.STOP, signals.KILL):
        below = _below()
        for pid in below:
            try:
                os.kill(pid, number)
            except (ProcessLookupError, PermissionError):
                continue
    return bool(below)


def _below() -> list[int]:
    table = kin.look()
    mine = os.getpid()
    return [pid for pid in table if mine in kin.ancestors(table, pid)]
