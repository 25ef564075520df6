"""The command line as an argparse parser, made from memrun's own tables: for tools that understand only that (shell completions, the
man page). It never parses a command line; tests/props compares memrun's parser with argparse in earnest.

shtab looks at an attribute `complete` of an action: {shell: expression}.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from memrun import attach, checking, cli, doctor, verbs
from memrun.batch import up
from memrun.options import SECTIONS, Option

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE = {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"}
DIRECTORY = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "fish": "(__fish_complete_directories)"}
USER = {"bash": "_memrun_users", "zsh": "_users", "fish": "(__fish_complete_users)"}
GROUP = {"bash": "_memrun_groups", "zsh": "_groups", "fish": "(__fish_complete_groups)"}
PROCESS = {"bash": "_memrun_pids", "zsh": "_pids", "fish": "(__fish_complete_pids)"}
SIGNAL = {
    "bash": "_memrun_signals",
    "zsh": "_signals",
    "fish": "(__fish_make_completion_signals; string replace -r '^SIG' '' -- (kill -l | string split ' '))",
}
JOB = {"bash": "_memrun_jobs", "zsh": "_memrun_jobs", "fish": "(__memrun_jobs)"}
COMMAND = {"bash": "_memrun_commands", "zsh": "_command_names -e", "fish": "(__fish_complete_command)"}
BY_METAVAR = {"FILE": FILE, "DIR": DIRECTORY, "USER": USER, "GROUP": GROUP, "SIGNAL": SIGNAL}
MEANING = {
    "run": "run a command under a memory limit (the word itself may be left out)",
    "attach": "put running processes under a limit",
    "up": "run a job file within one budget of memory",
    "doctor": "what this machine allows, and what mends the rest",
    "check": "what a job file comes to: order, memory, every mistake in it",
    "ps": "what runs under memrun",
    "raise": "give a running or paused job another limit",
    "pause": "hold a job still",
    "resume": "let a paused job run again",
    "restart": "start a job again",
    "stop": "ask a job to end, and insist after a while",
    "kill": "end a job at once",
    "signal": "send a signal to a job",
    "show": "all that the kernel tells of a job",
    "set": "change limit, soft, swap or swappiness while it runs",
    "reclaim": "squeeze out page cache and idle memory",
    "events": "what has happened; -f goes on from there",
    "wait": "wait until a job is over; its exit status is this command's",
    "logs": "what a job has written",
    "top": "ps, live",
    "history": "what earlier runs used",
    "suggest": "what limit to give the next run",
}
RUNNING = {"NAME": JOB, "SIGNAL": SIGNAL}


def build() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser("memrun", description=SUMMARY, add_help=False, allow_abbrev=False)
    parser.usage = "memrun [run] OPTIONS [--] COMMAND...\n       memrun VERB ..."
    parser.add_argument("-h", "--help", action="help", help="everything on one page")
    parser.add_argument("-V", "--version", action="version", version="", help="which memrun this is")
    _add_options(parser, (option for _, section in SECTIONS for option in section))
    below = parser.add_subparsers(title="verbs", metavar="VERB", required=False)
    for verb in cli.VERBS:
        child = below.add_parser(verb, help=MEANING[verb], description=f"{MEANING[verb].capitalize()}.", add_help=False)
        child.add_argument("-h", "--help", action="help", help="how it is used")
        SPECIAL.get(verb, _ask)(child)
    return parser


SUMMARY = "Run a command under a memory limit, and decide what happens when memory runs out: kill, restart or pause."


def _add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    groups = {id(option): title for title, section in SECTIONS for option in section}
    made: dict[str, argparse._ArgumentGroup] = {}
    for option in options:
        title = groups[id(option)].partition(" (")[0]
        group = made.setdefault(title, made.get(title) or parser.add_argument_group(title))
        names = [name for name in (option.short, option.flag) if name]
        said = " ".join(option.help.split()).replace("%", "%%")
        if not option.metavar:
            group.add_argument(*names, action="store_true", help=said)
            continue
        action = group.add_argument(*names, metavar=option.metavar, help=said)
        action.choices = option.words or (("on", "off") if option.metavar == "on|off" else None)
        _complete(action, BY_METAVAR.get(option.metavar))


def _complete(action: argparse.Action, how: dict[str, str] | None) -> None:
    if how is not None:
        action.complete = how  # type: ignore[attr-defined]


def _words(parser: argparse.ArgumentParser, name: str, how: dict[str, str] | None, nargs: str | None = None) -> None:
    _complete(parser.add_argument(name, nargs=nargs), how)


def _flags(parser: argparse.ArgumentParser, flags: Iterable[str]) -> None:
    for flag in sorted(set(flags) - {"-h", "--help"}):
        parser.add_argument(flag, action="store_true", dest=flag)


def _run(parser: argparse.ArgumentParser) -> None:
    parser.usage = "memrun run OPTIONS [--] COMMAND..."
    _add_options(parser, (option for _, section in SECTIONS for option in section))
    _words(parser, "COMMAND", COMMAND, argparse.REMAINDER)


def _attach(parser: argparse.ArgumentParser) -> None:
    parser.usage = "memrun attach --limit SIZE [OPTIONS] PID..."
    _add_options(parser, (option for _, section in SECTIONS for option in section if option.key in attach.SENSIBLE))
    _words(parser, "PID", PROCESS, "+")


def _up(parser: argparse.ArgumentParser) -> None:
    short = {long: short for short, long in up.SHORT.items()}
    for flag in sorted(up.FLAGS):
        parser.add_argument(*filter(None, [short.get(flag), flag]), action="store_true")
    for flag in sorted(up.VALUES):
        _complete(parser.add_argument(*filter(None, [short.get(flag), flag]), metavar="FILE"), FILE)
    _words(parser, "FILE", FILE)
    _words(parser, "JOB", None, "*")


def _check(parser: argparse.ArgumentParser) -> None:
    _flags(parser, checking.FLAGS)
    _words(parser, "FILE", FILE)
    _words(parser, "JOB", None, "*")


def _doctor(parser: argparse.ArgumentParser) -> None:
    _flags(parser, doctor.WORDS)


def _ask(parser: argparse.ArgumentParser) -> None:
    """A verb of verbs.py: its usage is one line of plain words and flags."""
    verb = parser.prog.split()[-1]
    flags = verbs.FLAGS.get(verb, set())
    if "--timeout" in flags:
        parser.add_argument("--timeout", metavar="TIME")
    _flags(parser, flags - {"--timeout"})
    usage, _, meaning = verbs.USAGE[verb].partition("      ")
    parser.usage = f"memrun {verb} {usage}"
    parser.epilog = meaning or None
    for word in usage.split():
        bare = word.strip("[].")
        if (bare.isupper() or "=" in bare) and bare != "TIME":
            _words(parser, bare, RUNNING.get(bare), "?" if word.startswith("[") else "*" if word.endswith("...") else None)


SPECIAL = {"run": _run, "attach": _attach, "up": _up, "check": _check, "doctor": _doctor}
