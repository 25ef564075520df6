"""How a job of the command line stands, as one row of `memrun ps --json`, and what is said of it."""

from __future__ import annotations

from memrun import states
from memrun.interference import removed

KEPT = 256  # events that are kept for who asks later

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.events import Tell
    from memrun.job import Stay
    from memrun.record import Record


def row(stay: Stay, state: states.State, since: str, attempt: int, over: tuple[bool, Record | None]) -> dict[str, object]:
    """`attempt`: which one it is, or was the last; `over`: whether nothing of it is left, and what became of the whole."""
    group, (gone, record) = stay.group, over
    gone = gone or removed(group)
    return {
        "name": stay.spec.name,
        "file": None,
        "state": states.WORDS[type(state.phase)],
        "pid": stay.child.pid,
        "cgroup": group.path,
        "limit": state.limit if gone else group.limit,
        "usage": None if gone else group.usage(),
        "peak": None if gone else group.peak(),
        "attempt": attempt,
        "since": since,
        "result": record.result if record else None,
    }


def said(name: str, told: Tell, state: states.State) -> str:
    """What the policy has to tell, in a line; of who is held now, also what is to be done about it."""
    hint = f"; {_way_on(name, state.phase)}" if told.event == "paused" else ""
    return f"{name}: {told.event}: {told.text}{hint}"


def _way_on(name: str, held: states.Phase) -> str:
    by_limit = not isinstance(held, states.Paused) or held.by == "limit"
    return f"to give it more: memrun raise {name} SIZE" if by_limit else f"to let it go on: memrun resume {name}"
