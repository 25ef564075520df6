"""The dead man's hand: a tiny process that ends the jobs and removes their groups if memrun dies without doing so.

It holds the read end of a pipe whose write end memrun holds. memrun's normal end kills the hand; any other end (SIGKILL,
OOM, a crash) is the end of the pipe, unless "done" was said there, and the hand kills everything in the run directories, lets go of what holds it
(freezer, parked at a limit), and removes them. It starts *before* there is anything to clean up, in a session of its
own, with all signals blocked, so that no moment is uncovered and only SIGKILL and SIGSTOP reach it. Last it gives back what memrun took to make
groups (processes may live again in the group that it divided), and removes the files that memrun could not: it is told of them
through the same pipe when the command runs already, so that nothing of that holds up a start.

Why a shell: it must be small (the interpreter and its copied pages are 10 MB; dash has 108 KB of its own,
a PSS of 175 KB, and is there 0.3 ms later: measured), and sure:
it is one exec away from everything Python, reacts without needing memory that a Python would need, and its whole text is
below. PDEATHSIG is no substitute: it ends one process, not a tree, and the standard library has no call for it.

A job may have taken every process that there is. A shell whose fork fails ends, so:
 1. built-in commands alone kill, until nobody is left (fork-resistant: cgroup.kill, else the freezer, holds who forks meanwhile);
 2. only then, or to sleep in between, it forks. Where that fails, its EXIT trap executes the same script anew, which needs no
    process, and goes on where it was (dash: "Cannot fork" ends the shell; bash waits for 15 s first);
 3. where no process can be had for long, it executes Python (or find), which removes directories without forking.
Memory and descriptors are not a matter of life: it needs about as many as memrun itself has just let go of, and retries.

Over processes that memrun did not start (`memrun attach`) another hand is spread: it never kills. Before a process is moved,
memrun writes into the same pipe where it came from, so what the hand knows is complete at every moment; and at the end of the pipe it
takes the limits away, thaws, puts each process back, and removes the groups.

The write end is close-on-exec and inherited by a child between fork and exec: see launch.py why that is needed.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from memrun import signals
from memrun.errors import LaunchError

# The last thing that is done, where it is needed: no shell can remove a directory without a process, or look at a lock.
# Arguments: directories. $files: a line "UID GID PATH" for each file, UID -1 being ours (told as "file UID GID PATH").
TIDY = """
import fcntl, os, sys, time
def remove(path):
    for here, _, _ in os.walk(path, topdown=False):
        try: os.rmdir(here)
        except OSError: pass
    return not os.path.exists(path)
until = time.monotonic() + 10
while not all([remove(path) for path in sys.argv[1:]]) and time.monotonic() < until: time.sleep(0.02)
for line in os.environb[b"files"].splitlines():
    uid, gid, path = line.split(b" ", 2)
    try:
        if int(uid) >= 0: os.setgroups([int(gid)]); os.setegid(int(gid)); os.seteuid(int(uid))
        if path.endswith(b".name"):
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(fd).st_nlink: continue
        os.unlink(path)
    except OSError: pass
    if int(uid) >= 0: os.seteuid(0); os.setegid(0)
"""

# What both scripts begin with. $told: what the second one was told; $until: seconds since boot until which it tries; $tries: how often it
# was executed anew. An environment has no room for more than 100 KB.
ANEW = """PATH=/usr/sbin:/usr/bin:/sbin:/bin
hear() {
  while read -r said; do
    [ "$said" = done ] && exit 0
    case "$said" in
    "file "*) files="$files${said#file }
" ;;
    *) told="$told$said
" ;;
    esac
  done
}
[ "$until" ] || hear
clock() { read -r up rest < /proc/uptime; up=${up%%.*}; }
last() {
  trap - EXIT
  [ -x "$python" ] && exec "$python" -I -S -c "$tidy" "$@"
  exec find "$@" "$@" "$@" -depth -type d -delete
}
anew() {
  trap - EXIT
  tries=$((tries + 1))
  clock
  [ $up -le $until ] || last "$@"
  [ "$alive" ] || [ $tries -lt 30 ] || last "$@"
  [ ${#told} -lt 100000 ] || told=
  exec /bin/sh -c "$script" memrun-hand "$@"
}
drop() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && drop "${below%/}"; done
  rmdir "$1"
}
begin() {
  clock
  until=${until:-$((up + 10))} tries=${tries:-0} pass=0
  export until tries told files
  trap 'anew "$@"' EXIT
}
there() {
  for run in "$@"; do [ ! -d "$run" ] || return 0; done
  return 1
}
rest() {
  clock
  [ $up -le $until ] || return 1
  pass=$((pass + 1))
  [ "$alive" ] && [ $pass -lt 20 ] || { sleep 0.05 || sleep 1; }
}
"""

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
there "$@" && last "$@"
IFS='
'
set -f
for line in $files; do [ -e "${line#* * }" ] && last "$@"; done
trap - EXIT
exit 0
"""


# v2 lists a process that is being reaped at that moment as 0, and `kill -9 0` would be the hand itself (its process group). Who was killed
# while frozen dies when thawed, and needs some time for it: the freezer is closed for a moment in each twentieth round only.
SCRIPT = (
    """: memrun: ends the job if memrun dies
trap '' HUP INT QUIT TERM USR1 USR2 TSTP ALRM
"""
    + ANEW
    + """hold() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && hold "${below%/}"; done
  [ -e "$1/freezer.state" ] && echo FROZEN > "$1/freezer.state"
}
finish() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && finish "${below%/}"; done
  [ -e "$1/cgroup.kill" ] && echo 1 > "$1/cgroup.kill"
  [ -e "$1/memory.oom_control" ] && echo 0 > "$1/memory.oom_control"
  while read -r pid; do alive=1; [ "$pid" = 0 ] || kill -9 "$pid"; done < "$1/cgroup.procs"
}
thaw() {
  for below in "$1"/*/ "$1"/.[!.]*/ "$1"/..?*/; do [ -d "$below" ] && thaw "${below%/}"; done
  [ -e "$1/freezer.state" ] && echo THAWED > "$1/freezer.state"
}
begin
while there "$@"; do
  alive=
  [ $((pass % 20)) != 0 ] || for run in "$@"; do hold "$run"; done
  for run in "$@"; do [ -d "$run" ] && finish "$run"; done
  for run in "$@"; do thaw "$run"; done
  if [ ! "$alive" ] || [ $pass -ge 20 ]; then
    for run in "$@"; do [ -d "$run" ] && drop "$run"; done
    there "$@" || break
  fi
  rest || break
done
"""
    + GIVE_BACK
)


# What it is told, a line each, $2 of `look` being a place's number or 'score':
#   PID|* 1 DIRECTORY     the group that a process (* any other: born under memrun) goes back to in the first place's hierarchy
#   PID|* score NUMBER    its oom_score_adj before memrun made it immune
LET_GO = (
    """: memrun: lets the processes go if memrun dies
trap '' HUP INT QUIT TERM USR1 USR2 TSTP ALRM
IFS='
'
"""
    + ANEW.replace("read -r up rest", "IFS=' ' read -r up rest")
    + """look() {
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
  for pid in $here; do alive=1; calm "$pid"; home "$pid" "$2"; done
  [ -e "$1/memory.oom_control" ] && echo 0 > "$1/memory.oom_control"
}
begin
for run in "$@"; do [ -d "$run" ] && loose "$run"; done
while there "$@"; do
  number=0 alive=
  for run in "$@"; do
    number=$((number + 1))
    [ -d "$run" ] && empty "$run" $number
  done
  if [ ! "$alive" ] || [ $pass -ge 5 ]; then
    for run in "$@"; do [ -d "$run" ] && drop "$run"; done
    there "$@" || break
  fi
  rest || break
done
"""
    + GIVE_BACK
)
SHORT = 0.5  # seconds after which a hand that does not come to an end is woken again
LONG = 30.0  # seconds in which it has to come to its end
EVERY = signals.every() - {signals.CHLD}  # bash waits for its children by that one


class Hand:
    """The waiting process and our end of its pipe: which has an error to tell of (POLLERR) when that process is dead."""

    __slots__ = ("_locks", "_places", "_script", "_told", "pid", "pipe")

    def __init__(self, places: tuple[str, ...], locks: tuple[int, ...], script: str) -> None:
        self._places, self._locks, self._script = places, locks, script
        self._told: list[str] = []
        self.pid, self.pipe = _spawn(places, locks, script)

    def tell(self, line: str) -> None:
        """One line of what it is to know. Where it has been killed, another one is spread: nothing may be done behind its back."""
        self._told.append(line)
        try:
            _say(self.pipe, line)
        except BrokenPipeError:
            self.renew()

    def tell_of_files(self, files: tuple[str, ...]) -> None:
        """Files that it removes, too ("UID GID PATH", see TIDY). Whoever minds it tells the next one of them, where it has been killed."""
        lines = [f"file {line}" for line in files]
        self._told += lines
        try:
            for line in lines:
                _say(self.pipe, line)
        except BrokenPipeError:
            return

    def renew(self) -> bool:
        """Spread another where this one is dead, which knows all that it knew; whether it was. LaunchError where none is to be had."""
        if self.pipe < 0 or not self.is_broken():
            return False
        pid, pipe = _spawn(self._places, self._locks, self._script)
        for line in self._told:
            _say(pipe, line)
        self._leave()
        self.pid, self.pipe = pid, pipe
        return True

    def mind(self) -> str:
        """`renew`, and what there is to say of it; '' where it lives."""
        try:
            return "the dead man's hand was killed: another one is spread" if self.renew() else ""
        except LaunchError as e:
            return f"the dead man's hand was killed, and there is no other: {e.what}"

    def is_broken(self) -> bool:
        """Whether it is dead."""
        import select

        look = select.poll()
        look.register(self.pipe, 0)
        return bool(look.poll(0))

    def dismiss(self) -> None:
        """All is clean: it goes, also one that somebody has stopped, and is reaped."""
        if self.pipe >= 0:
            self._signal(signals.KILL)
            self._leave()

    def _signal(self, number: int) -> None:
        """To our child; in a program that reaps all children itself its pid may be somebody else's by now."""
        try:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        os.kill(self.pid, number)

    def _leave(self) -> None:
        pipe, self.pipe = self.pipe, -1
        os.close(pipe)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            return

    def let_go(self) -> None:
        """Let it do its work now; whoever calls this reaps it."""
        pipe, self.pipe = self.pipe, -1
        os.close(pipe)

    def clench(self) -> None:
        """Let it do its work now, and wait until it has: for the cases in which memrun itself cannot. One that was killed is spread anew; one
        that is stopped is woken, and killed where that does not help."""
        if self.pipe < 0:
            return
        import select

        try:
            self.renew()
            end = os.pidfd_open(self.pid)
        except (LaunchError, OSError):  # no process or no descriptor is to be had, or somebody has reaped it
            self._leave()
            return
        os.close(self.pipe)
        self.pipe = end
        look, until = select.poll(), time.monotonic() + LONG
        look.register(end, select.POLLIN)
        self._signal(signals.CONT)
        while not look.poll(SHORT * 1000):
            self._signal(signals.CONT if time.monotonic() < until else signals.KILL)
        self._leave()


def _say(pipe: int, line: str) -> None:
    os.write(pipe, f"{line}\n".encode(errors="surrogateescape"))


def spread(places: tuple[str, ...], locks: tuple[int, ...] = (), script: str = SCRIPT) -> Hand:
    """Start the hand over these directories (they need not exist yet). `locks`: flock(2)ed descriptors that it shares, so that
    nobody else has a lock before it has cleaned up."""
    return Hand(places, locks, script)


def _spawn(places: tuple[str, ...], locks: tuple[int, ...], script: str) -> tuple[int, int]:
    """Its pid, and our end of its pipe."""
    theirs, ours = os.pipe()
    actions = [
        (os.POSIX_SPAWN_DUP2, theirs, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ]
    known = {"memrun": str(os.getpid()), "script": script, "tidy": TIDY, "python": _python()}
    for lock in locks:
        os.set_inheritable(lock, True)  # nothing else is started before they are ours alone again
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", script, "memrun-hand", *places],
            known,
            file_actions=actions,
            setsid=True,
            setsigmask=EVERY,
            setsigdef=sorted({signals.CHLD, signals.CONT}),
        )
    except OSError as e:
        os.close(ours)
        raise LaunchError(f"cannot start a process: {os.strerror(e.errno or errno.EIO)}", 125) from None
    finally:
        os.close(theirs)
        for lock in locks:
            os.set_inheritable(lock, False)
    return pid, ours


def _python() -> str:
    """The interpreter: whoever has memrun inside of it may be another program."""
    return sys.executable if os.path.basename(sys.executable or "").startswith(("python", "pypy")) else ""
