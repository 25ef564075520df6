"""The whole of a trivial command where systemd owns the tree, against systemd-run: in the guest with systemd, or any such machine, as root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ruler import BARE, MEMRUN, SCRATCH, clock, in_turn, line, ratio, said

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_A_ROW = 30  # commands
ROUNDS = int(os.environ.get("MEMRUN_BENCH_ROUNDS", "25"))
ROOT = Path(__file__).resolve().parent.parent.parent
TRUE = [MEMRUN, "--limit", "50M", "--", "true"]


class Person:
    """Somebody with a systemd: how they run a command, and how they ask for a scope."""

    def __init__(self, name: str) -> None:
        found = pwd.getpwnam(name)
        runtime = f"/run/user/{found.pw_uid}"
        around = [
            "PATH=/usr/bin:/bin",
            "LANG=C.UTF-8",
            f"HOME={found.pw_dir}",
            f"PYTHONPATH={ROOT}",
            f"XDG_RUNTIME_DIR={runtime}",
        ]
        become = ["setpriv", "--reuid", name, "--regid", name, "--init-groups"] if found.pw_uid else []
        self.name = name
        self.words = [*become, "env", "-i", *around]
        self.scope = [shutil.which("systemd-run") or "systemd-run", *(["--user"] if found.pw_uid else []), "--scope", "--quiet"]

    def took(self, command: list[str], group: str = "") -> float:
        """Wall-clock milliseconds of a command, started from a group."""
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"] if group else []
        return said([*enter, *self.words, clock(), "time", *command])[-2] / 1e6

    def rate(self, command: list[str], group: str = "") -> float:
        """Commands a second, one after another."""
        row = f'n=0; while [ $n -lt {IN_A_ROW} ]; do "$@" || exit; n=$((n + 1)); done'
        return IN_A_ROW * 1000 / self.took(["/bin/sh", "-c", row, "sh", *command], group)

    @contextmanager
    def ready(self) -> Iterator[str]:
        """A group of a delegated scope, below which memrun has everything that it needs without asking."""
        words = [
            *self.words,
            *self.scope,
            "--property=Delegate=yes",
            "sh",
            "-c",
            'read -r group < /proc/self/cgroup; echo "$group"; exec sleep 1000',
        ]
        holder = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        try:
            assert holder.stdout is not None
            scope = Path("/sys/fs/cgroup") / holder.stdout.readline().strip().partition("::/")[2]
            leaf = scope / "login"
            leaf.mkdir()
            (leaf / "cgroup.procs").write_text(str(holder.pid))
            (scope / "cgroup.subtree_control").write_text("+memory")
            yield str(leaf)
        finally:
            holder.kill()
            holder.wait()


def run() -> None:
    if os.geteuid() != 0 or not os.path.isdir("/run/systemd/system"):
        line("as root on a machine with systemd, or: guest.py --systemd", "not here")
        return
    SCRATCH.chmod(0o755)
    subprocess.run([sys.executable, "-m", "compileall", "-q", ROOT / "memrun"], check=False)
    for person in (Person(name) for name in ("alice", "root") if name in {p.pw_name for p in pwd.getpwall()}):
        _compare(person)


def _compare(person: Person) -> None:
    with person.ready() as group:
        names = (
            "python -I -c pass",
            "systemd-run --scope true",
            "systemd-run --scope python -I -c pass",
            "memrun --limit 50M -- true",
            "memrun ..., its group ready",
        )
        figures = in_turn(
            ROUNDS,
            lambda: person.took(BARE),
            lambda: person.took([*person.scope, "/bin/true"]),
            lambda: person.took([*person.scope, *BARE]),
            lambda: person.took(TRUE),
            lambda: person.took(TRUE, group),
        )
        rates = in_turn(
            max(2, ROUNDS // 5),
            lambda: person.rate(BARE),
            lambda: person.rate([*person.scope, "-p", "MemoryMax=50M", "/bin/true"]),
            lambda: person.rate(TRUE),
            lambda: person.rate(TRUE, group),
        )
    line(f"as {person.name}, in turn", "ms", "/ s-run", "/ s-run py")
    for name, column in zip(names, figures, strict=True):
        line(name, f"{median(column):.1f}", f"{ratio(column, figures[1]):.2f}", f"{ratio(column, figures[2]):.2f}")
    line(f"as {person.name}, {IN_A_ROW} one after another", "a second", "/ s-run", "/ python")
    for name, column in zip((names[0], "systemd-run --scope -p MemoryMax=50M true", *names[3:]), rates, strict=True):
        line(name, f"{median(column):.1f}", f"{ratio(column, rates[1]):.2f}", f"{ratio(column, rates[0]):.2f}")
