"""How many files a batch may have open: as many as memrun can get for itself, and as few as it had for what it starts.

Each job costs memrun some descriptors for as long as it runs. A soft limit of 1024 is there for programs that use select(2), and
a job may be one: it gets back what memrun was given.
"""

from __future__ import annotations

import resource

from memrun import launch
from memrun.cgroup.files import keep_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.jobs import Job

EACH = 3  # descriptors of one job: two that tell of its group, and itself
HELD = 2  # more of one that is paused at its limit: its trip wire, and the next one
LOG = 2  # of a file that its output goes to: a pipe and the file
PIPE = 1  # of a stream that goes through ours
RULE = 2  # of a threshold or a pressure level
OURS = 192  # ledger, sockets, clients, the event loop; launches that are under way


def widen(jobs: Sequence[Job], *, piped: bool) -> int | None:
    """As many as we may have; how many of such jobs at a time that is enough for. None: no bound. `piped`: what they write comes to us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (_most(), hard):
        if most == resource.RLIM_INFINITY or soft in {most, resource.RLIM_INFINITY}:
            continue
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, max(most, hard)))
        except (OSError, ValueError):
            continue  # only root may have more than the hard limit
        launch.Order.files = (soft, hard)
        break
    keep_back()
    now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        None
        if now == resource.RLIM_INFINITY
        else max(1, (now - OURS) // max((_of(job, piped=piped) for job in jobs), default=EACH))
    )


def _of(job: Job, *, piped: bool) -> int:
    to, spec = job.output, job.spec
    files = [to.stdout or to.log, to.stderr or to.log]
    streams = LOG * len({path for path in files if path}) + (PIPE * files.count("") if piped else 0)
    return EACH + streams + RULE * (len(spec.at) + len(spec.pressure)) + (HELD if spec.on_oom == "pause" else 0)


def _most() -> int:
    """What the kernel gives root."""
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as f:
            return int(f.read())
    except (OSError, ValueError):
        return resource.RLIM_INFINITY
