"""What memruns that are no more have left behind: for `memrun doctor`, and its --sweep.

Whether a run directory is left over (`leftovers`) is judged by two witnesses, because pids are reborn and a memrun in a
pid namespace of its own has another pid than the directory's name says: the process of that pid, and the hand, whose
command line names the directories that it watches for as long as there is somebody to watch them for.
"""

from __future__ import annotations

import os

from memrun.cgroup import ground
from memrun.cgroup.files import pids_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HAND = "memrun-hand"  # hand.spread's argv[0] for its script; tests/kernel/test_doctor.py holds the two together


class Leftover:
    """A run directory whose memrun is gone: one directory for each hierarchy, and what still runs in it."""

    __slots__ = ("name", "pids", "places")

    def __init__(self, name: str, places: Sequence[str], pids: Sequence[int] = ()) -> None:
        self.name, self.places, self.pids = name, tuple(places), list(pids)


def leftovers(own: Sequence[str]) -> list[Leftover]:
    """Run directories directly below these whose memrun is gone, by name."""
    found: dict[str, list[str]] = {}
    for place in own:
        for name in names(place):
            if _pid_of(name) and os.path.isdir(f"{place}/{name}"):
                found.setdefault(name, []).append(f"{place}/{name}")
    watched = hands() if found else set()
    left = []
    for name, paths in sorted(found.items()):
        pids = sorted({pid for path in paths for pid in _pids(path)})
        foreign = 0 in pids  # somebody of a pid namespace that we cannot see into lives there
        if not foreign and name not in watched and not _is_memrun(_pid_of(name)):
            left.append(Leftover(name, paths, pids))
    return left


def _pid_of(name: str) -> int:
    """'memrun-123-ab12' -> 123; 0 for every other name."""
    parts = name.split("-")
    if len(parts) != 3 or parts[0] != "memrun" or not (parts[1].isascii() and parts[1].isdigit()) or len(parts[2]) != 4:
        return 0
    return int(parts[1]) if all(c in "0123456789abcdef" for c in parts[2]) else 0


def _pids(path: str) -> Iterable[int]:
    """Every process in a directory or below it; 0 stands for those that we have no number for."""
    for here, _, _ in os.walk(path):
        words = ground.text(f"{here}/cgroup.procs").split()
        yield from pids_in(" ".join(words))
        if "0" in words:
            yield 0


def hands() -> set[str]:
    """Names of the run directories that a living hand watches, also one in a pid namespace below ours."""
    found: set[str] = set()
    for pid in names("/proc"):
        if pid.isdigit():
            words = ground.text(f"/proc/{pid}/cmdline").split("\0")
            if HAND in words:
                found.update(word.rpartition("/")[2] for word in words[words.index(HAND) + 1 :] if word)
    return found


def _is_memrun(pid: int) -> bool:
    """Whether this process may be the one: alive, not a thread of another, and memrun or a Python (whose program may be
    using memrun's API). Rather keep a directory too long than end a job that somebody waits for."""
    status = dict(line.partition(":\t")[::2] for line in ground.text(f"/proc/{pid}/status").splitlines())
    if status.get("Tgid") != str(pid) or status.get("State", "Z")[:1] in {"Z", "X"}:
        return False
    words = ground.text(f"/proc/{pid}/cmdline")
    return "memrun" in words or "python" in words.partition("\0")[0] or "python" in status.get("Name", "")


def names(place: str) -> list[str]:
    """Of what is in a directory; none where it cannot be read."""
    try:
        return os.listdir(place)
    except OSError:
        return []
