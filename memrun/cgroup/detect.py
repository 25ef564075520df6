"""Where are we, and what is there: /proc/self/mountinfo and /proc/self/cgroup -> Setup.

Pure parsers and one reader. Versions and distributions are not looked at: a "v2" machine may keep memory on v1
(hybrid), and a "v1" one usually has a v2 tree beside it whose freezer and cgroup.kill serve v1 jobs too.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_SYS_RESOURCE = 1 << 24
MOUNTINFO = "/proc/self/mountinfo"
OWN = "/proc/self/cgroup"
BELOW_OURS = "below memrun's own group"


class Mount:
    """One mounted hierarchy: where, which part of it (`root`), which kind, which controllers (v1)."""

    __slots__ = ("kind", "options", "point", "root", "writable")

    def __init__(self, point: str, root: str, kind: str, options: frozenset[str], *, writable: bool) -> None:
        self.point, self.root, self.kind, self.options, self.writable = point, root, kind, options, writable

    def place(self, group: str) -> str | None:
        """The directory of a group of this hierarchy; None where the mount does not show it."""
        root = self.root.rstrip("/")
        if group == "/.." or group.startswith("/../"):
            return None  # outside of our cgroup namespace
        if root.startswith("/.."):
            return _seek(self.point, root, group)
        if group == root or group.startswith(root + "/"):
            return (self.point + group[len(root) :]).rstrip("/") or "/"
        # A container without a cgroup namespace: the path is the host's, the mount shows only our part of it.
        return self.point if root else None


def _seek(point: str, root: str, group: str) -> str | None:
    """Our own group where the mount shows more than our cgroup namespace (`unshare --cgroup` without a new mount): its root is
    '/..' for each level that it begins above us, and the names of those levels are nowhere to be read. So look for ourselves."""
    levels = root.split("/")[1:]
    if any(level != ".." for level in levels):
        return None  # another branch of the tree
    mine = str(os.getpid())
    places = (place + group.rstrip("/") for place in _below(point, len(levels)))
    return next((place for place in places if mine in _slurp(f"{place}/cgroup.procs").split()), None)


def _below(place: str, levels: int) -> Iterator[str]:
    """Every directory exactly so many levels below; what cannot be listed has none."""
    if not levels:
        yield place
        return
    try:
        with os.scandir(place) as found:
            names = [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in names:
        yield from _below(name, levels - 1)


class Setup:
    """What was found. Directories are memrun's own group in each hierarchy; None where there is no such thing.

    version: 'v1' | 'v2' | '' (no memory controller to be had). top: mount points, where a walk upwards ends.
    """

    __slots__ = ("freezer", "hybrid", "keeper", "memory", "memory_top", "unified", "unified_top", "version", "whole")

    def __init__(self) -> None:
        self.version = ""
        self.hybrid = False
        self.memory: str | None = None
        self.memory_top: str | None = None
        self.unified: str | None = None
        self.unified_top: str | None = None
        self.freezer: str | None = None
        self.keeper = 0  # the process by whose number memrun is known, where it is not this one: ours to move, too
        self.whole = (
            False  # v2: who is in our group is ours to move: it is the top one of its namespace (a container's), or a job's
        )


def parse_mountinfo(text: str) -> list[Mount]:
    """The cgroup mounts of a mountinfo file (proc(5)), in order; lines of other shapes are skipped."""
    mounts = []
    for line in text.splitlines():
        if " - cgroup" not in line:  # most are not
            continue
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 6 or len(tail) < 3 or tail[0] not in {"cgroup", "cgroup2"}:
            continue
        mounts.append(
            Mount(
                _unescape(fields[4]),
                _unescape(fields[3]),
                tail[0],
                frozenset(tail[2].split(",")),
                writable="rw" in fields[5].split(","),
            )
        )
    return mounts


def _unescape(path: str) -> str:
    """mountinfo writes blanks and backslashes as three octal digits."""
    parts = path.split("\\")
    out = parts[0]
    for part in parts[1:]:
        code = part[:3]
        octal = len(code) == 3 and all(c in "01234567" for c in code)
        out += chr(int(code, 8)) + part[3:] if octal else "\\" + part
    return out


def parse_own(text: str) -> dict[str, str]:
    """/proc/PID/cgroup -> {controller: path}; the v2 line's key is ''."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        _, colon, rest = line.partition(":")
        names, second, path = rest.partition(":")
        if colon and second:
            for name in names.split(","):
                groups[name] = path
    return groups


def find(mountinfo: str, groups_text: str, v2_controllers: str) -> Setup:
    """Put the two files together. `v2_controllers`: the v2 root's (or our own group's) cgroup.controllers."""
    setup = Setup()
    groups = parse_own(groups_text)
    setup.whole = groups.get("") == "/"
    for mount in parse_mountinfo(mountinfo):
        if mount.kind == "cgroup2" and setup.unified is None:
            setup.unified, setup.unified_top = mount.place(groups.get("", "/")), mount.point
        elif mount.kind == "cgroup" and "memory" in mount.options and setup.memory is None:
            setup.memory, setup.memory_top = mount.place(groups.get("memory", "/")), mount.point
        elif mount.kind == "cgroup" and "freezer" in mount.options and setup.freezer is None:
            setup.freezer = mount.place(groups.get("freezer", "/"))
    if setup.memory is not None:
        setup.version, setup.hybrid = "v1", setup.unified is not None
    elif setup.unified is not None and "memory" in v2_controllers.split():
        setup.version, setup.memory, setup.memory_top = "v2", setup.unified, setup.unified_top
    return setup


def look() -> Setup:
    """Read this machine. Never fails: what cannot be read is not there."""
    mountinfo, groups = _slurp(MOUNTINFO), _slurp(OWN)
    setup = find(mountinfo, groups, "")
    if not setup.version and setup.unified_top is not None:  # else v1 has it
        setup = find(mountinfo, groups, _slurp(f"{setup.unified or setup.unified_top}/cgroup.controllers"))
    return setup


def is_ready(setup: Setup) -> bool:
    """Whether groups can be made where we are, on v1, without another step (v2: see ground.obstacle)."""
    return setup.version == "v1" and os.access(setup.memory or "", os.W_OK)


def mounts() -> list[Mount]:
    """This machine's cgroup mounts."""
    return parse_mountinfo(_slurp(MOUNTINFO))


def own(pid: int | str = "self") -> dict[str, str]:
    """The groups that a process is in now: {controller: path}; empty where it is gone."""
    return parse_own(_slurp(f"/proc/{pid}/cgroup"))


def may_exempt() -> bool:
    """Whether we may make a process immune to the OOM killer."""
    status = dict(line.split(":", 1) for line in _slurp("/proc/self/status").splitlines())
    return bool(int(status.get("CapEff", "0"), 16) & CAP_SYS_RESOURCE)


def swap_free() -> int:
    """Bytes of the machine's swap that nobody uses."""
    lines = dict(line.split(":", 1) for line in _slurp("/proc/meminfo").splitlines() if ":" in line)
    return int(lines.get("SwapFree", "0 kB").split()[0]) << 10


def _slurp(path: str) -> str:
    chunks = []
    try:
        fd = files.surely(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            while chunk := os.read(fd, 1 << 16):
                chunks.append(chunk)
        finally:
            files.close(fd)
    except OSError as e:
        if e.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise  # what is not there and what we cannot look at are two things
        return ""
    return b"".join(chunks).decode(errors="replace")


def missing(setup: Setup) -> tuple[str, str]:
    """Why there is no memory controller here, and what mends it: (sentence, remedy)."""
    words = _slurp("/proc/cmdline").split()
    if any(w.startswith("cgroup_disable=") and "memory" in w for w in words):
        return (
            "the kernel was booted with cgroup_disable=memory: no memory limit can be set",
            "Remove that word from the kernel's command line and reboot",
        )
    if setup.unified is not None:
        group = own().get("", "/")
        return (
            f"the memory controller is not enabled for memrun's own group ({group})",
            "Run it as 'systemd-run --scope -p Delegate=yes memrun ...' (not as root: with --user)",
        )
    if not parse_mountinfo(_slurp(MOUNTINFO)):
        return (
            "no cgroup hierarchy is mounted here",
            "As root: 'mount -t cgroup2 none /sys/fs/cgroup'; in a container: start it with its cgroups mounted",
        )
    return (
        "this machine has no memory controller on any cgroup hierarchy",
        "As root: 'mount -t cgroup -o memory none /sys/fs/cgroup/memory', or boot with cgroup_enable=memory",
    )


def remedy(number: int) -> str:
    """What mends an error from where v2 groups are to be made."""
    if number == errno.EROFS:
        return "In a container: start it with --privileged, or with --security-opt writable-cgroups=true (docker 28 or newer)"
    why = {
        errno.EBUSY: "Other processes share memrun's own group",
        errno.EACCES: f"memrun's own group is {own().get('', '/')}",
    }.get(errno.EACCES if number == errno.EPERM else number)
    if why is None:
        return ""
    if not os.path.isdir("/run/systemd/system"):
        return f"{why}; 'memrun doctor' prints the command that gives it one of its own"
    user = "--user " if os.geteuid() else ""
    return f"{why}; run it as 'systemd-run {user}--scope -p Delegate=yes memrun ...'"
