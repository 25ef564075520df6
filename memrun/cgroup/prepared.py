"""What an administrator does for a user who may not make groups: the commands, how they are taken back, and how memrun finds
what they made.

Where systemd owns a v2 tree, the user needs nothing but a systemd of their own that always runs (lingering), and that it was given
the memory controller: every later memrun asks it for a scope (scope.py). On v1 systemd gives users nothing: there a directory of
theirs in each hierarchy is enough, as anybody may enter a v1 group whose cgroup.procs they may write to. On v2 without systemd that is
not so (one must be able to write to a group above both the old and the new one): there a directory of theirs is of use to who
is started in it, and it takes root to put a shell of theirs there.

Directories are named by number: looking up a name may ask a network, and memrun looks here at every start without rights.
"""

from __future__ import annotations

import os

from memrun.cgroup import detect
from memrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.detect import Mount, Setup

DROP_IN = "/etc/systemd/system/user@.service.d/memrun.conf"
UNIT = "/etc/systemd/system/memrun-group-{uid}.service"
SHIPPED = ("/usr/lib/systemd/system/user@.service", "/lib/systemd/system/user@.service")
DELEGATED = "cgroup.procs cgroup.subtree_control cgroup.threads"  # what v2 leaves to who gets a group; its limits stay root's


def find(setup: Setup, uid: int) -> Setup | None:
    """The place that was prepared for this user on v1, as if it were memrun's own group; None if there is none."""
    memory = f"{setup.memory_top}/memrun/{uid}"
    if not os.access(memory, os.W_OK):
        return None
    found = detect.Setup()
    found.version, found.hybrid = setup.version, setup.hybrid
    found.memory, found.memory_top = memory, setup.memory_top
    found.unified, found.unified_top = setup.unified, setup.unified_top
    for mount in _v1_mounts(detect.mounts()):
        if "freezer" in mount.options and os.access(f"{mount.point}/memrun/{uid}", os.W_OK):
            found.freezer = f"{mount.point}/memrun/{uid}"
    return found


def _v1_mounts(mounts: list[Mount]) -> list[Mount]:
    return [mount for mount in mounts if mount.kind == "cgroup" and mount.options & {"memory", "freezer"}]


def user_of(uid: int) -> str:
    """The user's name, or their number where they have none."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def remedy(uid: int, *, systemd: bool) -> str:
    """What root types so that this user may make groups. `systemd`: it owns the tree, which is v2."""
    user = user_of(uid)
    if uid == 0:
        return "memrun doctor says what is missing"
    if systemd:
        once = f"'systemctl start user@{uid}.service' (until it is stopped)"
        return f"As root: 'loginctl enable-linger {user}' (for good), or {once}; then start memrun again"
    return f"As root: 'memrun doctor --setup {user} --apply' (without --apply it only says what that does)"


def script(user: str, *, undo: bool) -> list[str]:
    """The lines of a shell script that prepares this machine for a user, or takes that back; to be run by root."""
    import pwd

    try:
        person = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"there is no user {user!r}", "See 'getent passwd'") from None
    setup, systemd = detect.look(), os.path.isdir("/run/systemd/system")
    if setup.version == "v1":
        tops = [mount.point for mount in _v1_mounts(detect.mounts())]
        steps = _undo_v1(tops, person.pw_uid) if undo else _do_v1(tops, user, person.pw_uid)
        return _at_every_boot(steps, user, person.pw_uid, undo=undo) if systemd else steps
    if systemd:
        return _undo_lingering(user) if undo else _lingering(user, person.pw_uid)
    top = setup.unified_top
    if top is None:
        raise UsageError(*detect.missing(setup))
    return _undo_v2(top, person.pw_uid) if undo else _do_v2(top, user, person.pw_uid)


def _lingering(user: str, uid: int) -> list[str]:
    """A systemd of the user's own, that is given memory to hand down."""
    lines = [
        f"loginctl enable-linger {user}   # a systemd of theirs from now on, also after a reboot, from cron and without a login"
    ]
    if not _shipped_with_memory():
        inner = "[Service]\\nDelegate=cpu memory pids\\n"
        lines += [f"mkdir -p {os.path.dirname(DROP_IN)}", f"printf '{inner}' > {DROP_IN}   # it is given memory to hand down"]
        lines += ["systemctl daemon-reload", f"systemctl restart user@{uid}.service"]
    return lines


def _undo_lingering(user: str) -> list[str]:
    lines = [f"loginctl disable-linger {user}"]
    if os.path.exists(DROP_IN):
        lines += [f"rm -f {DROP_IN}   # of all users: if others need it, leave it", "systemctl daemon-reload"]
    return lines


def _shipped_with_memory() -> bool:
    """Whether user@.service delegates memory: a file, for it may not have started yet."""
    texts = [line for path in (*SHIPPED, DROP_IN) for line in _lines(path) if line.startswith("Delegate=")]
    return any(set(line.partition("=")[2].split()) & {"memory", "yes", "true", "on", "1"} for line in texts)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return [line.strip() for line in f]
    except OSError:
        return []


def _do_v1(tops: list[str], user: str, uid: int) -> list[str]:
    lines = []
    for top in tops:
        place = f"{top}/memrun/{uid}"
        lines += [f"mkdir -p {place}", f"chown -R {user} {place}   # where {user}'s memrun makes its groups"]
    return lines


def _undo_v1(tops: list[str], uid: int) -> list[str]:
    lines = []
    for top in tops:
        lines.append(f"[ ! -d {top}/memrun/{uid} ] || rmdir {top}/memrun/{uid}   # busy while a memrun of theirs runs")
        lines.append(f"rmdir {top}/memrun 2>/dev/null || true   # kept while others have theirs there")
    return lines


def _at_every_boot(steps: list[str], user: str, uid: int, *, undo: bool) -> list[str]:
    """The same by a unit of systemd's: groups do not survive a reboot."""
    unit = UNIT.format(uid=uid)
    name = os.path.basename(unit)
    if undo:
        return [f"systemctl disable --now {name}", f"rm -f {unit}", "systemctl daemon-reload", *steps]
    made = "; ".join(step.partition("   #")[0] for step in steps)
    return [
        f"cat > {unit} <<'END'",
        "[Unit]",
        f"Description=a memory group for {user}'s memrun",
        "[Service]",
        "Type=oneshot",
        "RemainAfterExit=yes",
        f"ExecStart=/bin/sh -ec '{made}'",
        "[Install]",
        "WantedBy=multi-user.target",
        "END",
        "systemctl daemon-reload",
        f"systemctl enable --now {name}",
    ]


def _do_v2(top: str, user: str, uid: int) -> list[str]:
    """Memory, and shares of the processor: memrun, in `login`, gets one of its own beside a job that forks and is to be paused in time.
    The shares are worth having, not needed: where the kernel refuses them (realtime processes), all else is done."""
    lines = [f"cd {top}", f"mkdir -p memrun/{uid}/login"]
    for place in (".", "memrun", f"memrun/{uid}"):
        lines.append(f"echo +memory > {place}/cgroup.subtree_control")
        lines.append(f"! grep -qw cpu {place}/cgroup.controllers || echo +cpu > {place}/cgroup.subtree_control || true")
    return [
        *lines,
        *(f"(cd {place} && chown {user} . {DELEGATED})" for place in (f"memrun/{uid}", f"memrun/{uid}/login")),
        f"# it is for what starts in it; a shell of {user}'s gets there by: echo PID > {top}/memrun/{uid}/login/cgroup.procs",
    ]


def _undo_v2(top: str, uid: int) -> list[str]:
    out = f"while read -r pid; do echo $pid > cgroup.procs; done < memrun/{uid}/login/cgroup.procs   # who is in it goes on at the top"
    there = f"[ ! -d memrun/{uid} ] ||"
    return [f"cd {top}", f"{there} {out}", f"{there} rmdir memrun/{uid}/login memrun/{uid}", "rmdir memrun 2>/dev/null || true"]
