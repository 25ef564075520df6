"""Launch rate of a batch of trivial commands, against GNU parallel with cgexec, and xargs with memrun itself."""

from __future__ import annotations

import shutil
import subprocess
import time

from ruler import MEMRUN, SCRATCH, line, memory_group

NUMBER, SLOTS = 400, 4
TRUE = "/bin/true"


def rate(words: list[str]) -> float:
    """Commands a second."""
    numbers = "\n".join(map(str, range(NUMBER))) + "\n"
    began = time.monotonic()
    subprocess.run(words, input=numbers, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return NUMBER / (time.monotonic() - began)


def run() -> None:
    file = SCRATCH / "rate.toml"
    file.write_text(
        f'[batch]\nparallel = {SLOTS}\n[jobs.t]\narray = "1-{NUMBER}"\nlimit = "20M"\ncommand = ["{TRUE}"]\n', encoding="utf-8"
    )
    ways = {"memrun up": [MEMRUN, "up", "--fresh", "-q", str(file)]}
    with memory_group() as group:
        if group is not None and shutil.which("parallel") and shutil.which("cgexec"):
            place = str(group).removeprefix("/sys/fs/cgroup/memory/")
            own = f"g=memory:{place}/{{}}; cgcreate -g $g && cgset -r memory.limit_in_bytes=20M {place}/{{}} && cgexec -g $g {TRUE}; cgdelete -g $g"
        ways["parallel, a group for each"] = ["parallel", "-j", str(SLOTS), own]
        ways["parallel, cgexec into one"] = ["parallel", "-j", str(SLOTS), "cgexec", "-g", f"memory:{place}", TRUE]
        ways["xargs, memrun"] = ["xargs", "-P", str(SLOTS), "-n", "1", MEMRUN, "--limit", "20M", "--", TRUE]
        line(f"{NUMBER} trivial commands, {SLOTS} at a time", "a second")
        for name, words in ways.items():
            line(name, f"{sorted(rate(words) for _ in range(3))[1]:.0f}")
