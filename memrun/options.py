"""Every option of a run, once: the table that the command line, `--help`, the job file and the documentation share.

An option of the one-shot command is a key of a job, with the same name (`-` for `_`) and meaning. The parser is ours
because argparse costs 11 ms before the command may start (the interpreter itself takes 13); what it builds is checked
against an argparse parser made from the same table (tests/props).
"""

from __future__ import annotations

from memrun import conversions as to
from memrun import signals
from memrun.conversions import FLOOR, nearest
from memrun.errors import UsageError
from memrun.units import Share, Size, parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from memrun.adoption import Adopted
    from memrun.marks import Pressure, Threshold


class Option:
    """One option. `metavar` '' is a flag, '[NAME]' need not have its value; `many` may be given more than once; `short`: -l, or --env for
    --environment."""

    __slots__ = ("convert", "default", "free", "help", "key", "many", "metavar", "section", "short", "words")

    def __init__(self, flag: str, metavar: str, convert: Callable[[str], object], default: object, help: str) -> None:  # noqa: A002
        names = flag.split()
        self.short = names[0] if len(names) > 1 else ""
        self.key = names[-1].removeprefix("--").replace("-", "_")
        self.metavar = metavar
        self.free = metavar.startswith("[")
        self.convert = convert
        self.default = default
        self.help = help
        self.many = isinstance(default, tuple)
        self.section = ""
        self.words: tuple[str, ...] = getattr(convert, "words", ())  # where only some are allowed

    @property
    def flag(self) -> str:
        """As typed: '--stop-timeout'."""
        return "--" + self.key.replace("_", "-")

    @property
    def typed(self) -> str:
        """For a list of options: '-l, --limit', '    --swap', '    --env'."""
        if self.short.startswith("--"):
            return f"    {self.short}"
        return f"{self.short}, {self.flag}" if self.short else f"    {self.flag}"


SECTIONS: tuple[tuple[str, tuple[Option, ...]], ...] = (
    (
        "memory",
        (
            Option("-l --limit", "SIZE", to.limit, None, "most memory the command and all its children may use: 5M, 1.5G, 512KiB,\n"
                   "50% (of the machine or of the enclosing limit), infinity"),
            Option("--swap", "SIZE", parse_size, 0, "swap allowed on top (default 0: the limit means what it says)"),
            Option("--soft", "SIZE", parse_size, None, "what the kernel tries to leave it when the machine is short"),
            Option("--best-effort", "", to.flag, False, "where no memory group is to be had: look at its memory again and again instead (5 ms to\n"
                   "1 s apart), so that it may pass the limit for a moment. Never without being asked"),
        ),
    ),
    (
        "at the limit",
        (
            Option("--on-oom", "WHAT", to.choice("kill", "restart", "pause"), "kill", "kill: end the job (default)\n"
                   "restart: start it again, with --grow in a larger limit\n"
                   "pause: hold it there, its work intact, until it is given more (memrun raise)"),
            Option("--grow", "FACTOR", to.factor, 1.0, "by how much a restart or a pause enlarges the limit (default 1: not at all)"),
            Option("--ceiling", "SIZE", to.limit, None, "where growing ends"),
            Option("--patience", "TIME", parse_duration, 3600.0, "how long a pause may last before the job is killed (default 1h)"),
            Option("--oom-group", "on|off", to.switch, True, "on: when one process is killed, the whole job dies (default);\n"
                   "off: only the process that the kernel chose"),
        ),
    ),
    (
        "on the way there (actions: log, signal:NAME, exec:COMMAND, stop, kill, restart, pause)",
        (
            Option("--at", "MARK=ACTION", to.mark, (), "when use passes a mark: 80%=log, 500M=signal:USR1,\n"
                   "'90% for 30s=restart', '1.5G with swap=stop'; repeatable"),
            Option("--on-event", "EVENT=COMMAND", to.hook, (), "run this, outside of the job's group, told in MEMRUN_* variables: oom, paused,\n"
                   "raised, resumed, restarted, threshold, pressure, finished; repeatable"),
            Option("--pressure", "LEVEL=ACTION", to.pressure, (), "at memory pressure low, medium or critical; repeatable.\n"
                   "v1 takes a mode, too: medium,hierarchy=log"),
        ),
    ),
    (
        "ending",
        (
            Option("-t --timeout", "TIME", to.timeout, None, "stop the command after this long (90, 90s, 1h30m; 0 is never, the default)"),
            Option("--stop-signal", "SIGNAL", signals.parse, signals.TERM, "how a stop asks (default TERM)"),
            Option("--stop-timeout", "TIME", parse_duration, 10.0, "how long before a stop insists with SIGKILL (default 10s)"),
            Option("--wait-all", "", to.flag, False, "wait for children left in the background; otherwise they are\n"
                   "ended when the command ends"),
        ),
    ),
    (
        "restarting",
        (
            Option("--restart", "WHEN", to.choice("no", "on-failure", "always"), "no", "no (default), on-failure, always: after exits that are not\n"
                   "about memory"),
            Option("--attempts", "N", to.count, 5, "how many starts at the most, for whatever reason (default 5)"),
            Option("--interval", "TIME", parse_duration, None, "count only the starts of the last TIME (default infinity)"),
            Option("--delay", "TIME", to.seconds, 1.0, "wait before a restart; doubles each time, with jitter (default 1s);\n"
                   "--retry-delay is the same"),
            Option("--max-delay", "TIME", to.seconds, 300.0, "but no longer than this (default 5m)"),
            Option("--min-uptime", "TIME", to.seconds, 10.0, "who ran this long begins again with --delay (default 10s)"),
        ),
    ),
    (
        "beginning (in cron; of a job file: memrun up --lock ...)",
        (
            Option("--lock", "[NAME]", to.lock, None, "not while another run has this lock: exit status 75, and its pid.\n"
                   "A name (default: the job's), or a file with a / in it"),
            Option("--lock-wait", "TIME", parse_duration, 0.0, "wait so long for the lock (default 0)"),
            Option("--jitter", "TIME", to.seconds, 0.0, "wait a random time first, up to TIME, so that not all begin at once"),
        ),
    ),
    (
        "surroundings (files are opened with the rights of the user that the command runs as)",
        (
            Option("--user", "USER", to.account, "", "run it as this user (name or number), with that user's groups, HOME,\n"
                   "USER, LOGNAME and SHELL; as root only"),
            Option("--group", "GROUP", to.account, "", "run it as this group instead of the user's first one; as root only"),
            Option("--umask", "MASK", to.umask, None, "permissions that its new files do not get, in octal: 022"),
            Option("--nice", "N", to.whole(-20, 19), None, "its nice value, -20 to 19; as root only below ours"),
            Option("--oom-score-adj", "SCORE", to.whole(-1000, 1000), None, "how much likelier the machine's OOM killer takes it, -1000 to 1000\n"
                   "(an inherited -1000 is set back to 0); as root only below ours"),
            Option("--working-dir", "DIR", to.file, "", "the directory that it starts in (and that ./COMMAND is looked for in);\n"
                   "~ is the user's home"),
            Option("--env --environment", "KEY=VALUE", to.setting, (), "a variable for it; repeatable. Goes before --env-file, and that\n"
                   "before what is passed on"),
            Option("--env-file", "FILE", to.file, (), "variables from a file of KEY=VALUE lines, quotes as in systemd's\n"
                   "EnvironmentFile; -FILE need not exist; repeatable"),
            Option("--pass-env --pass-environment", "VARIABLE", to.variable, (), "of memrun's own environment only these go to it; repeatable"),
            Option("--stdout", "FILE", to.file, "", "append its output to this file"),
            Option("--stderr", "FILE", to.file, "", "append its error output to this file"),
        ),
    ),
    (
        "telling",
        (
            Option("-n --name", "NAME", to.name, "", "what to call it (default: the command's name)"),
            Option("-r --report", "FILE", to.written, "", "write the result record there, as JSON (-: on stdout)"),
            Option("--events", "FILE", to.written, "", "append everything that happens to it there, a line of JSON for each event,\n"
                   "as memrun events --json prints it"),
            Option("--log-target", "WHERE", to.file, "", "where memrun's own lines go: journal (with fields: MEMRUN_RESULT=oom-kill),\n"
                   "syslog, stderr (default), or a FILE; all but stderr are told of a success, too"),
            Option("--mail-style", "", to.flag, False, "for cron: nothing of a success, not even its output; of a failure the verdict,\n"
                   "the command, the end of its output, and how its memory went"),
            Option("--mail-lines", "N", to.count, 40, "how much of its output that is (default 40 lines)"),
            Option("-q --quiet", "", to.flag, False, "say nothing on stderr, whatever happens to the command"),
            Option("-v --verbose", "", to.flag, False, "say what is done, too"),
        ),
    ),
)  # fmt: skip
SURROUNDINGS = next(section for title, section in SECTIONS if title.startswith("surroundings"))
OPTIONS: tuple[Option, ...] = tuple(option for _, section in SECTIONS for option in section)
BY_WORD = {word: option for option in OPTIONS for word in (option.flag, option.short) if word}
BY_WORD["--retry-delay"] = BY_WORD["--delay"]  # it is what others call it
COMMAND_LINE = {
    "best_effort",
    "lock",
    "lock_wait",
    "jitter",
    "log_target",
    "mail_style",
    "mail_lines",
}  # about memrun as a whole: no keys of a job, and nothing for a program that calls us


class Spec:
    """What a run was asked to be: the options' values, checked. Sizes may still be Shares (see `Share.of`)."""

    command: list[str]
    limit: Size
    swap: Size
    soft: Size
    best_effort: bool
    on_oom: str
    grow: float
    ceiling: Size
    patience: float | None
    restart: str
    attempts: int
    interval: float | None
    delay: float
    max_delay: float
    min_uptime: float
    oom_group: bool
    at: tuple[Threshold, ...]
    on_event: tuple[tuple[str, str], ...]
    pressure: tuple[Pressure, ...]
    timeout: float | None
    stop_signal: int
    stop_timeout: float | None
    wait_all: bool
    user: str
    group: str
    umask: int | None
    nice: int | None
    oom_score_adj: int | None
    working_dir: str
    environment: Mapping[str, str] | tuple[tuple[str, str], ...]  # dict() makes one of both
    env_file: tuple[str, ...]
    pass_environment: tuple[str, ...]
    lock: str | None  # '': of its own name
    lock_wait: float | None
    jitter: float
    stdout: str
    stderr: str
    name: str
    report: str
    events: str
    log_target: str
    mail_style: bool
    mail_lines: int
    quiet: bool
    verbose: bool
    asked: dict[str, str]  # as it was typed
    adopted: Adopted | None  # with --best-effort, where there is no memory group
    mask: frozenset[int]  # signals that the command starts with blocked
    note: tuple[int, bytes] | None  # for launch.Order
    apart: bool  # one of many: never in our process group, even in a terminal
    streams: (
        tuple[int, int, int] | None
    )  # descriptors for its stdin, stdout and stderr (`stdout` and `stderr` are then not opened); None: ours

    def __init__(self, command: Sequence[str], values: dict[str, object] | None = None) -> None:
        self.command = list(command)
        self.asked = {}
        self.mask = frozenset()
        self.adopted = None
        self.apart = False
        self.note = None
        self.streams = None
        for option in OPTIONS:
            setattr(self, option.key, option.default)
        for key, value in (values or {}).items():
            setattr(self, key, value)
        self.name = self.name or _basename(self.command)

    @property
    def surrounded(self) -> bool:
        """Whether anything of the surroundings is asked for."""
        return any(getattr(self, option.key) != option.default for option in SURROUNDINGS)


def _basename(command: Sequence[str]) -> str:
    kept = "".join(c if c.isalnum() or c in "._-@+" else "_" for c in (command[0] if command else "").rpartition("/")[2])
    return kept.lstrip(".-")[:64] or "job"


def parse(words: Sequence[str]) -> Spec:
    """A one-shot command line without the program's name -> Spec. UsageError names the option and says what was expected."""
    values: dict[str, object] = {}
    asked: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        flag, equals, value = _parted(word)
        option, value = _valued(flag, value if equals else None, rest)
        converted = _converted(option, value)
        values[option.key] = (*values.get(option.key, ()), converted) if option.many else converted  # type: ignore[misc]
        asked[option.key] = value
    spec = Spec(rest, values)
    spec.asked = asked
    return spec


def one(flag: str, value: str | None, rest: list[str]) -> tuple[str, object]:
    """(key, value) of one option; `value` None: the next word of `rest` is it, if it wants one."""
    option, text = _valued(flag, value, rest)
    return option.key, _converted(option, text)


def _valued(flag: str, value: str | None, rest: list[str]) -> tuple[Option, str]:
    option = BY_WORD.get(flag)
    if option is None:
        raise UsageError(f"there is no option {flag}", nearest(flag, BY_WORD) or "See memrun --help")
    if value is None and option.metavar and (not option.free or _has_value(rest)):
        if not rest:
            raise UsageError(f"{flag} wants a value ({option.metavar})")
        value = rest.pop(0)
    return option, value or ""


def _has_value(rest: list[str]) -> bool:
    """Of a value that may be left out: a word is one if what follows it is an option, or --. `memrun --lock ./job` runs ./job."""
    return len(rest) > 1 and not rest[0].startswith("-") and rest[1].startswith("-")


def _parted(word: str) -> tuple[str, str, str]:
    """'--limit=5M' and '-l5M' -> the option, '=', the value; '--limit' -> the option alone."""
    flag, equals, value = word.partition("=")
    short = BY_WORD.get(word[:2])
    if flag not in BY_WORD and short is not None and short.metavar:
        return word[:2], "=", word[2:]
    return flag, equals, value


def _converted(option: Option, text: str) -> object:
    try:
        return option.convert(text)
    except UsageError as e:
        raise UsageError(f"{option.typed.split()[-1]}: {e.what}", e.remedy) from None


__all__ = ["BY_WORD", "COMMAND_LINE", "FLOOR", "OPTIONS", "SECTIONS", "Option", "Share", "Spec", "nearest", "parse"]
