"""What the machine has, and who uses it. The only room that knows psutil."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from memrun.job import Site

MEMINFO = "/proc/meminfo"


def room(site: Site) -> int:
    """Bytes that one more job could get now: what the machine has available, and what enclosing groups still allow.

    Read from /proc/meminfo directly: this is asked while a job waits at its limit, and psutil takes 40 ms to import.
    """
    free = available()
    enclosing = site.host.spare()
    return free if enclosing is None else min(free, enclosing)


def available() -> int:
    """MemAvailable, in bytes; 0 where the kernel does not tell."""
    fd = os.open(MEMINFO, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _, _, found = os.read(fd, 4096).partition(b"MemAvailable:")
    finally:
        os.close(fd)
    return int(found.split(maxsplit=1)[0]) * 1024 if found else 0


def largest(pids: Iterable[int], most: int = 5) -> list[dict[str, object]]:
    """{pid, name, rss in bytes} of the largest processes now. Those that end meanwhile are left out."""
    import psutil  # only after a job has stopped at its limit: nobody waits for it

    found: list[tuple[int, int, str]] = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found.append((process.memory_info().rss, pid, process.name()))
        except psutil.Error:
            continue
    return [{"pid": pid, "name": name, "rss": rss} for rss, pid, name in sorted(found, reverse=True)[:most]]


def glance(pids: Iterable[int], most: int = 5) -> list[dict[str, object]]:
    """The same, sooner: this is asked between the kernel's news and what is done about it, and psutil takes 40 ms to import."""
    found: list[tuple[int, int, str]] = []
    page = os.sysconf("SC_PAGESIZE")
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm", "rb") as statm, open(f"/proc/{pid}/comm", "rb") as comm:
                found.append((int(statm.read().split()[1]) * page, pid, comm.read()[:-1].decode(errors="replace")))
        except OSError:
            continue
    return [{"pid": pid, "name": name, "rss": rss} for rss, pid, name in sorted(found, reverse=True)[:most]]
