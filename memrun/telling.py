"""What there is to say of one run, and to whom: lines on stderr or where --log-target leads, the verdict, the record in its file."""

from __future__ import annotations

import os

from memrun import signals
from memrun.errors import MemrunError, StoppedError, UsageError, printable
from memrun.job import unstarted
from memrun.units import format_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.cron.letter import Letter
    from memrun.identity import Identity
    from memrun.notify import Notify
    from memrun.options import Spec
    from memrun.ownlog import Log
    from memrun.record import Record


def say(text: str) -> None:
    """Each line on stderr with our name before it, in one write; a closed stderr is nobody to tell."""
    try:
        os.write(2, "".join(f"memrun: {line}\n" for line in printable(text).split("\n")).encode(errors="replace"))
    except OSError:
        return


def whose(spec: Spec) -> Identity | None:
    """Whose files those of the run are, if not ours. Asked first: who may not be somebody else need not get as far as a group."""
    if not spec.user and not spec.group:
        return None
    from memrun.identity import look_up

    return look_up(str(spec.user), str(spec.group))


def _service(spec: Spec) -> Notify | None:
    """systemd, where it wants to know; its variable is taken out of our environment then."""
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from memrun.notify import Notify

    return Notify(spec.pass_environment)


class Teller:
    """Of one run."""

    def __init__(self, spec: Spec) -> None:
        """Complains of a report or a log that could not be written *before* anything is started."""
        self.spec = spec
        self.notify = _service(spec)
        self.log: Log | None = None
        self.concluded: Record | None = None  # what was told of, once it was
        self.who = who = whose(spec)
        for path, what in ((spec.report, "report"), (spec.events, "events")):
            if path:
                from memrun import report

                report.check_writable(path, who, what)
        self.letter = self._begin_letter(who)
        if spec.log_target:
            from memrun.ownlog import Log

            self.log = Log(spec.log_target, who)

    def _begin_letter(self, who: Identity | None) -> Letter | None:
        if not self.spec.mail_style:
            return None
        for key in ("quiet", "stdout", "stderr"):
            if getattr(self.spec, key):
                raise UsageError(f"--{key} and --mail-style contradict each other")
        from memrun.cron.letter import Letter

        return Letter(self.spec, who)

    def say(self, text: str) -> None:
        """One line about what happens."""
        self._set_status(text)
        if self.log is not None:
            self.log.say(text, fields={"MEMRUN_NAME": self.spec.name})
        elif self.letter is not None:
            self.letter.drain()  # what the job has written comes before what is said of it
            self.letter.note(text)
        elif not self.spec.quiet:
            say(text)

    def started(self, limit: int | None) -> None:
        """The command runs."""
        if self.notify is not None:
            self.notify.ready(f"{self.spec.name} runs, its limit is {format_size(limit)}")

    def stopping(self) -> None:
        """It is about to end."""
        if self.notify is not None:
            self.notify.stopping()

    def _set_status(self, text: str) -> None:
        if self.notify is not None:
            self.notify.status(text)

    def remark(self, text: str) -> None:
        """One line for those who want to know everything."""
        if self.spec.verbose:
            self.say(text)

    def complain(self, error: MemrunError) -> None:
        """That memrun cannot do it is said also where it is to be quiet."""
        if self.log is None:
            say(str(error))
        else:
            self.log.say(str(error), 3, {"MEMRUN_NAME": self.spec.name, "MEMRUN_STATUS": str(error.status)}, always=True)

    def conclude(self, record: Record) -> Record:
        """The verdict and the record. Before anything is tidied up: whatever fails there costs no result."""
        self.stopping()
        from memrun import history  # nothing that the command waits for

        history.keep(record)
        if not record.ok or record.interference or self.spec.report or self.spec.verbose or self.log is not None:
            from memrun import report  # nothing to say, nothing to load

            self._pronounce(record)
            if self.spec.report:
                report.write(self.spec.report, report.to_json(record), whose(self.spec))
        self.concluded = record
        return record

    def _pronounce(self, record: Record) -> None:
        from memrun import report

        line = report.verdict(record)
        self._set_status(line)
        if self.log is not None and (line or self.spec.log_target != "stderr"):
            self.log.say(report.summary(record), 6 if record.ok else 3, report.fields(record), always=True)
        if self.letter is not None and line:
            from memrun.cron import letter

            self.letter.drain()
            letter.post(self.letter.text(line, record))
        elif self.log is None and line and not self.spec.quiet:
            say(line)

    def not_started(self, error: MemrunError) -> None:
        """A report that was asked for is there in any case: an old one left in its place would be taken for this run's."""
        if self.spec.report:
            from memrun import report

            record = unstarted(self.spec, error.status)
            record.result = "stopped" if isinstance(error, StoppedError) else record.result
            report.write(self.spec.report, report.to_json(record), whose(self.spec))

    def close(self) -> None:
        """Nothing more to say."""
        if self.log is not None:
            self.log.close()
        if self.letter is not None:
            self.letter.close()


def die_of(number: int) -> None:
    """A shell goes on with its script after a command that exits 130, but not after one that died of the Ctrl-C."""
    signals.default(number)
    os.kill(os.getpid(), number)
    signals.set_mask(signals.every() - {number})
