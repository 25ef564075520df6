"""cgroup v1: where memrun's groups are. The groups themselves: v1group.py."""

from __future__ import annotations

import errno
import os

from memrun.cgroup import tree
from memrun.cgroup.eventfd import count, listen
from memrun.cgroup.files import Dir
from memrun.cgroup.limits1 import MEMORY, MEMSW, UNLIMITED
from memrun.cgroup.v1group import Group
from memrun.errors import GroupError, NoCgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Wish
    from memrun.cgroup.detect import Setup


class Host:
    """memrun's own directories on v1: one in the memory hierarchy, one for companions where there is a place for them."""

    version = "v1"

    def __init__(self, setup: Setup, name: str) -> None:
        self.name = name
        self.way = ""
        self._memory, self._top = setup.memory or "", setup.memory_top or ""
        beside = [place for place in (setup.unified, setup.freezer) if place is not None]
        self._beside = [place for place in beside if os.access(place, os.W_OK)]
        self._bases: list[Dir] = []  # memory first, then companions; in step with _runs
        self._runs: list[Dir] = []
        self._outer = -1  # eventfd: out of memory above us
        self._outer_seen = 0

    def places(self) -> tuple[str, ...]:
        return tuple(f"{place}/{self.name}" for place in [self._memory, *self._beside])

    def begin(self) -> None:
        try:
            self._make(self._memory)
        except GroupError as e:
            raise NoCgroupError(f"no memory group can be made: {e.what}", _remedy(e)) from None
        for place in self._beside:
            try:
                self._make(place)
            except GroupError:
                continue  # what it would have given is missed where it is asked for
        self._outer = listen(self._runs[0])

    def _make(self, place: str) -> None:
        base = Dir(place)
        try:
            self._runs.append(base.mkdir(self.name))
        except GroupError:
            base.close()
            raise
        self._bases.append(base)

    def create(self, name: str, wish: Wish) -> Group:
        parts: list[Dir] = []
        group = None
        try:
            for run in self._runs:
                parts.append(run.mkdir(name, held=False))  # noqa: PERF401  (what was made must be known when the next one fails)
            group = Group(self, parts)
            group.begin(wish)
        except BaseException:
            if group is not None:
                group.close()
            for run, _ in zip(self._runs, parts, strict=False):
                run.rmdir(name)
            raise
        return group

    def outer(self) -> int:
        """Times that a group above our jobs was out of memory, since we began."""
        self._outer_seen += count(self._outer)
        return self._outer_seen

    def enclosing(self) -> int | None:
        found = [tree.smallest_limit(self._memory, self._top, file) for file in (MEMORY, MEMSW)]
        real = [limit for limit in found if limit is not None and limit < UNLIMITED]
        return min(real) if real else None

    def spare(self) -> int | None:
        return tree.spare(self._memory, self._top, MEMORY, "memory.usage_in_bytes")

    def end(self) -> bool:
        clean = True
        for base, run in zip(self._bases, self._runs, strict=True):
            clean = tree.remove(base, run) and clean
        if clean:
            self._close()
        return clean

    def runs(self) -> list[Dir]:
        """The run directories, the memory one first."""
        return self._runs

    def _close(self) -> None:
        for part in self._bases + self._runs:
            part.close()
        self._bases, self._runs = [], []
        if self._outer >= 0:
            os.close(self._outer)
            self._outer = -1


def _remedy(e: GroupError) -> str:
    if e.errno == errno.EROFS:
        return "In a container: start it with --privileged, or with --security-opt writable-cgroups=true (docker 28 or newer)"
    if e.errno in {errno.EACCES, errno.EPERM}:
        return "'memrun doctor' prints the command with which root gives you groups of your own"
    return ""
