"""cgroup v2: where memrun's groups are. The groups themselves: v2group.py.

The rules of the tree (no processes in inner groups, controllers enabled from the top down) decide the layout:

    our own group            where memrun was started; must be able to enable +memory for groups below it
      memrun-PID-xxxx/       the run directory: an inner group, +memory, no limit of its own, never a process
        NAME.1/              one job's attempt: a leaf; the job may make groups below it as it likes

Our own group can enable controllers only while it holds no process, unless it is the machine's root: ground.py makes room.
"""

from __future__ import annotations

import errno

from memrun.cgroup import detect, ground, tree
from memrun.cgroup.files import Dir, keyed
from memrun.cgroup.v2group import MAX, Group
from memrun.errors import GroupError, NoCgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Wish
    from memrun.cgroup.detect import Setup


class Host:
    """memrun's own directory on v2."""

    version = "v2"

    def __init__(self, setup: Setup, name: str) -> None:
        self.name = name
        self.way = ""
        self._place, self._top = setup.memory or "", setup.memory_top or ""
        self._keeper = setup.keeper
        self._whole = setup.whole and setup.memory == setup.unified
        self._base: Dir | None = None
        self._run: Dir | None = None
        self._self: Dir | None = None  # the leaf for memrun itself, where one is needed
        self._before: frozenset[str] = frozenset()  # who was below our group already

    def places(self) -> tuple[str, ...]:
        return (f"{self._place}/{self.name}",)

    def begin(self) -> None:
        base = Dir(self._place)
        try:
            self._make_run(base)
        except GroupError as e:
            self._step_back(base)
            base.close()
            raise NoCgroupError(f"no memory group can be made: {e.what}", detect.remedy(e.errno)) from None
        self._base = base

    def _make_run(self, base: Dir) -> None:
        for last in (False, True):
            self._self = ground.clear(base, whole=self._whole, keeper=self._keeper)
            if self._self is not None:
                self._before = frozenset(base.children())
            run = base.mkdir(self.name)
            try:
                run.write(ground.CONTROL, "+memory")
            except GroupError as e:
                run.close()
                base.rmdir(self.name)
                if last or e.errno != errno.ENOENT:  # ENOENT: another memrun that ended took memory back in between
                    raise
                self._step_back(base)
            else:
                self._run = run
                return

    def _step_back(self, base: Dir) -> bool:
        """False: somebody else (the hand) is to try it."""
        leaf, self._self = self._self, None
        if leaf is None:
            return True
        try:
            return ground.restore(base, leaf, self._before)
        finally:
            leaf.close()

    def create(self, name: str, wish: Wish) -> Group:
        assert self._run is not None
        if wish.hold and not detect.may_exempt():
            self._go_ahead()
        leaf = self._run.mkdir(name, held=False)
        group = None
        try:
            group = Group(self, leaf)
            group.begin(wish)
        except BaseException:
            if group is not None:
                group.close()
            self._run.rmdir(name)
            raise
        return group

    def _go_ahead(self) -> None:
        """A share of the processor of our own, where that takes nothing from anybody but our jobs: one that has two hundred processes has
        two hundred shares otherwise, and who is to freeze it, one (root has better: priority.hurry)."""
        if self._base is not None and self._self is not None:
            ground.divide(self._base, self._self)

    def run(self) -> Dir:
        """The run directory."""
        assert self._run is not None
        return self._run

    def outer(self) -> int:
        """Times that a group above our jobs was out of memory (counted there, local events only), as far as we may read."""
        total, place = 0, self._place
        while place.startswith(self._top) and place != self._top:
            total += _oom_of(place)
            place = place.rpartition("/")[0]
        return total

    def enclosing(self) -> int | None:
        return tree.smallest_limit(self._place, self._top, MAX)

    def spare(self) -> int | None:
        return tree.spare(self._place, self._top, MAX, "memory.current")

    def end(self) -> bool:
        if self._base is None or self._run is None:
            return True
        if not tree.remove(self._base, self._run) or not self._step_back(self._base):
            return False
        self._base.close()
        self._run.close()
        self._base = self._run = None
        return True


def _oom_of(place: str) -> int:
    try:
        group = Dir(place)
    except GroupError:
        return 0
    try:
        return keyed(group.read("memory.events.local")).get("oom", 0)
    except GroupError:
        return 0
    finally:
        group.close()
