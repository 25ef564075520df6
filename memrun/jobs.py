"""What a job file comes to: frozen values that the batch, its ledger and its views share.

Sizes are bytes where they are ints (None is infinity), times seconds. A job's name is the table's, with its variables:
`align[sample=a]`, `render[3]`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memrun.options import Spec
    from memrun.units import Size

STATES = ("WAITING", "STARTING", "RUNNING", "PAUSED", "BACKOFF", "STOPPING", "EXITED", "FATAL")
FIRST = ("PAUSED", "STOPPING", "STARTING", "RUNNING", "BACKOFF", "FATAL", "EXITED", "WAITING")  # for whom a view has room first
UNTIL = ("succeeded", "finished", "started")


@dataclass(frozen=True, slots=True)
class Need:
    """Another job that has to get somewhere first. `until`: one of UNTIL."""

    job: str
    until: str = "succeeded"


@dataclass(frozen=True, slots=True)
class Output:
    """Where a job's output goes. `path` is absolute and may still hold {attempt} and {limit}; '' inherits memrun's own.

    `log`: stdout and stderr together; else they may go to files of their own. `most`: bytes of a file before it is rotated
    (None: never), `keep`: how many old ones stay.
    """

    log: str = ""
    stdout: str = ""
    stderr: str = ""
    most: int | None = None
    keep: int = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One job, resolved. `spec.command`, its environment and the output paths may still hold {attempt} and {limit}.

    `digest` changes when what the job does changes; `order` is the place in the file.
    """

    name: str
    table: str
    order: int
    spec: Spec
    needs: tuple[Need, ...] = ()
    output: Output = Output()
    service: bool = False  # restart = "always": lives beside the batch jobs, and ends when they have
    variables: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    def differs(self, other: Job) -> bool:
        """Whether what runs by the one definition is to be restarted for the other. For whom it has waited does not matter any more."""
        return (self.digest, self.spec.asked, self.output) != (other.digest, other.spec.asked, other.output)


@dataclass(frozen=True, slots=True)
class Batch:
    """A whole job file. `path`: absolute; `memory`: the budget (a Share of the machine or of the enclosing group), `parallel`:
    jobs at a time (None: as many as fit), `on_failure`: 'continue' | 'stop'."""

    path: str
    jobs: tuple[Job, ...]
    memory: Size = None
    parallel: int | None = None
    on_failure: str = "continue"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. `result`: a word of record.RESULTS, or 'skipped' (it was never started; `why` says for what reason).
    `record`: the run's record as its JSON object, None where there is none. `before`: it ended in an earlier run of memrun."""

    job: str
    result: str
    attempts: int = 0
    record: Mapping[str, object] | None = None
    why: str = ""
    before: bool = False

    @property
    def ok(self) -> bool:
        """Whether it did what it was there for."""
        return self.result == "success"


@dataclass(frozen=True, slots=True)
class Row:
    """One job that is under way, for people. `state`: one of STATES; `since`: seconds in that state; `why`: of a pause, a wait."""

    name: str
    state: str
    limit: int | None
    usage: int | None
    attempt: int
    since: float
    why: str = ""
    service: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a batch stands. `left`: seconds, estimated; `committed`: limits of what runs; `ending`: '' | 'stopping' | 'killing'."""

    total: int
    succeeded: int
    failed: int
    skipped: int
    waiting: int
    budget: int | None
    committed: int
    elapsed: float
    left: float | None
    rows: tuple[Row, ...]
    services: int = 0
    ending: str = ""
