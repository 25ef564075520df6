"""Which file a command is: execvp's rules, and 126 or 127 where there is none to run."""

from __future__ import annotations

import os

import pytest

from memrun.errors import LaunchError
from memrun.launch import Order, find


@pytest.fixture
def places(tmp_path):
    """Two folders of a PATH: a/tool and b/tool run, a/text does not, b/text runs, a/folder is one."""
    for folder in "ab":
        (tmp_path / folder).mkdir()
    for name, mode in [
        ("a/tool", 0o755),
        ("b/tool", 0o755),
        ("a/text", 0o644),
        ("b/text", 0o755),
        ("a/only-text", 0o644),
        ("b/only-b", 0o755),
    ]:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "a" / "folder").mkdir()
    (tmp_path / "a" / "dangling").symlink_to("/nowhere/at/all")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "tool")
    return tmp_path


def test_the_first_on_path_that_can_be_run(places):
    path = f"{places}/a:{places}/b"
    assert find("tool", path) == f"{places}/a/tool"
    assert find("tool", f"{places}/b:{places}/a") == f"{places}/b/tool"
    assert find("only-b", path) == f"{places}/b/only-b"
    assert find("text", path) == f"{places}/b/text"  # what cannot be run does not stop the search
    assert find("link", path) == f"{places}/a/link"
    assert find("tool", f"/nowhere::{places}/a") == f"{places}/a/tool"


def test_an_empty_part_of_path_is_here(places, monkeypatch):
    monkeypatch.chdir(places / "a")
    assert find("tool", ":/nowhere") == "./tool"
    assert find("tool", "") == "./tool"


def test_a_slash_means_no_search(places, monkeypatch):
    monkeypatch.chdir(places)
    assert find("a/tool", "/nowhere") == "a/tool"
    assert find(f"{places}/b/tool", "") == f"{places}/b/tool"


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("nonesuch", 127, "command 'nonesuch' not found: it is nowhere on PATH"),
        ("./nonesuch", 127, "command './nonesuch' not found: there is no such file"),
        ("a/tool/x", 127, "there is no such file"),
        ("", 127, "no command was given"),
        ("dangling", 127, "nowhere on PATH"),
        ("folder", 127, "nowhere on PATH"),
        ("only-text", 126, "is not executable"),
        ("a/text", 126, "a/text is not executable"),
        ("a/folder", 126, "a/folder is a directory, not a command"),
        ("a/", 126, "is a directory"),
        ("/", 126, "/ is a directory"),
        ("a/dangling", 127, "there is no such file"),
        ("a\nb", 127, r"command 'a\nb' not found"),
    ],
)
def test_what_cannot_be_run(places, monkeypatch, command, status, said):
    monkeypatch.chdir(places)
    with pytest.raises(LaunchError) as e:
        find(command, f"{places}/a:{places}/b")
    assert said in e.value.what
    assert e.value.status == status


def test_a_remedy_for_what_was_forgotten(places):
    with pytest.raises(LaunchError) as e:
        find(f"{places}/a/text", "")
    assert e.value.remedy == f"Try: chmod +x {places}/a/text"


def test_an_order_looks_where_its_own_environment_says(places):
    assert Order(["tool"], {"PATH": f"{places}/b"}).path == f"{places}/b/tool"
    assert Order(["sh"], {}).path.endswith("/sh")
    order = Order(["sh", "-c", ""])
    assert order.environ == dict(os.environb)
    assert order.procs_fds == ()
    with pytest.raises(LaunchError):
        Order([])
