#!/usr/bin/env python3
"""The smallest listener: run a command under a limit, and say what the kernel says of its group, as it says it.

python examples/oom-listen.py 5M examples/mem-allocate
"""

import functools
import sys

import trio

import memrun


def main() -> int:
    """Print each event, then the verdict."""
    limit, *command = sys.argv[1:]
    record = trio.run(functools.partial(memrun.run, command, limit=limit, on_event=print))
    print(f"{record.result}: peak {record.peak} of {record.limit} bytes, killed {record.oom_kills}, largest {record.largest}")
    return record.status


if __name__ == "__main__":
    sys.exit(main())
