"""`python inject.py WHAT K COUNT -- WORDS`: memrun with these words, to which WHAT happens at its K-th operation on a control file.

WHAT is the number of an error with which the operation fails, or `kill`: SIGKILL to the process that was about to do it, or
`kill-first`: to the one that was started (`memrun up` is two). An operation is one open, read, write, mkdir or rmdir of the one door to
the kernel (memrun/cgroup/files.py) or of what takes trees down (tree.py). K 0: nothing happens. How many there were is
written to the file COUNT.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys


class Door:
    """`os`, as those rooms see it."""

    def __init__(self, what: str, which: int) -> None:
        self.count, self._what, self._which, self._pid = 0, what, which, os.getpid()

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return self._gated(real) if name in {"open", "write", "pread", "mkdir", "rmdir"} else real

    def _gated(self, real):
        def gate(*args, **options):
            self.count += 1
            if self.count == self._which:
                self._happens()
            return real(*args, **options)

        return gate

    def _happens(self) -> None:
        if self._what.isdigit():
            raise OSError(int(self._what), os.strerror(int(self._what)))
        os.kill(self._pid if self._what == "kill-first" else os.getpid(), signal.SIGKILL)


def main() -> int:
    what, which, count = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    from memrun.cgroup import files, tree
    from memrun.cli import main as memrun

    door = Door(what, which)
    files.os = tree.os = door  # type: ignore[assignment]
    atexit.register(lambda: _say(count, door.count))
    return memrun(sys.argv[5:])


def _say(path: str, count: int) -> None:
    with open(path, "a", encoding="ascii") as f:
        f.write(f"{count}\n")


if __name__ == "__main__":
    sys.exit(main())
