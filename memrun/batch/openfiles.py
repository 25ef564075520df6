"""How many files a batch may have open: as many as memrun can get for itself, and as few as it had for what it starts.

Each job costs memrun some descriptors for as long as it runs. A soft limit of 1024 is there for programs that use select(2), and
a job may be one: it gets back what memrun was given.
"""

from __future__ import annotations

import resource

from memrun import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from memrun.jobs import Job

EACH = 10  # descriptors of one job: its groups, their news, itself (8 on v1, 7 on v2), and some for the moment of its launch
STREAMS = 4  # two pipes and two logs
RULE = 2  # of a threshold or a pressure level
OURS = 128  # ledger, sockets, clients, the event loop


def widen(jobs: Sequence[Job]) -> int | None:
    """As many as we may have; how many of such jobs at a time that is enough for. None: no bound."""
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
    now = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if now == resource.RLIM_INFINITY else max(1, (now - OURS) // max(map(_of, jobs), default=EACH))


def _of(job: Job) -> int:
    return EACH + STREAMS + RULE * (len(job.spec.at) + len(job.spec.pressure)) if _has_more(job) else EACH


def _has_more(job: Job) -> bool:
    to, spec = job.output, job.spec
    return bool(to.log or to.stdout or to.stderr or spec.at or spec.pressure)


def _most() -> int:
    """What the kernel gives root."""
    try:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as f:
            return int(f.read())
    except (OSError, ValueError):
        return resource.RLIM_INFINITY
