"""Who a run is to be: accounts, groups, and what only root may ask for. Becoming it: tests/kernel/test_identity.py."""

from __future__ import annotations

import os
import pwd

import pytest

from memrun import identity
from memrun.errors import MemrunError


@pytest.fixture
def as_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def as_1234(monkeypatch):
    for call in ("geteuid", "getuid", "getegid", "getgid"):
        monkeypatch.setattr(os, call, lambda: 1234)


def test_nobody_is_asked_for():
    assert identity.look_up("", "") is None


def test_by_name_and_by_number(as_root):
    nobody = pwd.getpwnam("nobody")
    for asked in ("nobody", str(nobody.pw_uid)):
        who = identity.look_up(asked, "")
        assert (who.uid, who.gid, who.name) == (nobody.pw_uid, nobody.pw_gid, "nobody")
        assert (who.home, who.shell) == (nobody.pw_dir, nobody.pw_shell)


def test_the_groups_are_those_that_list_the_user_and_the_one_that_was_asked_for(as_root, monkeypatch):
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: {"nobody": [gid, 44, 7, 44]}[name])
    assert identity.look_up("nobody", "").groups == [7, 44, pwd.getpwnam("nobody").pw_gid]
    assert identity.look_up("nobody", "9").groups == [7, 9, 44]


def test_a_number_without_an_account(as_root):
    with pytest.raises(MemrunError, match="no account of user 54321"):
        identity.look_up("54321", "")
    who = identity.look_up("54321", "54322")
    assert (who.uid, who.gid, who.groups, who.home) == (54321, 54322, [54322], "/")


@pytest.mark.parametrize("asked", ["4294967295", "4294967296", "99999999999"])
def test_minus_one_is_nobody(as_root, asked):
    """To the kernel (uid_t) -1 means: leave it as it is."""
    for words in [(asked, ""), ("nobody", asked)]:
        with pytest.raises(MemrunError, match="no number of a user or a group"):
            identity.look_up(*words)


@pytest.mark.parametrize(
    ("user", "group", "said"),
    [
        ("root", "", "only root may run a command as user root. Try: sudo memrun --user root ..."),
        ("nobody", "daemon", "only root may run a command as user nobody. Try: sudo memrun --user nobody --group daemon ..."),
        ("", "daemon", "only root may run a command as group daemon. Try: sudo memrun --group daemon ..."),
        ("1234", "daemon", "only root may run a command as group daemon. Try: sudo memrun --user 1234 --group daemon ..."),
    ],
)
def test_only_root_can_be_somebody_else(as_1234, user, group, said):
    with pytest.raises(MemrunError) as e:
        identity.look_up(user, group)
    assert str(e.value) == said
    assert e.value.status == 125


def test_what_one_is_one_may_ask_for(as_1234):
    who = identity.look_up("1234", "1234")
    assert who.groups is None
    identity.become(who)  # changes nothing
    assert identity.acting_as(who, lambda: b"here") == b"here"
    assert identity.as_whom(who) == ""


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/dev/stdout", True),
        ("/dev/fd/63", True),
        ("/proc/self/fd/3", True),
        ("/dev/fd/", False),
        ("/dev/fd/3/x", False),
        ("/dev/fd/../shm/x", False),
        ("/dev/shm/x", False),
        ("/dev/null", False),
        ("x", False),
    ],
)
def test_descriptors_of_our_own(path, own):
    assert identity.is_own_descriptor(path) is own


def change_anything(who):
    who.groups = []
    return who


def test_a_copy_that_cannot_become_it_says_so(monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refused)
    who = change_anything(identity.Identity(5, 5, "games"))
    with pytest.raises(MemrunError, match="cannot become user games: Operation not permitted"):
        identity.acting_as(who, lambda: b"")


def test_rights_that_would_come_back_are_noticed(monkeypatch):
    """A kernel, or securebits, that leave something: memrun does not go on."""
    for name in ("setgroups", "setresgid", "setresuid"):
        monkeypatch.setattr(os, name, lambda *_: None)
    monkeypatch.setattr(os, "getresuid", lambda: (5, 5, 5))
    monkeypatch.setattr(os, "getresgid", lambda: (5, 5, 5))
    monkeypatch.setattr(os, "getgroups", list)
    who = change_anything(identity.Identity(5, 5, "games"))
    with pytest.raises(MemrunError, match="root's rights would come back to user games"):
        identity.become(who)
    monkeypatch.setattr(os, "getresuid", lambda: (5, 5, 0))
    with pytest.raises(MemrunError, match="made something else of user games"):
        identity.become(who)


def test_what_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(identity, "LONGEST", 1)
    monkeypatch.setattr(identity, "become", lambda _: None)
    who = change_anything(identity.Identity(5, 5, "games"))
    gate, keep = os.pipe()
    with pytest.raises(MemrunError, match="came to no end"):
        identity.acting_as(who, lambda: os.read(gate, 1))
    os.close(gate)
    os.close(keep)


def test_a_long_answer_arrives_whole(monkeypatch):
    monkeypatch.setattr(identity, "become", lambda _: None)
    who = change_anything(identity.Identity(5, 5, "games"))
    assert identity.acting_as(who, lambda: b"x" * 300_000) == b"x" * 300_000
    assert identity.acting_as(who, lambda: b"") == b""

    def fail():
        raise MemrunError("no", "Try: yes")

    with pytest.raises(MemrunError) as e:
        identity.acting_as(who, fail)
    assert (e.value.what, e.value.remedy) == ("no", "Try: yes")
