"""The command starts before anything heavy is loaded: asserted on what is loaded, not on time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memrun.cgroup import detect

HEAVY = {
    "trio",
    "psutil",
    "tomli",
    "asyncio",
    "argparse",
    "re",
    "enum",
    "typing",
    "dataclasses",
    "json",
    "logging",
    "subprocess",
    "pathlib",
    "ctypes",
}
LATER = {  # loaded beside the command, or where there is something for it; the first four are shared libraries
    "select",
    "fcntl",
    "resource",
    "_json",
    "memrun.history",
    "memrun.names",
    "memrun.notify",
    "memrun.oomlog",
    "memrun.record",
}


def loaded(code, *words):
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, *words], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_command_line_loads_nothing_heavy():
    code = "import sys; sys.path.insert(0, '.'); import memrun.cli; print(*sys.modules)"
    assert not HEAVY & loaded(code)


def test_nothing_heavy_is_loaded_at_the_moment_of_launch():
    code = """
import os, sys
sys.path.insert(0, '.')
from memrun import cli, launch
real = launch.start
def spy(order):
    sys.stdout.write(' '.join(sys.modules)); sys.stdout.flush()
    return real(order)
launch.start = spy
sys.exit(cli.main(['--limit', '50M', '--', 'true']))
"""
    found = loaded(code)
    assert "memrun.launch" in found
    assert not (HEAVY | LATER) & found


def test_a_trivial_command_needs_no_event_loop():
    code = "import sys; sys.path.insert(0, '.'); from memrun import cli; cli.main(['--limit', '50M', '--', 'true']); print(*sys.modules)"
    assert not {"trio", "psutil", "json", "typing"} & loaded(code)


may_exempt = pytest.mark.skipif(
    not detect.may_exempt(), reason="where nothing protects a held job, all is loaded before it starts"
)


@pytest.mark.parametrize(
    "rule",
    [[], ["--on-oom", "restart"], ["--restart", "on-failure"], pytest.param(["--on-oom", "pause"], marks=may_exempt)],
    ids=["kill", "restart on oom", "restart", "pause"],
)
def test_a_run_that_wants_nothing_but_its_end_is_waited_for_without_an_event_loop(rule):
    code = "import sys; sys.path.insert(0, '.'); from memrun import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    found = loaded(code, "--limit", "50M", *rule, "--", "sleep", "0.5")
    assert "memrun.vigil" in found
    assert not HEAVY & found


def test_only_a_name_that_was_given_is_claimed_before_the_command_starts(tmp_path):
    """A command that is over at once never needs the one that nobody gave it."""
    tmp_path.chmod(0o700)
    patient = "from memrun import oneshot; oneshot.SHORT_LOOK = 60; from memrun.__main__ import main; main()"  # a busy machine's "at once"
    look = "ls $XDG_RUNTIME_DIR/memrun 2>&1 | grep '[.]name'; true"
    for given, there in (([], ""), (["--name", "mine"], "mine.name\n")):
        words = [sys.executable, "-c", patient, "--limit", "50M", *given, "--", "sh", "-c", look]
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        )
        assert done.stdout == there
        assert not list(tmp_path.glob("memrun/*"))


def test_nothing_is_loaded_from_the_directory_of_all_commands(tmp_path):
    """Where a script lies is searched first, and its neighbours are not ours."""
    root = Path(__file__).parent.parent.parent
    (tmp_path / "memrun").write_text((root / "bin" / "memrun").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "select.py").write_text("raise SystemExit(3)", encoding="utf-8")
    words = [sys.executable, tmp_path / "memrun", "--limit", "50M", "--", "true"]
    assert subprocess.run(words, env={**os.environ, "PYTHONPATH": str(root)}).returncode == 0
