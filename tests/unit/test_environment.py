"""Environment files as systemd reads them, and which variable wins."""

from __future__ import annotations

import pytest

from memrun import environment
from memrun.errors import MemrunError
from memrun.identity import Identity


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("\n\n  \n# A=1\n; B=2\n", {}),
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=", {"A": ""}),
        ("A=\nB=x", {"A": "", "B": "x"}),
        ("  A =  one two \t \n", {"A": "one two"}),
        ("A=a=b=c", {"A": "a=b=c"}),
        ("A=x # no comment", {"A": "x # no comment"}),
        ("A='x y' \nB=\"x y\"", {"A": "x y", "B": "x y"}),
        ("A='a\\n\"$b'", {"A": 'a\\n"$b'}),
        ('A="a\\"b\\\\c\\`d\\$e\\n"', {"A": 'a"b\\c`d$e\\n'}),
        ("A='one\ntwo'\nB=3", {"A": "one\ntwo", "B": "3"}),
        ('A="one\\\ntwo"', {"A": "onetwo"}),
        ("A=one\\\ntwo\nB=3", {"A": "onetwo", "B": "3"}),
        ("A=a\\ b\\\\c", {"A": "a b\\c"}),
        ("A=a\\  \n", {"A": "a "}),
        ("A=it's", {"A": "it's"}),
        ("A='it'\"'\"'s'", {"A": "it's"}),
        ("A='x'y", {"A": "xy"}),
        ("A=$HOME ${B}", {"A": "$HOME ${B}"}),
        ("A=\\", {"A": ""}),
        ("a.b-c=1", {"a.b-c": "1"}),
        ("A=größe", {"A": "größe"}),
    ],
)
def test_what_a_file_says(text, found):
    assert environment.parse(text, "f") == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nB\n", "f, line 2: 'B' is not NAME=VALUE"),
        ("=1", "f, line 1: '=1' is not NAME=VALUE"),
        ("\n\nA='1\n2", "f, line 3: the quote that begins there does not end"),
        ('A="\\', "line 1: the quote"),
        ("a b=1", "is not NAME=VALUE"),
        ("A=\0", "there is a NUL in it"),
    ],
)
def test_what_no_file_should_say(text, said):
    with pytest.raises(MemrunError) as e:
        environment.parse(text, "f")
    assert said in e.value.what
    assert e.value.status == 125


def test_export_is_a_shell_s():
    with pytest.raises(MemrunError, match="'export' has no place"):
        environment.parse("export A=1", "f")


def test_the_later_one_wins():
    files = [{"B": "file", "C": "file", "D": "file"}, {"D": "second"}]
    assert environment.merged({"A": "base", "B": "base"}, files, {"C": "set"}) == {
        "A": "base",
        "B": "file",
        "C": "set",
        "D": "second",
    }


def test_what_is_passed_on(monkeypatch):
    monkeypatch.setenv("ONE", "1")
    monkeypatch.delenv("TWO", raising=False)
    assert environment.inherited(["ONE", "TWO"]) == {"ONE": "1"}
    assert environment.inherited([])["ONE"] == "1"


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(MemrunError, match=r"cannot read the environment file .*/no: No such file or directory"):
        environment.read(f"{tmp_path}/no", None)
    assert environment.read(f"-{tmp_path}/no", None) == {}
    with pytest.raises(MemrunError, match="Is a directory"):
        environment.read(f"-{tmp_path}", None)


def test_an_endless_file_has_an_end():
    with pytest.raises(MemrunError, match="larger than 1M"):
        environment.read("/dev/zero", None)


def test_bytes_stay_what_they_are(tmp_path):
    (tmp_path / "f").write_bytes(b"A=\xff\xfe\n")
    assert environment.read(f"{tmp_path}/f", None)["A"].encode(errors="surrogateescape") == b"\xff\xfe"


def test_what_a_login_sets():
    who = Identity(5, 5, "games")
    assert who.variables() == {}
    who.home, who.shell = "/h", "/bin/sh"
    assert who.variables() == {"HOME": "/h", "USER": "games", "LOGNAME": "games", "SHELL": "/bin/sh"}
