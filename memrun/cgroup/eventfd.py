"""v1 tells of events through eventfds that are registered in cgroup.event_control: counters in the kernel, none is ever lost."""

from __future__ import annotations

import errno
import os

from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.files import Dir


def listen(group: Dir, file: str = "memory.oom_control", words: str = "") -> int:
    """An eventfd on one of a group's control files; -1 where the kernel has none (PREEMPT_RT: EOPNOTSUPP)."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        register(group, fd, file, words)
    except GroupError as e:
        os.close(fd)
        if e.errno in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.EACCES}:
            return -1
        raise
    return fd


def register(group: Dir, fd: int, file: str, words: str) -> None:
    """The same, for an eventfd that is there already."""
    control = group.open(file)
    try:
        group.write("cgroup.event_control", f"{fd} {control} {words}".rstrip())
    finally:
        os.close(control)


def count(fd: int) -> int:
    """What an eventfd has counted since the last look."""
    if fd < 0:
        return 0
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0
