"""Find what others have done to a job's group behind memrun's back, and go on with what is left.

Root can move a job's processes to another group and remove the one that they were in. The command is still memrun's child, so memrun waits
for its end, and says in the record that the limit and the counters have gone.
"""

from __future__ import annotations

import os

from memrun.cgroup import Heard, Tally
from memrun.errors import GroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from memrun.cgroup import Group

    Answer = TypeVar("Answer")

REMOVED = "its group was removed by somebody else, and the limit and the kernel's counters with it"


def removed(group: Group) -> bool:
    """Whether the group's directory is gone. A sampled job has none."""
    return group.version != "sampled" and not os.path.isdir(group.path)


def _unless_removed(group: Group, ask: Callable[[], Answer]) -> Answer | None:
    try:
        return ask()
    except GroupError:
        if removed(group):
            return None
        raise


def hear(group: Group) -> Heard | None:
    """The news of a group; None where it was removed: there will be no more."""
    return _unless_removed(group, group.hear)


def reflex(group: Group) -> bool:
    """Whether a job that is to be held is at its limit, and held; never where its group was removed."""
    return bool(_unless_removed(group, group.reflex))


def found(group: Group) -> str:
    """What is to be said of it in the record; '' where nothing is known."""
    return REMOVED if removed(group) else ""


def tally(group: Group) -> Tally:
    """The kernel's counters, as far as they are still there."""
    told = _unless_removed(group, group.tally)
    if told is None:
        told = Tally()
        told.limit = group.limit
    return told
