"""Whether groups can be made below a v2 group, and making it so: the kernel wants no process in a group that hands memory down.

Who is in the way is moved into a leaf: memrun itself (and its hand) where nobody else is there; in a container's own top group
everybody, as container runtimes do when they nest, for else no process of the container could ever use memory groups; and so in
the group of another memrun's job, which looks at all that is below it anyway. The
leaf for everybody is found again by later memruns, and whoever is the last to end moves all of them back.
"""

from __future__ import annotations

import errno
import os

from memrun.cgroup import tree
from memrun.cgroup.files import Dir, pids_in
from memrun.errors import GroupError

CONTROL, PROCS = "cgroup.subtree_control", "cgroup.procs"
REST = "memrun-rest"  # the leaf for everybody
SELF = "memrun-self-"  # and its pid: the leaf of one memrun. Both names are known to the dead man's hand (hand.py), which does what `restore` does
AHEAD = "10000"  # cpu.weight of that leaf, the most there is: it asks for little, but at once; everybody has 100. By this the hand knows it, too
ROUNDS = 5  # somebody may be forking meanwhile


def obstacle(place: str, *, whole: bool, keeper: int = 0) -> int:
    """The errno of what would keep us from making groups below this one; 0 if nothing does. Changes nothing. `whole`, `keeper`: see Setup."""
    if is_read_only(place):
        return errno.EROFS
    if not os.access(place, os.W_OK | os.X_OK) or not os.access(f"{place}/{PROCS}", os.W_OK):
        return errno.EACCES
    if hands_down(place):
        return 0
    if not os.access(f"{place}/{CONTROL}", os.W_OK):
        return errno.EACCES
    if "memory" not in text(f"{place}/cgroup.controllers").split():
        return errno.ENODEV
    if is_real_root(place):
        return 0
    if has_strangers(place):
        return errno.EBUSY
    there = set(pids_in(text(f"{place}/{PROCS}")))
    if whole or there <= {os.getpid()}:
        return 0
    return 0 if there <= _ours(keeper) else errno.EBUSY  # a look at all processes: only where it is needed


def _ours(keeper: int) -> set[int]:
    """Who is ours to move: we and our children, and the process by which we are known with the one between it and us."""
    return tree.family() | ({keeper, os.getppid()} if keeper not in {0, os.getpid()} else set())


def is_read_only(place: str) -> bool:
    """Whether the file system is mounted so."""
    try:
        return bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def has_strangers(place: str) -> bool:
    """Whether there are processes of a pid namespace that we do not see: we have no number to move them by."""
    return "0" in text(f"{place}/{PROCS}").split()


def hands_down(place: str) -> bool:
    """Whether groups below this one get the memory controller."""
    return "memory" in text(f"{place}/{CONTROL}").split()


def is_real_root(place: str) -> bool:
    """The machine's own top group, exempt from the rule: it has hardly any of the files that all others have."""
    return not os.path.exists(f"{place}/cgroup.type")


def text(path: str) -> str:
    """A control file; '' where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as f:
            return f.read().decode(errors="replace")
    except OSError:
        return ""


def clear(base: Dir, *, whole: bool, keeper: int = 0) -> Dir | None:
    """+memory for the groups below this one; the leaf that somebody had to be moved into, if so. `whole`, `keeper`: see
    obstacle."""
    if "memory" in base.read(CONTROL).split():
        return Dir(f"{base.path}/{REST}") if base.has(REST) else None
    try:
        base.write(CONTROL, "+memory")
    except GroupError as e:
        there = set(pids_in(base.read(PROCS)))
        alone = there <= _ours(keeper)
        if e.errno != errno.EBUSY or not (alone or whole):
            raise
        return _moved_into_a_leaf(base, there if alone else set())
    return None


def _moved_into_a_leaf(base: Dir, family: set[int]) -> Dir:
    """Out of the way goes the family, where nobody else is there, or (none given) everybody."""
    name = f"{SELF}{os.getpid()}" if family else REST
    leaf = Dir(f"{base.path}/{name}") if base.has(name) else base.mkdir(name)
    try:
        if family:
            tree.move(family, leaf)
        else:
            _move_all(base, leaf)
        base.write(CONTROL, "+memory")
    except BaseException:
        restore(base, leaf)
        leaf.close()
        raise
    return leaf


def divide(base: Dir, leaf: Dir) -> None:
    """The processor between the leaf, where memrun alone is, and all its jobs together; where that cannot be, it stays as it is."""
    if leaf.path.endswith(REST) or "cpu" not in base.read("cgroup.controllers").split() or "cpu" in base.read(CONTROL).split():
        return
    try:
        base.write(CONTROL, "+cpu")
        leaf.write("cpu.weight", AHEAD)
    except GroupError as e:
        if e.errno == errno.ENOENT:  # a kernel whose groups have no shares
            base.write(CONTROL, "-cpu")


def _is_ahead(leaf: Dir) -> bool:
    return leaf.has("cpu.weight") and leaf.read("cpu.weight").strip() == AHEAD


def restore(base: Dir, leaf: Dir, before: frozenset[str] = frozenset()) -> bool:
    """Everybody back out of the leaf, so that it can be removed; where somebody else uses the group by now, it stays: taking memory
    back would take the limits of others' groups away. False: it could not be done.
    `before`: groups that were there when memory was not handed down yet, and so do not need it, as long as nobody limits them."""
    name = leaf.path.rpartition("/")[2]
    others = {other for other in base.children() if other != name and not (other in before and _is_unlimited(base, other))}
    if others or not base.has(name):
        return True
    try:
        base.write(
            CONTROL, "-memory -cpu" if _is_ahead(leaf) else "-memory"
        )  # before them: processes and controllers exclude each other
        _move_all(leaf, base)
        base.rmdir(name)
    except GroupError:
        return False
    return True


def _is_unlimited(base: Dir, name: str) -> bool:
    try:
        group = Dir(f"{base.path}/{name}")
    except GroupError:
        return True  # gone by now
    try:
        return {group.read(key).strip() for key in ("memory.max", "memory.high")} == {"max"} and not group.read(CONTROL).split()
    except GroupError:
        return False
    finally:
        group.close()


def _move_all(source: Dir, to: Dir) -> None:
    for _ in range(ROUNDS):
        there = set(pids_in(source.read(PROCS)))
        if not there:
            return
        tree.move(there, to)
