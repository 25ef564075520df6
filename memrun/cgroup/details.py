"""All that the kernel tells of one group, in words: rows of (what, value, what it means). For people who ask why."""

from __future__ import annotations

from memrun.cgroup import tree
from memrun.cgroup.files import Dir, keyed, number
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cgroup import Group

Row = tuple[str, str, str]

FILES = {
    "v1": (
        ("limit", "memory.limit_in_bytes", "most memory of the whole tree"),
        ("limit with swap", "memory.memsw.limit_in_bytes", "memory and swap together"),
        ("use", "memory.usage_in_bytes", "charged now, page cache included"),
        ("peak", "memory.max_usage_in_bytes", "most that was ever charged"),
        ("soft", "memory.soft_limit_in_bytes", "what is left to it when the machine is short"),
        ("swappiness", "memory.swappiness", "0: never swapped at the limit"),
        ("hits", "memory.failcnt", "times that the limit was touched"),
        ("hits with swap", "memory.memsw.failcnt", "the same, of the limit with swap"),
    ),
    "v2": (
        ("limit", "memory.max", "most memory of the whole tree"),
        ("trip wire", "memory.high", "where it is slowed, and held if it is to be"),
        ("swap limit", "memory.swap.max", "swap on top"),
        ("use", "memory.current", "charged now, page cache included"),
        ("peak", "memory.peak", "most that was ever charged"),
        ("swap", "memory.swap.current", "swapped out now"),
        ("soft", "memory.low", "what is left to it when the machine is short"),
    ),
}
STAT = {
    "anon": "need: heap, stacks", "total_rss": "need: heap, stacks (whole subtree)",
    "shmem": "need: tmpfs, shared memory", "total_shmem": "need: tmpfs, shared memory (whole subtree)",
    "file": "page cache, tmpfs included: mostly not need", "total_cache": "page cache, tmpfs included: mostly not need (whole subtree)",
    "active_file": "cache in use: the kernel drops it when it must", "inactive_file": "idle cache: dropped first",
    "total_active_file": "cache in use: the kernel drops it when it must", "total_inactive_file": "idle cache: dropped first",
    "file_dirty": "cache that must be written before it can be dropped", "total_dirty": "cache that must be written first",
    "kernel": "need: kernel memory on its behalf", "slab_reclaimable": "kernel caches: dropped under pressure",
    "slab_unreclaimable": "need: kernel objects", "kernel_stack": "need: one stack a thread", "pagetables": "need: page tables",
    "sock": "need: network buffers", "total_swap": "swapped out now (whole subtree)", "pgmajfault": "faults that had to read the disk",
    "total_mapped_file": "cache that is mapped (programs, libraries)", "file_mapped": "cache that is mapped (programs, libraries)",
}  # fmt: skip
PRESSURE = "share of time stalled for memory"


def rows(group: Group) -> list[Row]:
    """What there is to tell; what this kernel does not have is left out."""
    if group.version not in FILES:
        return _without_files(group)
    place = Dir(group.path)
    try:
        found = [(what, _size(value), meaning) for what, file, meaning in FILES[group.version] if (value := _read(place, file))]
        use = [what for what, _, _ in found].index("use")
        found.insert(use + 1, ("need", str(group.need()), "of that, what is no page cache"))
        if group.wire is not None and group.version == "v1":
            found.insert(1, ("trip wire", str(group.wire), "where it is held"))
        stat = keyed(_read(place, "memory.stat"))
        found += [(key, str(stat[key]), meaning) for key, meaning in STAT.items() if key in stat]
        events = keyed(_read(place, "memory.events") or _read(place, "memory.oom_control"))
        found += [(f"events: {key}", str(count), "") for key, count in events.items()]
        found += [("pressure", line, PRESSURE) for line in _read(place, "memory.pressure").splitlines()]
        found += _nodes(_read(place, "memory.numa_stat"))
        found.append(("groups below", str(sum(1 for _ in tree.walk(place)) - 1), "made by the job itself"))
    finally:
        place.close()
    return found


def _without_files(group: Group) -> list[Row]:
    """A job whose memory is only looked at."""
    limit = "infinity" if group.limit is None else str(group.limit)
    return [
        ("limit", limit, "most memory of the whole tree: not kept by the kernel, but looked after"),
        ("use", str(group.usage()), "anonymous and shared memory and swap, each process's share of it"),
        ("peak", str(group.peak()), "most that a look has found"),
        ("processes", str(len(group.pids())), ""),
    ]


def _read(place: Dir, file: str) -> str:
    try:
        return place.read(file)
    except GroupError:
        return ""


def _size(text: str) -> str:
    value = number(text)
    return "infinity" if value is None or value >= 1 << 62 else str(value)


def _nodes(text: str) -> list[Row]:
    """NUMA, where there is more than one node."""
    lines = [line for line in text.splitlines() if " N1=" in line]
    found = [("NUMA", line, "bytes by node") for line in lines if line.startswith(("anon ", "file "))]
    whole = ("hierarchical_total=", "hierarchical_anon=", "hierarchical_file=")
    return found + [("NUMA", line, "pages by node (whole subtree)") for line in lines if line.startswith(whole)]
