"""The command line: what is understood, and what is said when it is not."""

from __future__ import annotations

import pytest

from memrun import options
from memrun.errors import UsageError
from memrun.options import FLOOR, OPTIONS, Spec, nearest, parse
from memrun.units import Share


def test_the_main_line():
    spec = parse(["--limit", "5M", "--", "./mem-allocate", "--limit", "x"])
    assert spec.command == ["./mem-allocate", "--limit", "x"]
    assert spec.limit == 5 << 20
    assert spec.asked == {"limit": "5M"}
    assert spec.name == "mem-allocate"


def test_nothing_asked_is_every_default():
    spec = parse(["--", "true"])
    for option in OPTIONS:
        if option.key != "name":
            assert getattr(spec, option.key) == option.default
    assert (spec.swap, spec.on_oom, spec.oom_group, spec.stop_signal, spec.stop_timeout) == (0, "kill", True, 15, 10.0)
    assert spec.asked == {}


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["-l", "1G"], "limit", 1 << 30),
        (["-l=1G"], "limit", 1 << 30),
        (["--limit=1G"], "limit", 1 << 30),
        (["--limit", "infinity"], "limit", None),
        (["--limit", "max"], "limit", None),
        (["--limit", "-1"], "limit", None),
        (["--limit", "50%"], "limit", Share(5000)),
        (["--limit", "1M", "--limit", "2M"], "limit", 2 << 20),
        (["--swap", "max"], "swap", None),
        (["--soft=1M"], "soft", 1 << 20),
        (["-t", "1h30m"], "timeout", 5400),
        (["-t", "0"], "timeout", None),
        (["--timeout", "0ms"], "timeout", None),
        (["--timeout", "1ms"], "timeout", 0.001),
        (["--timeout", "infinity"], "timeout", None),
        (["--stop-signal", "sigusr1"], "stop_signal", 10),
        (["--stop-timeout", "0"], "stop_timeout", 0),
        (["--wait-all"], "wait_all", True),
        (["--wait-all=off"], "wait_all", False),
        (["--oom-group", "off"], "oom_group", False),
        (["--quiet"], "quiet", True),
        (["-q"], "quiet", True),
        (["-v"], "verbose", True),
        (["--name", "a@b.c:d+e=f,[g]"], "name", "a@b.c:d+e=f,[g]"),
        (["--report", "-"], "report", "/dev/stdout"),
        (["--user", "alice"], "user", "alice"),
        (["--user", "0", "--group=100"], "group", "100"),
        (["--umask", "022"], "umask", 0o022),
        (["--umask", "0o77"], "umask", 0o077),
        (["--umask", "0"], "umask", 0),
        (["--nice", "-5"], "nice", -5),
        (["--nice=+19"], "nice", 19),
        (["--oom-score-adj", "-1000"], "oom_score_adj", -1000),
        (["--working-dir", "~"], "working_dir", "~"),
        (["--env", "A=1", "--environment", "B==2", "--env=C="], "environment", (("A", "1"), ("B", "=2"), ("C", ""))),
        (["--env-file", "a", "--env-file=-b"], "env_file", ("a", "-b")),
        (["--pass-env", "PATH", "--pass-environment=TZ"], "pass_environment", ("PATH", "TZ")),
        (["--stdout", "out", "--stderr=err"], "stderr", "err"),
        (["--report="], None, None),
    ],
)
def test_every_way_to_say_it(words, key, value):
    if key is None:
        with pytest.raises(UsageError, match="--report"):
            parse([*words, "--", "true"])
        return
    spec = parse([*words, "true"])
    assert getattr(spec, key) == value
    assert spec.command == ["true"]


def test_the_command_begins_with_the_first_word_that_is_no_option():
    assert parse(["-q", "ls", "-l"]).command == ["ls", "-l"]
    assert parse(["-q", "--", "-l"]).command == ["-l"]
    assert parse(["-q", "-", "x"]).command == ["-", "x"]
    assert parse(["-q", "--"]).command == []
    assert parse([]).command == []
    assert parse(["--", "--", "x"]).command == ["--", "x"]


@pytest.mark.parametrize(
    ("words", "said", "remedy"),
    [
        (["--limt", "5M"], "there is no option --limt", "Did you mean --limit?"),
        (["--zzzzz"], "there is no option --zzzzz", "See memrun --help"),
        (["--limit"], "--limit wants a value (SIZE)", ""),
        (["--limit", "5X"], "--limit: '5X' is not a size", "Sizes look like"),
        (["--limit="], "--limit: '' is not a size", "Sizes look like"),
        (["--limit", "4k"], "below the floor", ""),
        (["--swap", "-5M"], "--swap: '-5M' is not a size", "Sizes look like"),
        (["--on-oom", "kil"], "--on-oom: 'kil' is not one of kill", "Did you mean kill?"),
        (["--oom-group", "yes"], "--oom-group: 'yes' is neither on nor off", ""),
        (["-t", "soon"], "--timeout: 'soon' is not a duration", "Durations look like"),
        (["--stop-signal", "BOO"], "--stop-signal: 'BOO' is not a signal", "Signals look like"),
        (["--stop-signal", "0"], "is not a signal", ""),
        (["--stop-signal", "65"], "is not a signal", ""),
        (["--name", "../x"], "is not a name", "Names are"),
        (["--name", "a/b"], "is not a name", "Names are"),
        (["--name", "a b"], "is not a name", "Names are"),
        (["--name", "a\nb"], "is not a name", "Names are"),
        (["--name", "x" * 65], "is not a name", "Names are"),
        (["--wait-all=maybe"], "neither on nor off", ""),
        (["--report", "a\0b"], "is not a file name", ""),
        (["--user", ""], "--user: '' is no name or number", ""),
        (["--user", "a:b"], "is no name or number", ""),
        (["--umask", "8"], "--umask: '8' is not a umask", "Umasks are octal"),
        (["--umask", "1777"], "is not a umask", ""),
        (["--umask", "0o"], "is not a umask", ""),
        (["--nice", "20"], "--nice: '20' is not a whole number from -20 to 19", ""),
        (["--nice", "--5"], "is not a whole number", ""),
        (["--nice", "+-5"], "is not a whole number", ""),
        (["--nice", "٣"], "is not a whole number", ""),
        (["--oom-score-adj", "-1001"], "is not a whole number from -1000 to 1000", ""),
        (["--env", "A"], "--env: 'A' is not KEY=VALUE", "To hand on memrun's own: --pass-env A"),
        (["--env", "=1"], "is not KEY=VALUE", ""),
        (["--pass-env", "A=1"], "is not a variable's name", "--env NAME=VALUE"),
        (["--pass-environment", ""], "--pass-env: '' is not a variable's name", ""),
        (["--=5"], "there is no option --", ""),
        (["-lq"], "--limit: 'q' is not a size", ""),
    ],
)
def test_what_makes_no_sense_is_said_with_the_option(words, said, remedy):
    with pytest.raises(UsageError) as e:
        parse([*words])
    assert said in e.value.what
    assert remedy in e.value.remedy


def test_the_floor_itself_is_allowed():
    assert parse(["--limit", str(FLOOR), "true"]).limit == FLOOR
    with pytest.raises(UsageError):
        parse(["--limit", str(FLOOR - 1), "true"])


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("./mem-allocate", "mem-allocate"),
        ("/usr/bin/python3.11", "python3.11"),
        ("", "job"),
        ("/", "job"),
        ("..", "job"),
        ("./-x", "x"),
        (".hidden", "hidden"),
        ("a b\n\x1b[31m", "a_b___31m"),
        ("x" * 100, "x" * 64),
        ("größe", "größe"),
    ],
)
def test_a_run_is_named_after_its_command(command, name):
    assert Spec([command]).name == name


@pytest.mark.parametrize("command", ["a b", "[", "test]", "a:b", "x" * 100, "\udcff", "é" * 64, "٣"])
def test_every_made_up_name_is_one_that_could_have_been_asked_for(command):
    made = Spec([command]).name
    assert parse(["--name", made, "x"]).name == made


@pytest.mark.parametrize("text", ["é" * 64, "漢" * 64])
def test_a_name_fits_into_a_directory_entry(text):
    spec = parse(["--name", text, "x"])
    assert len(f"{spec.name}.1".encode()) <= 255 + 4  # four bytes a letter would not: 64 is what keeps it in


def test_the_table_is_sound():
    words = [word for option in OPTIONS for word in (option.flag, option.short) if word]
    assert len(words) == len(set(words))
    assert {option.key for option in OPTIONS} <= set(Spec.__annotations__)
    for option in OPTIONS:
        assert option.help
        assert option.flag == "--" + option.key.replace("_", "-")
        assert not option.short or (len(option.short) == 2 and option.short[0] == "-") or option.short in {"--env", "--pass-env"}


def test_flags_take_no_second_word():
    for option in OPTIONS:
        if not option.metavar:
            spec = parse([option.flag, "true"])
            assert getattr(spec, option.key) is True
            assert spec.command == ["true"]


def test_nearest():
    assert nearest("limt", ["limit", "name"]) == "Did you mean limit?"
    assert nearest("zzz", ["limit"]) == ""
    assert nearest("", []) == ""


def test_the_module_says_what_it_offers():
    assert all(hasattr(options, name) for name in options.__all__)
