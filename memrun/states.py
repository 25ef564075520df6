"""What a run was asked to do (Rule) and where it is in its life (State): frozen values for the policy. No behaviour.

States carry only their own data: there is no pair of flags that could contradict each other about being paused or ending.
"""

from __future__ import annotations

from memrun.values import value

AGAIN = 0.05  # seconds between kills of a group that did not empty at once; doubles up to a second
ASK_AGAIN = 1.0  # seconds until the machine is asked again for the memory that it had not; doubles up to half a minute


@value
class Action:
    """What a threshold or pressure rule does: log, signal, exec, stop, kill, restart, pause. `detail`: signal number or command."""

    do: str
    detail: str = ""
    about: str = ""


@value
class Rule:
    """What the user asked for. Times in seconds, sizes in bytes, None is never or infinity."""

    on_oom: str = "kill"  # kill | restart | pause
    oom_group: bool = True
    wait_all: bool = False
    timeout: float | None = None
    stop_signal: int = 15
    stop_timeout: float | None = 10.0
    grow: float = 1.0
    ceiling: int | None = None
    patience: float | None = 3600.0
    restart: str = "no"  # no | on-failure | always
    attempts: int = 5  # within the interval, the first one included
    interval: float | None = None
    delay: float = 1.0
    max_delay: float = 300.0
    min_uptime: float = 10.0
    jitter: float = 0.5  # 0..1, drawn once a run
    marks: tuple[Action, ...] = ()
    pressures: tuple[Action, ...] = ()


@value
class Running:
    """The command runs."""


@value
class Draining:
    """The command has ended by itself; its children may end by themselves, too."""


@value
class Paused:
    """It holds still: because of its 'limit', a 'rule', or the 'user'. `until`: when patience is over. `again`: when the machine, which
    had no more for it, is asked once more; `gap`: until the time after that."""

    by: str
    until: float | None
    again: float | None = None
    gap: float = ASK_AGAIN


@value
class Lent:
    """A paused job that runs for a moment, to hear a signal."""

    paused: Paused
    until: float


@value
class Ending:
    """It is being ended, because of `why`. `killed`: no more asking; `insist`: the next kill; `gap`: until the one after;
    `lent`: it was given a little more than its limit, to stop by itself."""

    why: str
    insist: float | None
    killed: bool = False
    gap: float = AGAIN
    lent: bool = False


@value
class Settling:
    """Nothing of the attempt is left; its record is being taken."""

    why: str


@value
class Waiting:
    """Between two attempts: until then; None when the next one has been asked for, and is launched as soon as there is room."""

    until: float | None


@value
class Over:
    """Nothing is left, and everything is said."""


Phase = Running | Draining | Paused | Lent | Ending | Settling | Waiting | Over


@value
class State:
    """`gone`: the command was reaped; `empty`: so is its group; `limit`: bytes, as it should be; `deadline`: of --timeout;
    `began`: when this attempt was launched; `tries`: when those in the budget's interval were; `quick`: failures in a row."""

    phase: Phase
    limit: int | None = None
    gone: bool = False
    empty: bool = False
    deadline: float | None = None
    began: float = 0.0
    tries: tuple[float, ...] = ()
    quick: int = 0
    stopped: bool = False  # somebody commanded the end: nothing is launched any more


START = State(Running())
WORDS = {  # what `ps` calls them
    Running: "RUNNING",
    Draining: "RUNNING",
    Paused: "PAUSED",
    Lent: "PAUSED",
    Ending: "STOPPING",
    Settling: "STOPPING",
    Waiting: "BACKOFF",
    Over: "EXITED",
}
