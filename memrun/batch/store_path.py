"""Where the job store of a job file is: beside it, or in the state directory of the user.

Beside it: `.jobs.toml.memrun`. Elsewhere, where that cannot be written, is a stranger's, or SQLite cannot work there: $XDG_STATE_HOME/memrun (root:
/var/lib/memrun).
"""

from __future__ import annotations

import hashlib
import os
import stat

from memrun.history import state_directory


def place(job_file: str, *, make: bool = True) -> str:
    """The database of a job file (an absolute path)."""
    folder, name = os.path.split(job_file)
    beside = f"{folder}/.{name}.memrun"
    if os.access(beside if os.path.lexists(beside) else folder, os.W_OK) and not _is_strange(beside, job_file):
        return beside
    return elsewhere(job_file, make=make)


def elsewhere(job_file: str, *, make: bool = True) -> str:
    """The database of a job file where it cannot be beside it."""
    name = os.path.basename(job_file)
    key = hashlib.sha256(os.fsencode(job_file)).hexdigest()[:12]
    return f"{_state_directory(make=make)}/{name}-{key}.memrun"


def _is_strange(beside: str, job_file: str) -> bool:
    """Whether somebody else has put it there (in /tmp anybody may): he could say what is done, and what is not."""
    try:
        found = os.lstat(beside)
        return not stat.S_ISREG(found.st_mode) or found.st_uid not in {os.geteuid(), os.stat(job_file).st_uid}
    except FileNotFoundError:
        return False


def _state_directory(*, make: bool) -> str:
    found = state_directory()
    if make:
        os.makedirs(found, 0o700, exist_ok=True)
    return found
