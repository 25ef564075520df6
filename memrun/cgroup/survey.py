"""What this machine offers to memory groups, for `memrun doctor`: kernel files -> Facts. Nothing in here changes a limit.

Whatever cannot be read, or has another shape than expected, is a fact too and never an error: a doctor that stumbles over
the illness is of no use. What a kernel has is asked of the group that was really made (`abilities`), never inferred from a
version: distributions backport, containers hide, and a root group has hardly any of the files that its children have.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import detect, ground, remains, scope
from memrun.cgroup.files import Dir
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SWITCHES = (  # words of the kernel's command line that decide about memory groups
    *("cgroup_disable=", "cgroup_enable=", "cgroup_memory=", "cgroup_no_v1=", "cgroup.memory="),
    *("swapaccount=", "psi=", "systemd.unified_cgroup_hierarchy="),
)
MOUNT_V1 = "mkdir -p /sys/fs/cgroup/memory && mount -t cgroup -o memory none /sys/fs/cgroup/memory"
MOUNT_V2 = "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
DOCKER = "docker run --security-opt writable-cgroups=true ...   (docker 28 or newer; before: docker run --privileged ...)"
PODMAN = "podman run --security-opt unmask=/sys/fs/cgroup ..."


class Facts:
    """Everything that was found; the defaults are those of a machine that says nothing. Sizes are bytes."""

    def __init__(self) -> None:
        self.kernel = self.container = ""
        self.version = ""  # 'v1' | 'v2' | '' (no memory controller to be had)
        self.hybrid = False
        self.missing = ("", "")  # why there is none, and what mends it
        self.mounts: list[detect.Mount] = []  # those that matter; their options: what of memory and freezer they hold
        self.own: str | None = None  # our own group's directory: memory's, or (without that) the v2 tree's
        self.top = ""  # its mount point
        self.owner: int | None = None  # uid
        self.controllers: list[str] = []  # that our own group may hand out
        self.above: list[str] = []  # that the top of the v2 tree has
        self.switches: list[str] = []
        self.enabled: bool | None = None  # /proc/cgroups about memory; None: it says nothing (v2-only kernels)
        self.bound = False  # memory is on a v1 hierarchy, be it mounted here or not
        self.places: tuple[str, ...] = ()  # our own group's directory in each hierarchy where groups are made
        self.uid, self.gid, self.user = 0, 0, "root"
        self.systemd = self.bus = False
        self.runtime, self.announced = "", False  # the user's runtime directory, and whether XDG_RUNTIME_DIR says so
        self.lingers: bool | None = None
        self.loader = ""  # what changes the kernel's command line: 'grubby' | 'grub' | ''
        self.memory = self.swap = 0
        self.psi: bool | None = None  # None: this kernel was built without
        self.pidfd = True
        self.restricted: int | None = None  # kernel.dmesg_restrict
        self.left: list[remains.Leftover] = []
        self.enter = ""  # the command by which root lets this user in
        # What doctor.py learns by doing:
        self.refusal: tuple[str, str] | None = ("not tried", "")  # why no job can be started, and the error's own remedy
        self.way = ""  # where groups were made, and by which right
        self.limit: int | None = None  # set and read back
        self.enclosing: int | None = None
        self.pauses: bool | None = None
        self.offers: Abilities | None = None
        self.log = False  # the kernel's log can be read


class Abilities:
    """What a group that was really made has: the control file's name where it does, '' where it does not."""

    __slots__ = ("freeze", "hold", "kill", "notice", "peak", "pressure", "swap")

    def __init__(self) -> None:
        self.freeze = self.hold = self.kill = self.notice = self.peak = self.pressure = self.swap = ""


def look() -> Facts:
    """Read everything that can be known without making a group."""
    facts = Facts()
    facts.kernel = os.uname().release
    _hierarchies(facts)
    _boot(facts)
    _person(facts)
    facts.container = container()
    facts.memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    facts.swap = swap_total(ground.text("/proc/swaps"))
    facts.pidfd = _has_pidfd()
    facts.left = remains.leftovers((*facts.places, *scope.left(facts.top, facts.uid)))
    return facts


def _hierarchies(facts: Facts) -> None:
    setup = detect.look()
    facts.version, facts.hybrid = setup.version, setup.hybrid
    if not setup.version:
        facts.missing = detect.missing(setup)
    facts.own, facts.top = setup.memory, setup.memory_top or ""
    if facts.own is None:
        facts.own, facts.top = setup.unified, setup.unified_top or ""
    facts.places = places(setup)
    facts.mounts = mounts(ground.text(detect.MOUNTINFO))
    if setup.version != "v1" and facts.own is not None:
        facts.controllers = ground.text(f"{facts.own}/cgroup.controllers").split()
        facts.above = ground.text(f"{facts.top}/cgroup.controllers").split()
    else:
        facts.controllers = sorted(name for mount in facts.mounts for name in mount.options)


def _boot(facts: Facts) -> None:
    facts.switches = switches(ground.text("/proc/cmdline"))
    facts.enabled, facts.bound = memory_listed(ground.text("/proc/cgroups"))
    facts.psi = _readable("/proc/pressure/memory")
    restrict = ground.text("/proc/sys/kernel/dmesg_restrict").strip()
    facts.restricted = int(restrict) if restrict.isdigit() else None
    tools = (("grubby", "/usr/sbin/grubby"), ("grub", "/etc/default/grub"))
    facts.loader = next((tool for tool, mark in tools if os.path.exists(mark)), "")


def _person(facts: Facts) -> None:
    facts.uid, facts.gid = os.geteuid(), os.getegid()
    facts.user = _user(facts.uid)
    if facts.own is not None:
        try:
            facts.owner = os.stat(facts.own).st_uid
        except OSError:
            facts.owner = None
    facts.systemd = os.path.isdir("/run/systemd/system")
    facts.announced = bool(os.environ.get("XDG_RUNTIME_DIR"))
    facts.runtime = scope.runtime_directory(facts.uid, os.environ)
    facts.bus = bool(scope.doors(facts.uid, os.environ))
    if facts.systemd and facts.uid != 0:
        facts.lingers = os.path.exists(f"/var/lib/systemd/linger/{facts.user}")
    facts.enter = enter(facts)


def _user(uid: int) -> str:
    import pwd  # not every start of memrun needs names

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def enter(facts: Facts) -> str:
    """The command with which root gives this user a group to work in; '' where there is no tree to make it in.

    On v1 groups may hold processes and groups: the user's shell moves in and stays. On v2 memrun must be alone in its group, so
    it is exec'd there, and what is in the top group of a container is moved out of the way first (the machine's own top group
    is exempt from that rule, and never refuses).
    """
    if facts.own is None:
        return ""
    if facts.version == "v1":
        all_of = " ".join(f"{place.rstrip('/')}/{facts.user}" for place in facts.places)
        steps = f"sudo mkdir -p $d && sudo chown -R {facts.user} $d && echo $$ | sudo tee $d/cgroup.procs"
        return f"for d in {all_of}; do {steps}; done"
    own, top = facts.own.rstrip("/"), facts.top.rstrip("/")
    path = [f"here=$PWD; cd {top}"]
    if own == top and facts.uid == 0:
        path.append("mkdir -p rest && xargs -rn1 < cgroup.procs > rest/cgroup.procs")
    path.append(f"echo +memory > cgroup.subtree_control; mkdir -p {facts.user} && cd {facts.user} && echo $$ > cgroup.procs")
    run = "memrun --limit 500M -- COMMAND"
    if facts.uid != 0:
        path.append(f"chown {facts.user} . cgroup.procs cgroup.subtree_control cgroup.threads")
        groups = "--clear-groups" if facts.user.isdigit() else "--init-groups"
        run = f"setpriv --reuid {facts.uid} --regid {facts.gid} {groups} {run}"
    script = "; ".join([*path, 'cd "$here"'])
    return f"{'' if facts.uid == 0 else 'sudo '}sh -c '{script}; exec {run}'"


def places(setup: detect.Setup) -> tuple[str, ...]:
    """Our own group's directory in each hierarchy where memrun makes groups."""
    found = [place for place in (setup.memory, setup.unified, setup.freezer) if place is not None]
    return tuple(dict.fromkeys(found))


def mounts(mountinfo: str) -> list[detect.Mount]:
    """The hierarchies that memrun could use: v2, and v1's memory and freezer, with nothing but these two words as options."""
    found = []
    for mount in detect.parse_mountinfo(mountinfo):
        mount.writable = mount.writable and "ro" not in mount.options
        mount.options &= {"memory", "freezer"}
        if mount.kind == "cgroup2" or mount.options:
            found.append(mount)
    return found


def switches(cmdline: str) -> list[str]:
    """Those words of the kernel's command line that decide about memory groups."""
    return [word for word in cmdline.split() if word.startswith(SWITCHES)]


def memory_listed(cgroups: str) -> tuple[bool | None, bool]:
    """What /proc/cgroups says of memory: (enabled, on a v1 hierarchy). None where it does not list it: since 6.14 kernels
    without v1 do not, and none does where it was disabled."""
    for line in cgroups.splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[0] == "memory":
            return fields[3] == "1", fields[1] != "0"
    return None, False


def swap_total(swaps: str) -> int:
    """Bytes of swap in all, from /proc/swaps (KiB; names hold no blanks: the kernel escapes them)."""
    rows = [line.split() for line in swaps.splitlines()[1:]]
    return sum(int(row[2]) << 10 for row in rows if len(row) >= 5 and row[2].isdigit())


def container() -> str:
    """Which kind of container we are in, by the marks that they leave; '' where there are none."""
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for kind, mark in (("podman", "/run/.containerenv"), ("docker", "/.dockerenv")):
        if os.path.exists(mark):
            return kind
    return ground.text("/run/systemd/container").strip() or os.environ.get("container", "")  # noqa: SIM112  (systemd's own spelling)


def writable_again(facts: Facts) -> str:
    """What mends a read-only hierarchy: for the one who starts the container, or for root."""
    if facts.container == "kubernetes":
        return "in the pod's container: securityContext: {privileged: true}"
    tool = "podman" if facts.container == "podman" else "docker"
    if facts.container:
        return {"docker": DOCKER, "podman": PODMAN}[tool] if facts.version == "v2" else f"{tool} run --privileged ..."
    return f"sudo mount -o remount,bind,rw {facts.top}"


def _has_pidfd() -> bool:
    """Since 5.3; old seccomp profiles of containers refuse it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


def abilities(version: str, made: Sequence[str]) -> Abilities:
    """What a job's group offers. `made`: its directory in each hierarchy, the memory one first; those that are not there are
    no harm. The group is used up: it may refuse to kill afterwards."""
    found = Abilities()
    names = {name for place in made for name in remains.names(place)}

    def first(*wanted: str) -> str:
        return next((name for name in wanted if name in names), "")

    found.freeze, found.kill = first("cgroup.freeze", "freezer.state"), first("cgroup.kill")
    if version == "v1":
        found.swap, found.peak = first("memory.memsw.limit_in_bytes"), first("memory.max_usage_in_bytes")
        found.pressure = first("memory.pressure_level")
        found.notice = "memory.oom_control" if _attempt(made[0], _hears) else ""
        found.hold = "memory.oom_control" if _attempt(made[0], _holds) else ""
        return found
    found.swap, found.peak = first("memory.swap.max"), first("memory.peak")
    found.pressure = "memory.pressure" if _readable(f"{made[0]}/memory.pressure") else ""
    found.notice, found.hold = first("memory.events.local", "memory.events"), first("memory.high")
    return found


def _hears(group: Dir) -> bool:
    """Whether an eventfd can be hung on the group's oom_control (not on PREEMPT_RT kernels)."""
    notice = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        control = group.open("memory.oom_control")
        try:
            group.write("cgroup.event_control", f"{notice} {control}")
        finally:
            os.close(control)
    finally:
        os.close(notice)
    return True


def _holds(group: Dir) -> bool:
    """Whether the kernel would park the tasks of this group at its limit."""
    group.write("memory.oom_control", "1")
    return group.read("memory.oom_control").startswith("oom_kill_disable 1")


def _attempt(place: str, act: Callable[[Dir], bool]) -> bool:
    """What `act` makes of the group; False where the kernel refuses."""
    try:
        group = Dir(place)
        try:
            return act(group)
        finally:
            group.close()
    except GroupError:
        return False


def _readable(path: str) -> bool | None:
    """Whether it can be read; None where there is no such file."""
    try:
        with open(path, "rb", buffering=0) as f:
            return bool(f.read())
    except OSError as e:
        return None if e.errno == errno.ENOENT else False
