"""What a directory tree of groups allows on either kernel: list it, kill what is in it, take it down.

A job may have made groups of its own below the one it was given (container runtimes do, and so do the hostile), so
every look is at the whole subtree, and nothing is assumed about how deep it is or who owns what.
"""

from __future__ import annotations

import errno
import os

from memrun import signals
from memrun.cgroup.files import Dir, number, pids_in
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RETRY = {errno.EBUSY, errno.ENOTEMPTY}
DEEPEST = 64  # the kernel's own cgroup.max.depth is unlimited; a path this deep is an attack, not a tree


def walk(top: Dir, depth: int = 0) -> Iterator[Dir]:
    """Every group below and including `top`, deepest first. What vanishes meanwhile is skipped."""
    if depth < DEEPEST:
        for name in top.children():
            try:
                below = _open_below(top, name)
            except GroupError:
                continue
            try:
                yield from walk(below, depth + 1)
            finally:
                below.close()
    yield top


def _open_below(top: Dir, name: str) -> Dir:
    """Open a child; a job that locked its own directory (chmod 000) loses that game where we own it too."""
    try:
        return Dir(f"{top.path}/{name}")
    except GroupError as e:
        if e.errno != errno.EACCES:
            raise
        try:
            os.chmod(f"{top.path}/{name}", 0o755)
        except OSError:
            raise e from None
        return Dir(f"{top.path}/{name}")


def pids(top: Dir) -> list[int]:
    """Every process of the subtree. Groups that do not tell (threaded ones) have their processes listed above them."""
    found: list[int] = []
    for group in walk(top):
        try:
            found += pids_in(group.read("cgroup.procs"))
        except GroupError:
            continue
    return found


def kill_each(found: list[int]) -> None:
    """SIGKILL to processes by number: for kernels without cgroup.kill. Those that are gone are gone."""
    for pid in found:
        try:
            os.kill(pid, signals.KILL)
        except ProcessLookupError:
            continue
        except PermissionError:
            continue  # it changed its user: cgroup.kill or the supervisor's verdict will say that it lives


def sum_of(top: Dir, file: str, key: str) -> int:
    """One counter of a flat keyed file, added up over the subtree (v1 counters are a group's own)."""
    total = 0
    for group in walk(top):
        try:
            text = group.read(file)
        except GroupError:
            continue
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name == key and value.isdecimal():
                total += int(value)
    return total


def remove_below(top: Dir) -> bool:
    """Remove every group below `top`; False means that something is still busy there: not yet, ask again."""
    clean = True
    for group in walk(top):
        if group is top:
            continue
        parent, _, name = group.path.rpartition("/")
        try:
            os.rmdir(f"{parent}/{name}")
        except FileNotFoundError:
            continue
        except OSError as e:
            if e.errno not in RETRY:
                raise GroupError("remove", group.path, e.errno or errno.EIO) from None
            clean = False
    return clean


def remove(parent: Dir, top: Dir) -> bool:
    """Remove `top` (a child of `parent`) and all below it. Gone already counts as removed."""
    name = top.path.rpartition("/")[2]
    if not remove_below(top):
        return False
    try:
        parent.rmdir(name)
    except GroupError as e:
        if e.errno in RETRY:
            return False
        raise
    return True


def above(place: str, top: str) -> Iterator[Dir]:
    """A group and all groups above it up to the mount point, as far as they can be opened."""
    while place.startswith(top):
        group = _open_or_none(place)
        if group is not None:
            try:
                yield group
            finally:
                group.close()
        if place in {top, "/"}:
            return
        place = place.rpartition("/")[0] or "/"


def smallest_limit(place: str, top: str, file: str) -> int | None:
    """The tightest limit of a group and all groups above it; None where there is none."""
    found = [limit for group in above(place, top) if (limit := _number_or_none(group, file)) is not None]
    return min(found, default=None)


ENDLESS = 1 << 62  # v1 has a number for infinity


def spare(place: str, top: str, limit_file: str, usage_file: str) -> int | None:
    """Bytes left below the limits of a group and all groups above it (0 and more); None where there is no limit."""
    left: list[int] = []
    for group in above(place, top):
        limit = _number_or_none(group, limit_file)
        usage = None if limit is None or limit >= ENDLESS else _number_or_none(group, usage_file)
        if limit is not None and usage is not None:
            left.append(max(0, limit - usage))
    return min(left, default=None)


def _open_or_none(place: str) -> Dir | None:
    try:
        return Dir(place)
    except GroupError:
        return None


def _number_or_none(group: Dir, file: str) -> int | None:
    try:
        return number(group.read(file))
    except (GroupError, ValueError):
        return None


def family() -> set[int]:
    """memrun and its children (the hand): who is ours to move."""
    mine = os.getpid()
    family = {mine}
    for word in os.listdir("/proc"):
        if word.isdigit():
            try:
                with open(f"/proc/{word}/stat", "rb") as f:
                    parent = int(f.read().rpartition(b")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if parent == mine:
                family.add(int(word))
    return family


def move(found: set[int], group: Dir) -> None:
    """Put processes into a group; those that are gone are gone."""
    for pid in found:
        try:
            group.write("cgroup.procs", str(pid))
        except GroupError as e:
            if e.errno != errno.ESRCH:
                raise
