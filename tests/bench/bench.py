"""Ratios against the bare interpreter, a C program, and the peers that are installed here. Prints; asserts nothing.

python tests/bench/bench.py [starting] [reacting] [many] [rate] [scope]: these parts, or all of them.
MEMRUN_BENCH_JOBS="1 100 1000 5000": how many live jobs `many` tries.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

import many
import rate
import reacting
import ruler
import scope
import starting

PARTS = {"starting": starting, "reacting": reacting, "many": many, "rate": rate, "scope": scope}


def end(*_: object) -> None:
    """As any other end: whoever has made a group removes it, and is not told twice (make and timeout both say it)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> None:
    """The parts that are named."""
    kernel, load = os.uname().release, os.getloadavg()[0]
    print(
        f"{time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs, kernel {kernel}, Python {sys.version.split()[0]}, load {load:.1f}"
    )
    signal.signal(signal.SIGTERM, end)
    try:
        for name in sys.argv[1:] or PARTS:
            print(f"{name}: {(PARTS[name].__doc__ or '').splitlines()[0]}")
            PARTS[name].run()
    finally:
        shutil.rmtree(ruler.SCRATCH, ignore_errors=True)


if __name__ == "__main__":
    main()
