"""Fork a child straight into a cgroup: clone3(2) with CLONE_INTO_CGROUP, which the standard library has no call for.

Why: since 6.0 the kernel lets who moves a process wait for an RCU grace period, unless one has just been waited for: 7 to 16 ms (measured
on 6.18 with two busy CPUs), with the lock held that every making and removing of a group needs. To be born in a group costs nothing of
that. Nor does writing '0' into the `tasks` file of a v1 group, which moves one thread, the writer.

It is for groups without memory of their own (v1's companion in the cgroup2 tree), because what a forked copy of memrun touches before
it executes the command would be charged to the job: the copies of some hundred pages.

The child takes over the interpreter as it is: there is one
thread (or we do not do it), nothing of fork's own housekeeping is needed on the way to an exec, and signals are blocked.
"""

from __future__ import annotations

import os

from memrun import clib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CLONE3 = 435  # on every architecture that is younger than it
INTO_CGROUP = 1 << 33
OF_OUR_PARENT = 1 << 15  # CLONE_PARENT: our sibling, not our child
SIGCHLD = 17
ONE_THREAD = 3  # links of /proc/self/task: '.', '..', the thread


def fork(directory: int) -> tuple[int, bool]:
    """As os.fork, and whether the child is in the group of that directory (-1: none); where that cannot be it is wherever we are."""
    if directory >= 0 and _is_alone():
        clone = _clone3()
        pid = -1 if clone is None else clone(_arguments(INTO_CGROUP, SIGCHLD, directory))
        if pid >= 0:
            return pid, True
    return os.fork(), False


def for_parent(directory: int) -> tuple[int, bool]:
    """The same for whoever forked us: the child is a child of that process. -1 where that cannot be."""
    clone = _clone3()
    if clone is None or not _is_alone():
        return -1, False
    if directory >= 0:
        pid = clone(_arguments(INTO_CGROUP | OF_OUR_PARENT, 0, directory))
        if pid >= 0:
            return pid, True
    return clone(_arguments(OF_OUR_PARENT, 0, 0)), False


def _is_alone() -> bool:
    """A second thread could hold a lock that the child needs: fork knows how to deal with that."""
    try:
        return os.stat("/proc/self/task").st_nlink == ONE_THREAD
    except OSError:
        return False


def _arguments(flags: int, at_exit: int, directory: int) -> bytes:
    """struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup."""
    return b"".join(number.to_bytes(8, "little") for number in (flags, 0, 0, 0, at_exit, 0, 0, 0, 0, 0, directory))


def _clone3() -> Callable[[bytes], int] | None:
    if not _known:
        _known.append(_load())
    return _known[0]


_known: list[Callable[[bytes], int] | None] = []  # once looked for


def _load() -> Callable[[bytes], int] | None:
    call = clib.function("syscall")
    return None if call is None else lambda arguments: call(clib.long(CLONE3), arguments, clib.long(len(arguments)))
