"""Who the command is run as: looked up before anything is started, become in the child after it has entered its group.

Only root can be somebody else. Privileges go in the one order that works (supplementary groups, group, user: without the
user's privileges the groups could not be set any more), all three ids of each kind at once, and afterwards it is looked at
what they are and that nothing comes back. From user 0 to another one the kernel clears the permitted, effective and
ambient capabilities by itself (unless securebits say otherwise, and then the look finds out). `no_new_privs` is *not* set: sudo
and the like work in the job as they do in that user's shell.

What a run's options name as files is opened with the rights of that user, by `acting_as`: a symlink that he has planted leads to
nothing that he could not open himself.
"""

from __future__ import annotations

import errno
import os
import select

from memrun import signals
from memrun.errors import FAILED, LaunchError, MemrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

LONGEST = 10_000  # ms that a file may take to be opened: the user may have put a FIFO there
NOBODY_AT_ALL = (1 << 32) - 1  # (uid_t) -1: to setresuid it means "leave it as it is"
OWN_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class IdentityError(LaunchError):
    """There is no such user or group, or memrun may not run a command as them."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, FAILED, remedy)


class Identity:
    """Ids to become; `groups` is None where nothing has to change. `home`, `shell`: '' where only a group was asked for."""

    __slots__ = ("gid", "groups", "home", "name", "shell", "uid")

    def __init__(self, uid: int, gid: int, name: str) -> None:
        self.uid, self.gid, self.name = uid, gid, name
        self.groups: list[int] | None = None
        self.home = self.shell = ""

    def variables(self) -> dict[str, str]:
        """What a login would set."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name, "SHELL": self.shell} if self.home else {}


def look_up(user: str, group: str) -> Identity | None:
    """The identity that --user and --group ask for ('' is not asked); None where neither does."""
    if not user and not group:
        return None
    who = _account(user) if user else _own_account()
    if group:
        who.gid = _group(group)
    elif who.gid < 0:
        raise IdentityError(f"there is no account of user {user}, and so no group", "Say which: --group GROUP")
    if os.geteuid() != 0:
        _already(who, user, group)
    else:
        who.groups = _groups_of(who)
    return who


def _already(who: Identity, user: str, group: str) -> None:
    """Without root's rights one can only ask for what one is."""
    words = " ".join(f"{flag} {value}" for flag, value in (("--user", user), ("--group", group)) if value)
    if who.uid != os.getuid():
        raise IdentityError(f"only root may run a command as user {user}", f"Try: sudo memrun {words} ...")
    if group and who.gid != os.getgid():
        raise IdentityError(f"only root may run a command as group {group}", f"Try: sudo memrun {words} ...")


def _account(user: str) -> Identity:
    import pwd

    number = _number(user)
    try:
        found = pwd.getpwnam(user) if number is None else pwd.getpwuid(number)
    except KeyError:
        if number is None:
            raise IdentityError(f"there is no user {user!r} on this machine") from None
        who = Identity(number, -1, user)
        who.home, who.shell = "/", "/bin/sh"
        return who
    who = Identity(found.pw_uid, found.pw_gid, found.pw_name)
    who.home, who.shell = found.pw_dir or "/", found.pw_shell or "/bin/sh"
    return who


def _own_account() -> Identity:
    import pwd

    try:
        return Identity(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return Identity(os.getuid(), os.getgid(), str(os.getuid()))


def _group(group: str) -> int:
    import grp

    number = _number(group)
    if number is not None:
        return number
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise IdentityError(f"there is no group {group!r} on this machine") from None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > 10 or int(text) >= NOBODY_AT_ALL:
        raise IdentityError(f"{text} is no number of a user or a group")
    return int(text)


def _groups_of(who: Identity) -> list[int]:
    """As initgroups(3): those that list him as a member, and his own."""
    return sorted({who.gid, *os.getgrouplist(who.name, who.gid)})


def become(who: Identity) -> None:
    """Give up what we are, for good. In a child only; IdentityError when anything is left or could come back."""
    if who.groups is None:
        return
    try:
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    except OSError as e:
        raise IdentityError(f"cannot become user {who.name}: {os.strerror(e.errno or errno.EPERM)}") from None
    if os.getresuid() != (who.uid,) * 3 or os.getresgid() != (who.gid,) * 3 or sorted({*os.getgroups()}) != who.groups:
        raise IdentityError(f"the kernel made something else of user {who.name}")
    if who.uid != 0 and (_comes_back(os.setresuid, 0) or _comes_back(os.setresgid, 0) or _groups_come_back()):
        raise IdentityError(f"root's rights would come back to user {who.name}")


def _comes_back(change: Callable[[int, int, int], None], number: int) -> bool:
    if change is os.setresgid and number in os.getresgid():
        return False  # it is his group
    try:
        change(-1, number, -1)
    except PermissionError:
        return False
    return True


def _groups_come_back() -> bool:
    try:
        os.setgroups([0])
    except PermissionError:
        return False
    return True


def as_whom(who: Identity | None) -> str:
    """For complaints: ' as user nobody', or '' where nobody else is asked for."""
    return "" if who is None or who.groups is None else f" as user {who.name}"


def own_descriptor(path: str) -> int:
    """The descriptor that memrun was given (`>(...)`, /dev/stdout), if the path names one: open already, and nobody else's; -1."""
    for folder in OWN_DESCRIPTORS:
        if path.startswith(folder) and path[len(folder) :].isdigit():
            return int(path[len(folder) :])
    return STANDARD.get(path, -1)


def is_own_descriptor(path: str) -> bool:
    """Whether it names one."""
    return own_descriptor(path) >= 0


def acting_as(who: Identity | None, act: Callable[[], bytes | None]) -> bytes:
    """The answer of `act`, which is done with the rights of `who`: by a forked copy, where those are not ours.
    A MemrunError or OSError in there is raised here."""
    if who is None or who.groups is None:
        return act() or b""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _act(who, act, tell)
    os.close(tell)
    try:
        said = _listen(told)
    finally:
        os.close(told)
        os.kill(pid, signals.KILL)  # not reaped yet, so it is still this one
        os.waitpid(pid, 0)
    if said[:1] == b"0":
        return said[1:]
    if said[:1] == b"2":
        raise OSError(int(said[1:]), os.strerror(int(said[1:])))
    what, _, remedy = said[1:].decode(errors="replace").partition("\0")
    raise IdentityError(what or f"what was to be done as user {who.name} came to no end", remedy)


def opened_as(who: Identity | None, path: str, flags: int, mode: int = 0o666) -> int:
    """os.open with the rights of `who`: for those who keep a file open on his behalf. The descriptor comes back through a socket."""
    if who is None or who.groups is None or is_own_descriptor(path):
        return os.open(path, flags, mode)
    import socket  # 6 ms, and only where somebody else's file is kept open

    def act() -> None:
        socket.send_fds(theirs, [b"."], [os.open(path, flags, mode)])

    ours, theirs = socket.socketpair()
    with ours, theirs:
        acting_as(who, act)
        _, (fd,), _, _ = socket.recv_fds(ours, 1, 1)
    os.set_inheritable(fd, False)
    return fd


def _listen(told: int) -> bytes:
    said = b""
    poll = select.poll()
    poll.register(told, select.POLLIN)
    while poll.poll(LONGEST):
        piece = os.read(told, 1 << 16)
        if not piece:
            return said
        said += piece
    return b""


def _act(who: Identity, act: Callable[[], bytes | None], tell: int) -> NoReturn:
    status = FAILED
    try:
        become(who)
        answer = b"0" + (act() or b"")
        status = 0
    except MemrunError as e:
        answer = f"1{e.what}\0{e.remedy}".encode(errors="replace")
    except OSError as e:
        answer = b"2%d" % (e.errno or errno.EIO)
    except BaseException as e:  # noqa: BLE001  (a forked copy of memrun must not go on as a second memrun)
        answer = f"1as user {who.name}: {e}".encode(errors="replace")
    try:
        while answer:
            answer = answer[os.write(tell, answer) :]
    finally:
        os._exit(status)
