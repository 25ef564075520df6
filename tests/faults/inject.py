"""`python inject.py K ERRNO COUNT -- WORDS`: memrun with these words, whose K-th operation on a control file fails with ERRNO.

An operation is one open, read, write, mkdir or rmdir of the one door to the kernel (memrun/cgroup/files.py) or of what takes trees down
(tree.py), in memrun's own process; K 0: none fails. How many there were is written to the file COUNT.
"""

from __future__ import annotations

import atexit
import os
import sys


class Door:
    """`os`, as those rooms see it."""

    def __init__(self, which: int, number: int) -> None:
        self.count, self._which, self._number, self._pid = 0, which, number, os.getpid()

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        return self._gated(real) if name in {"open", "write", "pread", "mkdir", "rmdir"} else real

    def _gated(self, real):
        def gate(*args, **options):
            self.count += 1
            if self.count == self._which:
                raise OSError(self._number, os.strerror(self._number))
            return real(*args, **options)

        return gate


def main() -> int:
    which, number, count = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    from memrun.cgroup import files, tree
    from memrun.cli import main as memrun

    door = Door(which, number)
    files.os = tree.os = door  # type: ignore[assignment]
    atexit.register(lambda: _say(count, door.count))
    return memrun(sys.argv[5:])


def _say(path: str, count: int) -> None:
    with open(path, "a", encoding="ascii") as f:
        f.write(f"{count}\n")


if __name__ == "__main__":
    sys.exit(main())
