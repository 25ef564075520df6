"""Which machine a job file is run on, and what the file system of its job store can do.

A job store is SQLite. Its WAL mode wants shared memory (an mmap of FILE-shm), which network file systems cannot give, and on NFS a flock(2) of ours
keeps SQLite's own POSIX locks out, because the server knows only one kind of lock. The machine is stored beside the pid, since a
pid alone means nothing on another machine or in another container.
"""

from __future__ import annotations

import os

NETWORK = (
    "nfs",
    "nfs4",
    "lustre",
    "cifs",
    "smb3",
    "9p",
    "virtiofs",
    "ceph",
    "afs",
    "gpfs",
    "beegfs",
    "fuse.",
    "orangefs",
    "gfs2",
    "ocfs2",
)
LOCKS_FOR_ALL = (
    "nfs",
    "nfs4",
    "lustre",
    "ceph",
    "gpfs",
    "gfs2",
    "ocfs2",
)  # flock(2) reaches other machines, unless the mount says that it does not
LOCAL_LOCKS = ("local_lock=all", "local_lock=flock", "localflock", "nolock")


def here() -> str:
    """This machine and PID namespace as one word: 'NAME/BOOT/NAMESPACE'."""
    return f"{os.uname().nodename}/{_boot()}/{_namespace()}"


def name_of(machine: str) -> str:
    """The name of a machine that `here` has described."""
    return machine.partition("/")[0]


def same_machine(machine: str) -> bool:
    """Whether it is this machine, perhaps before a reboot, or in a container of it."""
    return not machine or name_of(machine) == os.uname().nodename or machine.split("/")[-2:-1] == [_boot()]


def is_network(path: str) -> bool:
    """Whether a file is on a file system that other machines may use at the same time."""
    return _mount(path)[0].startswith(NETWORK)


def locks_hold(path: str) -> bool:
    """Whether a flock(2) on it keeps other machines out, too."""
    kind, options = _mount(path)
    if not kind.startswith(NETWORK):
        return True  # nobody else can be there
    return kind in LOCKS_FOR_ALL and not any(word in LOCAL_LOCKS for word in options.split(","))


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return "unknown"


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        return "unknown"


def _mount(path: str) -> tuple[str, str]:
    """(kind, options) of the file system that a file is on; ('', '') where that is not to be found out."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
            for line in f:
                before, _, after = line.partition(" - ")
                if before.split()[2] == f"{os.major(device)}:{os.minor(device)}":
                    kind, _, options = after.split(maxsplit=2)
                    return kind, f"{before.split()[5]},{options.strip()}"
    except (OSError, ValueError):
        pass
    return "", ""
