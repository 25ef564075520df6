"""What happened (Event) and what to do about it (Decision): two closed unions of frozen values without behaviour.

Every event says when (`at`, monotonic seconds): time is a field, never a call, so that a history can be replayed.
Events are past participles, decisions imperatives.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launched:
    """The command is running, in its group; `limit` in bytes, None is infinity."""

    at: float
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """A further attempt could not be started."""

    at: float


@dataclass(frozen=True, slots=True)
class Exited:
    """The command itself has ended and was reaped; `left`: others of its tree are still there."""

    at: float
    ok: bool
    left: bool


@dataclass(frozen=True, slots=True)
class Emptied:
    """No process is left in the group."""

    at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The record of an attempt was taken; `result` is one of its words."""

    at: float
    result: str


@dataclass(frozen=True, slots=True)
class OomKilled:
    """The kernel killed at least one process of the group for lack of memory."""

    at: float


@dataclass(frozen=True, slots=True)
class Reached:
    """The job is at its limit and holds still, its work intact (only where it is to be held there)."""

    at: float


@dataclass(frozen=True, slots=True)
class Granted:
    """The machine has the memory that the policy asked for; `limit` is what it may be set to."""

    at: float
    limit: int


@dataclass(frozen=True, slots=True)
class Denied:
    """It has not."""

    at: float


@dataclass(frozen=True, slots=True)
class Crossed:
    """Memory use has crossed a threshold (index into the rule's): upwards or downwards."""

    at: float
    index: int
    rising: bool


@dataclass(frozen=True, slots=True)
class Pressed:
    """Memory pressure of a rule's level (index into the rule's) was reported."""

    at: float
    index: int


@dataclass(frozen=True, slots=True)
class Rang:
    """The alarm that the policy had set."""

    at: float


@dataclass(frozen=True, slots=True)
class RaiseAsked:
    """Somebody gives it a new limit, up or down; None is infinity. Checked already: it can be set."""

    at: float
    limit: int | None
    by: str = "user"


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Somebody wants it to hold still."""

    at: float


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Somebody wants it to go on."""

    at: float


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """Somebody wants a clean restart: stop, then a new attempt."""

    at: float


@dataclass(frozen=True, slots=True)
class GiveWayAsked:
    """Its memory is needed by others who wait as it does: this attempt ends, and another one is made when there is room."""

    at: float


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants it to end: a signal to memrun, a command, the end of a batch. `signal` None: as configured."""

    at: float
    signal: int | None = None


@dataclass(frozen=True, slots=True)
class DetachAsked:
    """Somebody wants processes that memrun did not start (`memrun attach`) to go on without it."""

    at: float


@dataclass(frozen=True, slots=True)
class KillAsked:
    """Somebody wants it gone now."""

    at: float


@dataclass(frozen=True, slots=True)
class SignalAsked:
    """A signal to be passed on to the command."""

    at: float
    signal: int


Event = (
    Launched
    | LaunchFailed
    | Exited
    | Emptied
    | Settled
    | OomKilled
    | Reached
    | Granted
    | Denied
    | Crossed
    | Pressed
    | Rang
    | RaiseAsked
    | PauseAsked
    | ResumeAsked
    | RestartAsked
    | GiveWayAsked
    | StopAsked
    | DetachAsked
    | KillAsked
    | SignalAsked
)


News = Exited | Emptied | OomKilled | Reached | Granted | Denied | Crossed | Pressed  # of one attempt, and of none after it


@dataclass(frozen=True, slots=True)
class Launch:
    """Start an attempt, in a fresh group with this limit (bytes, None is infinity): at once, or when a batch has room for it."""

    limit: int | None


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to the command (`tree` False) or to every process of the job."""

    signal: int
    tree: bool


@dataclass(frozen=True, slots=True)
class Freeze:
    """Let no process of the job run."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let them run again."""


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Give the group this limit (bytes, None is infinity). `by`: who wanted it, for the record."""

    limit: int | None
    by: str


@dataclass(frozen=True, slots=True)
class Lend:
    """A little more than the limit for a moment, so that a held job can hear a signal; taken back by the next freeze."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the machine (or the batch's budget) for this limit; Granted or Denied comes back."""

    limit: int


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to everything in the group, at once."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """Put every process of the job back to where it came from, unharmed: nobody is left in the group after that."""


@dataclass(frozen=True, slots=True)
class Settle:
    """An attempt is over: take its record, remove its group. `why`: what memrun did first, '' where it did nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Tell:
    """Say it: a word for the event stream (restarted, paused, threshold ...) and a sentence."""

    event: str
    text: str


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a hook command outside of the job's group. `about`: what it is told."""

    command: str
    about: str


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over. `why`: as in Settle; 'exhausted' where no attempt was left."""

    why: str


Decision = Launch | Signal | Freeze | Thaw | SetLimit | Lend | Ask | Kill | LetGo | Settle | Tell | Execute | Finish
