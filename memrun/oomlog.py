"""The kernel's own words about an OOM kill, from /dev/kmsg: who was killed, and how large it was.

By the time that user space hears of a kill the victim's memory is gone; only the kernel's log still has the figures. It is
opened before the launch (job.py: 20 us), positioned at its end, and read only if there was a kill, or when another job is launched: one
descriptor serves them all, and what it has told since a job's launch is known by a number. Not everybody may read it
(kernel.dmesg_restrict): without it `largest` comes from what psutil saw, or from the reaped command's own peak.

Format (mm/oom_kill.c, 4.19 to 7.x):
  oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/a,task_memcg=/a/b,task=NAME,pid=123,uid=0
  Memory cgroup out of memory: Killed process 123 (NAME) total-vm:5kB, anon-rss:5kB, file-rss:5kB, shmem-rss:0kB, ...
and before them, unless switched off (vm.oom_dump_tasks), the group's memory.stat and a table of its tasks. All but the "Killed
process" lines is rate-limited to ten reports in five seconds, machine-wide; those lines do not name the group. They are taken
for ours only where there are exactly as many of them as the kernel counted kills in our group.
"""

from __future__ import annotations

import os

from memrun.units import PAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KERNEL = 1 << 3  # priorities below this are of the kernel's own lines; what programs write there is given another facility
MOST = 4096  # lines: a log storm must not keep us


class Report:
    """What the log says of one group's kills. `largest`: (pid in the first namespace, name, bytes resident), largest first."""

    __slots__ = ("anon", "largest")

    def __init__(self) -> None:
        self.largest: list[tuple[int, str, int]] = []
        self.anon: int | None = None  # bytes of anonymous memory in the group when the last kill was decided


class Log:
    """The kernel's log since `fd` (see job.kernel_log) was opened, for all who listen."""

    __slots__ = ("_count", "_fd", "_lines")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: list[str] = []  # the latest MOST, and up to as many more
        self._count = 0  # of lines, those that are not kept any more too

    def end(self) -> int:
        """Where it ends now: a number for `report`. It begins with 0."""
        self._read()
        return self._count

    def report(self, since: int, group: str, kills: int) -> Report:
        """What was logged since then about kills in the group or below it. `group`: its path as the kernel names it, or the end
        of that; `kills`: how many the group's own counter says."""
        self._read()
        return parse(self._lines[max(0, len(self._lines) - (self._count - since)) :], group, kills)

    def _read(self) -> None:
        for _ in range(MOST):
            try:
                record = os.read(self._fd, 8192)
            except BrokenPipeError:
                continue  # the log ran over us; the next read goes on behind the gap
            except OSError:
                return
            priority, _, _ = record.partition(b",")
            if priority.isdigit() and int(priority) < KERNEL:
                self._lines.append(record.decode(errors="replace").partition(";")[2].partition("\n")[0])
                self._count += 1
                if len(self._lines) >= 2 * MOST:
                    del self._lines[:MOST]


def parse(lines: Iterable[str], group: str, kills: int = 0) -> Report:
    """Pure part of `report`."""
    found = Report()
    table: list[tuple[int, str, int]] = []
    nameless: list[tuple[int, str, int]] = []
    anon: int | None = None
    columns = 0
    said = ""  # whose the next kills are, where that was said: '', 'ours', 'theirs'; 'all ...' for more than one
    for line in lines:
        word, _, value = line.partition(" ")
        if line.startswith("[  pid  ]"):
            table, columns = [], _columns(line)
        elif line.startswith("["):
            table += _task(line, columns)
        elif word in {"anon", "total_rss"} and value.isdecimal():
            anon = int(value)
        elif line.startswith("oom-kill:"):
            said = "ours" if _concerns(line.partition(",task_memcg=")[2], ",task=", group) else "theirs"
            if said == "ours":
                found.largest, found.anon = sorted(table, key=lambda t: -t[2]), anon
        elif line.startswith("Tasks in "):
            said = "all ours" if _concerns(line.removeprefix("Tasks in "), " are going", group) else "all theirs"
        elif "Killed process " in line:
            victim = _victim(line.partition("Killed process ")[2])
            if said.endswith("ours"):
                found.largest = found.largest or victim
            elif not said:
                nameless += victim
            said = said if said.startswith("all") else ""
    if not found.largest and len(nameless) == kills:
        found.largest = sorted(set(nameless), key=lambda t: -t[2])
    return found


def _concerns(place: str, behind: str, group: str) -> bool:
    """Whether a place named in the log is the group or below it. It may hold commas and blanks: `behind` is what follows it."""
    return f"/{group}{behind}" in place or f"/{group}/" in place


def _columns(line: str) -> int:
    """Of the table's head: 9 in 6.1, 12 in 7.x."""
    return len(line.replace("[", " ").replace("]", " ").split())


def _task(line: str, columns: int) -> list[tuple[int, str, int]]:
    """'[  123]     0   123     1951     1656 ... 0 name': pages in the fifth column, the name last, whatever is in it."""
    fields = line.replace("[", " ", 1).replace("]", " ", 1).split(None, max(0, columns - 1))
    if columns < 6 or len(fields) < columns - 1 or not (fields[0].isdecimal() and fields[4].isdecimal()):
        return []
    return [(int(fields[0]), "".join(fields[columns - 1 :]), int(fields[4]) * PAGE)]


def _victim(text: str) -> list[tuple[int, str, int]]:
    head, _, tail = text.partition(" total-vm:")
    pid, _, name = head.partition(" ")
    sizes = {}
    for part in ("total-vm:" + tail).split(", "):
        key, _, value = part.partition(":")
        digits = value.removesuffix("kB")
        if digits.isdecimal():
            sizes[key] = int(digits) * 1024
    if not pid.isdecimal() or "anon-rss" not in sizes:
        return []
    rss = sizes["anon-rss"] + sizes.get("file-rss", 0) + sizes.get("shmem-rss", 0)
    return [(int(pid), name.rstrip(",").strip("()"), rss)]
