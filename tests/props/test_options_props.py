"""Our own parser of the command line against argparse, built from the same table."""

from __future__ import annotations

import argparse
from typing import NoReturn

from hypothesis import given
from hypothesis import strategies as st

from memrun.errors import MemrunError
from memrun.options import BY_WORD, OPTIONS, Spec, parse

GOOD = {
    "SIZE": ["5M", "1.5G", "512KiB", "50%", "infinity", "max", "600000", "0.1%"],
    "WHAT": ["kill", "restart", "pause"],
    "WHEN": ["no", "on-failure", "always"],
    "FACTOR": ["2", "1.5", "x3"],
    "N": ["1", "7"],
    "MARK=ACTION": ["80%=log", "500M=signal:USR1", "90% for 30s=restart"],
    "LEVEL=ACTION": ["low=log", "critical,hierarchy=stop"],
    "on|off": ["on", "off"],
    "TIME": ["0", "90", "1h30m", "infinity", "250ms"],
    "SIGNAL": ["TERM", "usr1", "9", "SIGINT"],
    "USER": ["nobody", "0", "_x-y"],
    "GROUP": ["nogroup", "65534"],
    "MASK": ["022", "0o77", "0"],
    "SCORE": ["0", "500", "+7"],
    "DIR": ["/tmp", "~", "a b"],
    "KEY=VALUE": ["A=1", "B=", "C==", "A=x y"],
    "VARIABLE": ["PATH", "a.b"],
    "NAME": ["x", "a.b", "job[1=2]"],
    "WHERE": ["journal", "syslog", "stderr", "x.log"],
    "EVENT=COMMAND": ["oom=true", "finished=echo a=b"],
    "[NAME]": ["x", "a/b", "job.1"],
    "FILE": ["out.json", "-", "/dev/null"],
}
BAD = ["", "-", "-5", "5X", "soon", "--limit", "4K", "101%", "maybe", "a b", "../x"]


class Complaint(Exception):  # noqa: N818  (argparse's way out, not an error of ours)
    """Argparse does not understand it."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Complaint(message)


def build() -> Parser:
    parser = Parser(prog="memrun", add_help=False, allow_abbrev=False)
    for option in OPTIONS:
        names = [name for name in (option.short, option.flag) if name]
        if option.metavar:
            parser.add_argument(
                *names,
                dest=option.key,
                default=argparse.SUPPRESS,
                type=typed(option.convert),
                action="append" if option.many else "store",
                **({"nargs": "?", "const": ""} if option.free else {}),
            )
        else:
            parser.add_argument(*names, dest=option.key, default=argparse.SUPPRESS, action="store_const", const=True)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser


def typed(convert):
    def check(text: str) -> object:
        try:
            return convert(text)
        except MemrunError as e:
            raise argparse.ArgumentTypeError(str(e)) from None

    return check


PARSER = build()


def theirs(words: list[str]) -> tuple[dict[str, object], list[str]] | None:
    try:
        found = vars(PARSER.parse_args(words))
    except Complaint:
        return None
    command = found.pop("command")
    found = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    found = {option.key: option.default for option in OPTIONS} | found  # argparse would convert defaults, too
    return found, command[1:] if command[:1] == ["--"] else command


def ours(words: list[str]) -> tuple[dict[str, object], list[str]] | None:
    try:
        spec = parse(words)
    except MemrunError:
        return None
    return {option.key: getattr(spec, option.key) for option in OPTIONS}, spec.command


@st.composite
def option_words(draw: st.DrawFn) -> list[str]:
    option = draw(st.sampled_from(OPTIONS))
    word = option.flag if not option.short or draw(st.booleans()) else option.short
    if not option.metavar:
        return [word]
    # argparse takes no separate value that begins with '-', and reads '-l=5M' as '=5M': where it differs, ours is the documented one
    value = draw(st.sampled_from(GOOD[option.metavar] if draw(st.integers(0, 3)) else BAD))
    if option.free and draw(st.booleans()):
        return [word]
    if option.free or value.startswith("-") or draw(st.booleans()):
        return [f"{option.flag}={value}"]
    return [word, value]


commands = st.sampled_from(
    [["--", "true"], ["--", "ls", "-l", "--limit"], ["./x", "-q", "--limit", "5M"], ["--", "--"], ["--", "-x"]]
)


@given(st.lists(option_words(), max_size=5), commands)
def test_the_same_as_argparse(chosen, command):
    words = [word for group in chosen for word in group] + command
    mine, other = ours(words), theirs(words)
    assert (mine is None) == (other is None), words
    if mine is not None and other is not None:
        other[0]["name"] = other[0]["name"] or Spec(other[1]).name
        assert mine == other


tokens = st.sampled_from(
    [
        *BY_WORD,
        *BAD,
        *(word for words in GOOD.values() for word in words),
        "--x",
        "-",
        "---",
        "--limit=",
        "--quiet=on",
        "=",
        "--=",
        "true",
    ]
)


@given(st.lists(tokens | st.text(max_size=8), max_size=8))
def test_any_words_are_a_spec_or_a_complaint(words):
    try:
        spec = parse(words)
    except MemrunError as e:
        assert e.status == 125
        assert e.what
    else:
        assert spec.name
        assert "/" not in spec.name
        assert spec.name[0] not in ".-"
        assert spec.command == words[len(words) - len(spec.command) :]
