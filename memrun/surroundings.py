"""What a command has around it that is not memrun's own: user, environment, directory, umask, nice value, output files.

Only loaded where one of those is asked for: a plain run starts without. `order` is made before anything is started, and says
what is missing; the rest happens in the child (launch.py), in two parts. Before it enters its group, with memrun's own
rights: nice value and umask. After that, in the group: the privileges go; then files are opened and the directory is entered,
with nothing but the user's rights, so that a symlink gives him nothing that he has not. Then only the exec is left.
"""

from __future__ import annotations

import errno
import os

from memrun import environment, identity, launch
from memrun.errors import FAILED, LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.identity import Identity
    from memrun.options import Spec

# O_NONBLOCK: a FIFO that nobody reads must not hold memrun up (it waits for the exec, its signals blocked)
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


class Surroundings:
    """Where the command is to find itself. `files`: descriptor -> path, appended to; none where
    the caller brings descriptors of its own (spec.streams)."""

    __slots__ = ("files", "nice", "umask", "who", "working_dir")

    def __init__(self, spec: Spec, who: Identity | None) -> None:
        self.who = who
        self.nice, self.umask = spec.nice, spec.umask
        self.working_dir = _directory(spec.working_dir, who)
        named = {1: spec.stdout, 2: spec.stderr} if spec.streams is None else {}
        self.files = {target: path for target, path in named.items() if path}

    @property
    def as_whom(self) -> str:
        """For complaints: ' as user nobody'."""
        return identity.as_whom(self.who)

    def before(self) -> None:
        """In the child, with memrun's rights, not in the group yet."""
        if self.nice is not None:
            self._set_nice(self.nice)
        if self.umask is not None:
            os.umask(self.umask)

    def _set_nice(self, nice: int) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as e:
            now = os.getpriority(os.PRIO_PROCESS, 0)
            remedy = f"To go below {now} takes CAP_SYS_NICE: root has it, though not in every container" if nice < now else ""
            raise LaunchError(f"cannot set the nice value to {nice}: {_why(e)}", FAILED, remedy) from None

    def after(self) -> None:
        """In the child, in its group."""
        if self.who is not None:
            identity.become(self.who)
        for target, path in self.files.items():
            self._open(target, path)
        if self.working_dir:
            try:
                os.chdir(self.working_dir)
            except OSError as e:
                raise LaunchError(f"cannot enter the directory {self.working_dir}{self.as_whom}: {_why(e)}", FAILED) from None

    def _open(self, target: int, path: str) -> None:
        try:
            fd = os.open(path, APPEND, 0o666)
        except OSError as e:
            why = "nobody reads from it" if e.errno == errno.ENXIO else _why(e)
            raise LaunchError(f"cannot open {path}{self.as_whom} to write to it: {why}", FAILED) from None
        os.set_blocking(fd, True)
        os.dup2(fd, target)
        if fd != target:
            os.close(fd)


def _why(e: OSError) -> str:
    return os.strerror(e.errno or errno.EIO)


def _directory(asked: str, who: Identity | None) -> str:
    """Where to go; `~` is the home of whom the command is run as. One that is not there is told at once, one that only its
    user may see (a root-squashed home) is left to him."""
    if asked == "~" or asked.startswith("~/"):
        home = who.home if who is not None and who.home else os.environ.get("HOME", "")
        if not home:
            raise LaunchError(f"there is no home that {asked} could mean", FAILED)
        asked = home + asked[1:]
    try:
        if asked and not _is_directory(asked):
            raise LaunchError(f"{asked} is not a directory", FAILED)
    except PermissionError:
        pass
    return asked


def _is_directory(path: str) -> bool:
    try:
        return os.stat(path).st_mode & 0o170000 == 0o040000
    except (FileNotFoundError, NotADirectoryError):
        raise LaunchError(f"there is no directory {path}", FAILED) from None


def order(spec: Spec) -> launch.Order:
    """What is to be started, complete but for its group. MemrunError where user, group, directory or files are not what they
    should be; nothing is started, made or opened for writing."""
    who = identity.look_up(str(spec.user), str(spec.group))
    around = Surroundings(spec, who)
    base = environment.inherited(spec.pass_environment)
    base.update(who.variables() if who is not None else {})
    files = [environment.read(path, who) for path in spec.env_file]
    environ = environment.merged(base, files, dict(spec.environment))
    made = launch.Order(spec.command, environ, around.working_dir)
    made.around = around
    made.score = spec.oom_score_adj
    return made
