"""The dead man's hand: a tiny process that ends the jobs and removes their groups if memrun dies without doing so.

It holds the read end of a pipe whose write end memrun holds. memrun's normal end says "done" there; any other end (SIGKILL,
OOM, a crash) is the end of the pipe, and the hand kills everything in the run directories, lets go of what holds it
(freezer, parked at a limit), and removes them. It starts *before* there is anything to clean up, in a session of its
own, so that no moment is uncovered and no terminal or process-group signal reaches it. Last it gives back what memrun took to make
groups: processes may live again in the group that it divided.

Why a shell: it must be small (the interpreter and its copied pages are 10 MB; dash has 108 KB of its own,
a PSS of 175 KB, and is there 0.3 ms later: measured), and sure:
it is one exec away from everything Python, reacts without needing memory that a Python would need, and its whole text is
below. PDEATHSIG is no substitute: it ends one process, not a tree, and the standard library has no call for it.

Over processes that memrun did not start (`memrun attach`) another hand is spread: it never kills. Before a process is moved,
memrun writes into the same pipe where it came from, so what the hand knows is complete at every moment; and at the end of the pipe it
takes the limits away, thaws, puts each process back, and removes the groups.

The write end is close-on-exec and inherited by a child between fork and exec: see launch.py why that is needed.
"""

from __future__ import annotations

import errno
import os

from memrun import signals
from memrun.errors import LaunchError

# What ground.restore does, after the death of the one who should have: nobody could enter that group any more (v2 wants no process in a
# group that hands memory down). $memrun: the pid by which memrun called its leaf.
GIVE_BACK = """give_back() {
  for leaf in "$1/memrun-self-$memrun" "$1/memrun-rest"; do
    [ -d "$leaf" ] || continue
    for other in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ ! -d "$other" ] || [ "${other%/}" = "$leaf" ] || return 0; done
    divided=
    read -r weight < "$leaf/cpu.weight" && [ "$weight" = 10000 ] && divided=-cpu
    echo -memory $divided > "$1/cgroup.subtree_control"
    for round in 1 2 3 4 5; do
      while read -r pid; do echo "$pid" > "$1/cgroup.procs"; done < "$leaf/cgroup.procs"
      rmdir "$leaf" && break
    done
  done
}
for run in "$@"; do give_back "${run%/*}"; done
exit 0
"""


# v2 lists a process that is being reaped at that moment as 0, and `kill -9 0` would be the hand itself (its process group).
SCRIPT = (
    """: memrun: ends the job if memrun dies
trap '' HUP INT QUIT TERM USR1 USR2 TSTP
read -r said
[ "$said" = done ] && exit 0
PATH=/usr/sbin:/usr/bin:/sbin:/bin
finish() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && finish "${below%/}"; done
  [ -e "$1/cgroup.kill" ] && echo 1 > "$1/cgroup.kill"
  [ -e "$1/memory.oom_control" ] && echo 0 > "$1/memory.oom_control"
  while read -r pid; do [ "$pid" = 0 ] || kill -9 "$pid"; done < "$1/cgroup.procs"
  [ -e "$1/freezer.state" ] && echo THAWED > "$1/freezer.state"
  rmdir "$1"
}
left=200
while [ $left -gt 0 ]; do
  again=
  for run in "$@"; do [ -d "$run" ] && finish "$run" && [ -d "$run" ] || [ -d "$run" ] && again=1; done
  [ "$again" ] || break
  left=$((left - 1))
  sleep 0.05 || sleep 1
done
"""
    + GIVE_BACK
)


# What it is told, a line each, $2 of `look` being a place's number or 'score':
#   PID|* 1 DIRECTORY     the group that a process (* any other: born under memrun) goes back to in the first place's hierarchy
#   PID|* score NUMBER    its oom_score_adj before memrun made it immune
LET_GO = (
    """: memrun: lets the processes go if memrun dies
trap '' HUP INT QUIT TERM USR1 USR2 TSTP
told=
IFS='
'
while read -r said; do
  [ "$said" = done ] && exit 0
  told="$told$said
"
done
PATH=/usr/sbin:/usr/bin:/sbin:/bin
look() {
  set -f
  found=
  for line in $told; do
    case $line in "$1 $2 "*) found=${line#"$1 $2 "}; set +f; return 0;; esac
  done
  set +f
  return 1
}
loose() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && loose "${below%/}"; done
  for file in memory.memsw.limit_in_bytes memory.limit_in_bytes; do [ -e "$1/$file" ] && echo -1 > "$1/$file"; done
  for file in memory.high memory.max; do [ -e "$1/$file" ] && echo max > "$1/$file"; done
  [ -e "$1/cgroup.freeze" ] && echo 0 > "$1/cgroup.freeze"
  [ -e "$1/freezer.state" ] && echo THAWED > "$1/freezer.state"
}
calm() {
  look "$1" score || look '*' score || return
  read -r now < "/proc/$1/oom_score_adj" && [ "$now" = -1000 ] && echo "$found" > "/proc/$1/oom_score_adj"
}
home() {
  look "$1" "$2" || look '*' "$2" || return
  while [ "$found" ]; do
    [ -e "$found/cgroup.procs" ] && echo "$1" > "$found/cgroup.procs" && return
    found=${found%/*}
  done
}
empty() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && empty "${below%/}" "$2"; done
  here=
  while read -r pid; do here="$here$pid
"; done < "$1/cgroup.procs"
  for pid in $here; do calm "$pid"; home "$pid" "$2"; done
  [ -e "$1/memory.oom_control" ] && echo 0 > "$1/memory.oom_control"
  rmdir "$1"
}
for run in "$@"; do [ -d "$run" ] && loose "$run"; done
left=200
while [ $left -gt 0 ]; do
  again= number=0
  for run in "$@"; do
    number=$((number + 1))
    [ -d "$run" ] && empty "$run" $number
    [ -d "$run" ] && again=1
  done
  [ "$again" ] || break
  left=$((left - 1))
  [ $left -gt 150 ] || sleep 0.05 || sleep 1
done
"""
    + GIVE_BACK
)


class Hand:
    """The waiting process and our end of its pipe."""

    __slots__ = ("_pipe", "pid")

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe

    def tell(self, line: str) -> None:
        """One line of what it is to know; a hand that is gone is an error: nothing may be done behind its back."""
        try:
            os.write(self._pipe, f"{line}\n".encode(errors="surrogateescape"))
        except BrokenPipeError:
            raise LaunchError("the dead man's hand is gone: somebody has killed it", 125) from None

    def dismiss(self) -> None:
        """All is clean: let it go, and reap it."""
        if self._pipe >= 0:
            _say_done(self._pipe)
            self._leave()

    def _leave(self) -> None:
        pipe, self._pipe = self._pipe, -1
        os.close(pipe)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            return

    def clench(self) -> None:
        """Let it do its work now, and wait until it has: for the cases in which memrun itself cannot."""
        if self._pipe >= 0:
            self._leave()


def _say_done(pipe: int) -> None:
    try:
        os.write(pipe, b"done\n")
    except BrokenPipeError:  # somebody killed it; it is still ours to reap
        return


def spread(places: tuple[str, ...], locks: tuple[int, ...] = (), script: str = SCRIPT) -> Hand:
    """Start the hand over these directories (they need not exist yet). `locks`: flock(2)ed descriptors that it shares, so that
    nobody else has a lock before it has cleaned up."""
    theirs, ours = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ]
    for lock in locks:
        os.set_inheritable(lock, True)  # nothing else is started before they are ours alone again
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", script, "memrun-hand", *places],
            {"memrun": str(os.getpid())},
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=sorted({signals.CHLD, signals.CONT}),
        )
    except OSError as e:
        os.close(ours)
        raise LaunchError(f"cannot start a process: {os.strerror(e.errno or errno.EIO)}", 125) from None
    finally:
        os.close(theirs)
        for lock in locks:
            os.set_inheritable(lock, False)
    return Hand(pid, ours)
