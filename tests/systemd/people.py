"""alice, bob and root, their commands, and what is there of memrun's."""

from __future__ import annotations

import os
import pwd
import re
import select
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
ALLOCATE = str(ROOT / "examples/mem-allocate")
GUEST = Path("/run/memrun-vm")  # where guest.py's shared directory is
TREE = Path("/sys/fs/cgroup")
BARE = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
MEMRUN = (sys.executable, "-m", "memrun")


def environment(user, **more):
    """What cron gives its jobs, and no more."""
    return {**BARE, "HOME": pwd.getpwnam(user).pw_dir, **more}


def as_user(user, *command, **more):
    """The words that run a command as a user, with nothing of a session: as cron, sudo or a container do."""
    around = [f"{key}={value}" for key, value in environment(user, **more).items()]
    return ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "env", "-i", *around, *command]


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, cwd="/", **options)


def scopes():
    """Directories of memrun's, as far as they are there for long enough to be seen."""
    found = ((folder, name) for folder, below, _ in os.walk(TREE) for name in below)
    return sorted(f"{folder}/{name}" for folder, name in found if re.match(r"memrun-\d", name))


def read_until(stream, mark, seconds=30):
    """Lines of a pipe up to the one that has `mark`."""
    told = ""
    deadline = time.monotonic() + seconds
    while mark not in told:
        ready, _, _ = select.select([stream], [], [], max(0, deadline - time.monotonic()))
        chunk = os.read(stream.fileno(), 4096).decode() if ready else ""
        assert chunk, f"{mark!r} was not said: {told}"
        told += chunk
    return told


def the_classic(user):
    """Paused at its limit, raised, on with its work, killed: all typed by an ordinary user."""
    words = ["--limit", "5M", "--on-oom", "pause", "--name", "classic", "--", ALLOCATE, "0", "300"]
    job = subprocess.Popen(as_user(user, *MEMRUN, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")
    try:
        read_until(job.stderr, "paused")
        raised = run(*as_user(user, *MEMRUN, "raise", "classic", "9M"))
        assert (raised.returncode, raised.stdout) == (0, "classic: limit 5M -> 9M\n"), raised.stderr
        read_until(job.stdout, "6 MiB")
        assert run(*as_user(user, *MEMRUN, "kill", "classic")).returncode == 0
        assert job.wait(10) == 137
    finally:
        job.kill()
        job.communicate()
