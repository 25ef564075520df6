"""What is left in the page cache of a v1 group that is about to be removed."""

from __future__ import annotations

from memrun.cgroup.files import keyed
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.files import Dir

SMALL = 64 << 20  # bytes


def drop_small(group: Dir) -> None:
    """A removed group stays in the kernel ("dying") for as long as a cached page is charged to it. A little is dropped
    at once; a lot is left, because somebody may read it again and dropping it takes its time. So does looking for some: the kernel
    asks every CPU (1 to 6 ms on busy ones), and what is not written to the disk yet is waited for, a tenth of a second at a time, with
    everybody else of a batch unheard. So it is asked only where there is something, and all of it clean."""
    try:
        stat = keyed(group.read("memory.stat"))
        if 0 < stat.get("cache", 0) <= SMALL and not stat.get("dirty", 0) + stat.get("writeback", 0):
            group.write("memory.force_empty", "0")
    except GroupError:
        return
