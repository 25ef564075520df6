"""v1: a group's counters, as its files tell them."""

from __future__ import annotations

from memrun.cgroup import Tally, tree
from memrun.cgroup.files import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup.files import Dir

MEMSW_HITS, MEMSW_PEAK = "memory.memsw.failcnt", "memory.memsw.max_usage_in_bytes"


def read(memory: Dir, unified: Dir | None, *, swap: bool) -> Tally:
    """All that the files say by themselves. `unified`: the companion in the v2 hierarchy; `swap`: whether it may have some, and that is counted."""
    t = Tally()
    t.usage = int(memory.read("memory.usage_in_bytes"))
    t.peak = int(memory.read("memory.max_usage_in_bytes"))
    if swap:
        t.swap_peak = int(memory.read(MEMSW_PEAK)) - t.peak
    stat = keyed(memory.read("memory.stat"))
    t.anon, t.file = stat.get("total_rss"), stat.get("total_cache")
    t.kills = tree.sum_of(memory, "memory.oom_control", "oom_kill")
    t.nested = t.kills > keyed(memory.read("memory.oom_control")).get("oom_kill", 0)
    # With memsw == memory (no swap allowed) hits are counted on memsw alone.
    t.hits = sum(int(memory.read(file)) for file in ("memory.failcnt", MEMSW_HITS) if memory.has(file))
    if unified is not None and unified.has("cpu.stat"):
        usec = keyed(unified.read("cpu.stat")).get("usage_usec")
        t.cpu = None if usec is None else usec / 1e6
    return t
