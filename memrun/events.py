"""What happened (Event) and what to do about it (Decision): two closed unions of frozen values without behaviour.

Every event says when (`at`, monotonic seconds): time is a field, never a call, so that a history can be replayed.
Events are past participles, decisions imperatives.
"""

from __future__ import annotations

from memrun.values import value


@value
class Launched:
    """The command is running, in its group; `limit` in bytes, None is infinity."""

    at: float
    limit: int | None = None


@value
class LaunchFailed:
    """A further attempt could not be started."""

    at: float


@value
class Exited:
    """The command itself has ended and was reaped; `left`: others of its tree are still there."""

    at: float
    ok: bool
    left: bool


@value
class Emptied:
    """No process is left in the group."""

    at: float


@value
class Settled:
    """The record of an attempt was taken; `result` is one of its words; `passed`: thresholds (by index) that its peak is above and that
    nobody has told of, because it was over before anybody could look."""

    at: float
    result: str
    passed: tuple[int, ...] = ()


@value
class OomKilled:
    """The kernel killed at least one process of the group for lack of memory."""

    at: float


@value
class Reached:
    """The job is at its limit and holds still, its work intact (only where it is to be held there)."""

    at: float


@value
class Raised:
    """The job got near its limit, which was `before`, and what the policy had allowed beforehand (budget.foreseen) was done at once: it is
    `limit` now, and the job goes on."""

    at: float
    before: int
    limit: int


@value
class Granted:
    """The machine has the memory that the policy asked for; `limit` is what it may be set to."""

    at: float
    limit: int


@value
class Denied:
    """It has not."""

    at: float


@value
class Crossed:
    """Memory use has crossed a threshold (index into the rule's): upwards or downwards."""

    at: float
    index: int
    rising: bool


@value
class Pressed:
    """Memory pressure of a rule's level (index into the rule's) was reported."""

    at: float
    index: int


@value
class Rang:
    """The alarm that the policy had set."""

    at: float


@value
class RaiseAsked:
    """Somebody gives it a new limit, up or down; None is infinity. Checked already: it can be set."""

    at: float
    limit: int | None
    by: str = "user"


@value
class PauseAsked:
    """Somebody wants it to hold still."""

    at: float


@value
class ResumeAsked:
    """Somebody wants it to go on."""

    at: float


@value
class RestartAsked:
    """Somebody wants a clean restart: stop, then a new attempt."""

    at: float


@value
class GiveWayAsked:
    """Its memory is needed by others who wait as it does: this attempt ends, and another one is made when there is room."""

    at: float


@value
class StopAsked:
    """Somebody wants it to end: a signal to memrun, a command, the end of a batch. `signal` None: as configured."""

    at: float
    signal: int | None = None


@value
class DetachAsked:
    """Somebody wants processes that memrun did not start (`memrun attach`) to go on without it."""

    at: float


@value
class KillAsked:
    """Somebody wants it gone now."""

    at: float


@value
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
    | Raised
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


News = (
    Exited | Emptied | OomKilled | Reached | Raised | Granted | Denied | Crossed | Pressed
)  # of one attempt, and of none after it


@value
class Launch:
    """Start an attempt, in a fresh group with this limit (bytes, None is infinity): at once, or when a batch has room for it."""

    limit: int | None


@value
class Signal:
    """Send a signal to the command (`tree` False) or to every process of the job."""

    signal: int
    tree: bool


@value
class Freeze:
    """Let no process of the job run."""


@value
class Thaw:
    """Let them run again."""


@value
class SetLimit:
    """Give the group this limit (bytes, None is infinity). `by`: who wanted it, for the record."""

    limit: int | None
    by: str


@value
class Lend:
    """A little more than the limit for a moment, so that a held job can hear a signal; taken back by the next freeze."""


@value
class Ask:
    """Ask the machine (or the batch's budget) for this limit; Granted or Denied comes back."""

    limit: int


@value
class Kill:
    """SIGKILL to everything in the group, at once."""


@value
class LetGo:
    """Put every process of the job back to where it came from, unharmed: nobody is left in the group after that."""


@value
class Settle:
    """An attempt is over: take its record, remove its group. `why`: what memrun did first, '' where it did nothing."""

    why: str


@value
class Tell:
    """Say it: a word for the event stream (restarted, paused, threshold ...) and a sentence."""

    event: str
    text: str


@value
class Execute:
    """Run a hook command outside of the job's group. `word`: threshold or pressure; `about`: what it is told of that."""

    command: str
    word: str
    about: str


@value
class Finish:
    """It is over. `why`: as in Settle; 'exhausted' where no attempt was left."""

    why: str


Decision = Launch | Signal | Freeze | Thaw | SetLimit | Lend | Ask | Kill | LetGo | Settle | Tell | Execute | Finish
