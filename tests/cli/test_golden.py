"""What a user types, and what comes back: status, stdout, and one sentence on stderr. Never a traceback, never a thing left."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

VERDICT_OOM = re.compile(
    r"memrun: (\S+): oom-kill: killed at the limit of 20M \(peak (20M|19\.\d*M)\) after [\d.]+ s; "
    r"largest: hog \(pid \d+\) [\d.]+M; give it more: --limit 40M\n"
)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 125, "nothing to run. Try: memrun --limit 500M -- COMMAND, or memrun --help"),
        (["--limit", "5M"], 125, "no command was given. Try: memrun --limit 500M -- COMMAND"),
        (["--limit", "5M", "--"], 125, "no command was given. Try: memrun --limit 500M -- COMMAND"),
        (["--limit"], 125, "--limit wants a value (SIZE)"),
        (["--limit", "0", "--", "true"], 125, "--limit: a limit of 0 is below the floor of 512K: no command starts in so little"),
        (["--limit", "100K", "--", "true"], 125, "--limit: a limit of 100K is below the floor of 512K: no command starts in so little"),
        (["--limit", "abc", "--", "true"], 125, "--limit: 'abc' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"),
        (["--limit", "5MB5", "--", "true"], 125, "--limit: '5MB5' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"),
        (["--limit", "1e400", "--", "true"], 125, "--limit: '1e400' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"),
        (["--limit", "2 EiB", "--", "true"], 125, "--limit: '2 EiB' is more memory than any machine has. Write infinity for no limit"),
        (["--limit=-5M", "--", "true"], 125, "--limit: '-5M' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"),
        (["--limit", "0%", "--", "true"], 125, "--limit: '0%' is not a share. Percentages run from above 0% to 100%"),
        (["--limit", "0.0001%", "--", "true"], 125, "--limit: '0.0001%' is not a share. Percentages run from above 0% to 100%"),
        (["--limit", "0.01%", "--limit", "1M", "--frobnicate", "--", "true"], 125, "there is no option --frobnicate. See memrun --help"),
        (["--limt", "5M", "--", "true"], 125, "there is no option --limt. Did you mean --limit?"),
        (["--timeout", "soon", "--", "true"], 125, "--timeout: 'soon' is not a duration. Durations look like 90, 90s, 1h30m, 250ms or infinity"),
        (["--stop-signal", "NOPE", "--", "true"], 125, "--stop-signal: 'NOPE' is not a signal. Signals look like TERM, SIGUSR1 or 15"),
        (["--oom-group", "maybe", "--", "true"], 125, "--oom-group: 'maybe' is neither on nor off"),
        (["--report", "/nowhere/at/all", "--", "true"], 125, "cannot write the report: /nowhere/at/all is in no directory"),
        (["--limit", "5M", "--", "/"], 126, "/ is a directory, not a command"),
        (["--limit", "5M", "--", "/etc/passwd"], 126, "/etc/passwd is not executable. Try: chmod +x /etc/passwd"),
        (["--limit", "5M", "--", "no-such-thing"], 127, "command 'no-such-thing' not found: it is nowhere on PATH"),
        (["--limit", "5M", "--", "./no-such-thing"], 127, "command './no-such-thing' not found: there is no such file"),
        (["--limit", "5M", "--", ""], 127, "no command was given"),
        (["frobnicate"], 125, "'frobnicate' is not a memrun command. See memrun --help"),
        (["dcotor"], 125, "'dcotor' is not a memrun command. Did you mean doctor?"),
        (["./prog"], 125, "'./prog' is not a memrun command. To run it: memrun --limit 500M -- ./prog"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(memrun, words, status, said):
    done = memrun(*words)
    if "/nowhere" in said:
        assert re.fullmatch(r"memrun: cannot write the report.*\n", done.stderr)
    else:
        assert done.stderr == f"memrun: {said}\n"
    assert (done.returncode, done.stdout) == (status, "")


def test_a_script_without_an_interpreter(memrun, tmp_path):
    script = tmp_path / "script"
    script.write_text("echo hi\n")
    script.chmod(0o755)
    done = memrun("--limit", "5M", "--", str(script))
    assert done.returncode == 126
    assert (
        done.stderr
        == f"memrun: {script} is not a program: it has no #! line and no known binary format. Start it with an interpreter: sh {script}\n"
    )
    script.write_text("#!/no/such/interpreter\n")
    done = memrun("--limit", "5M", "--", str(script))
    assert (done.returncode, done.stderr) == (127, f"memrun: the interpreter that {script} names does not exist\n")


def test_silent_on_success(memrun):
    done = memrun("--limit", "50M", "--", "echo", "hi")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hi\n", "")


def test_the_commands_own_status_and_one_line(memrun):
    done = memrun("--limit", "50M", "--", "sh", "-c", "exit 3")
    assert done.returncode == 3
    assert re.fullmatch(r"memrun: sh: exit-code: exited with status 3 after [\d.]+ s\n", done.stderr)


def test_the_verdict_of_a_kill_at_the_limit(memrun, hog):
    done = memrun("--limit", "20M", "--", hog, "touch", "60")
    assert done.returncode == 137
    assert VERDICT_OOM.fullmatch(done.stderr), done.stderr


def test_quiet_is_quiet(memrun, hog):
    done = memrun("--quiet", "--limit", "20M", "--", hog, "touch", "60")
    assert (done.returncode, done.stderr) == (137, "")


def test_the_example_prints_four_lines_and_is_killed(memrun, tmp_path):
    """The main job. At its usual pace, a line a second."""
    program = tmp_path / "mem-allocate"
    subprocess.run(["cc", "-O2", "-o", str(program), "examples/mem-allocate.c"], check=True)
    done = memrun("--limit", "5M", "--", str(program))
    assert done.stdout == "1 MiB\n2 MiB\n3 MiB\n4 MiB\n"
    assert done.returncode == 137
    assert re.match(
        r"memrun: mem-allocate: oom-kill: killed at the limit of 5M \(peak (5|4\.\d+)M\) after [34]\.\d s; ", done.stderr
    )
    done = memrun("--limit", "64M", "--", str(program), "8", "10")
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, "8 MiB", "")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"], ["run", "--help"], ["--limit", "5M", "--help"]])
def test_help(memrun, words):
    done = memrun(*words)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("--limit", "--on-oom", "--timeout", "--report", "doctor", "137", "125"):
        assert word in done.stdout


def test_version(memrun):
    assert re.fullmatch(r"memrun \d+\.\d+\.\d+\n", memrun("--version").stdout)


def test_help_into_a_pipe_that_closes():
    done = subprocess.run(f"{sys.executable} -m memrun --help | true", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_a_closed_stderr_is_no_harm():
    script = f"{sys.executable} -m memrun --limit 50M -- sh -c 'exit 4' 2>&-; echo $?"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout == "4\n"


def test_all_descriptors_closed():
    script = f"{sys.executable} -m memrun --limit 50M -- sh -c 'exit 4' 0<&- 1>&- 2>&-; exit $?"
    assert subprocess.run(["sh", "-c", script]).returncode == 4


def test_the_options_end_at_the_command(memrun):
    assert memrun("--limit", "50M", "echo", "--limit", "5").stdout == "--limit 5\n"
    assert memrun("run", "-l", "50M", "-q", "echo", "-v").stdout == "-v\n"


def test_nohup_reaches_the_command():
    script = f"nohup {sys.executable} -m memrun --limit 50M -- grep SigIgn /proc/self/status"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={**os.environ})
    assert int(done.stdout.split()[1], 16) & 1


@pytest.mark.parametrize("words", ["ps", "--help", "--version", "--limit 50M -- sh -c 'exit 3'", "doctor", "nonsense"])
def test_closed_descriptors_are_no_traceback(words):
    line = f"{sys.executable} -m memrun {words}"
    done = subprocess.run(["sh", "-c", f"{line} >&-"], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    closed = subprocess.run(["sh", "-c", f"{line} <&- >&- 2>&-"], timeout=60)
    assert closed.returncode == done.returncode < 126


def test_a_batch_without_stderr(tmp_path):
    (tmp_path / "jobs.toml").write_text("[jobs.one]\ncommand = 'echo hi'\nlimit = '20M'\nlog = 'one.log'\n")
    done = subprocess.run(["sh", "-c", f"exec {sys.executable} -m memrun up jobs.toml -r r.json 2>&-"], cwd=tmp_path, timeout=60)
    assert done.returncode == 0
    assert (tmp_path / "one.log").read_text() == "hi\n"
    assert '"succeeded": 1' in (tmp_path / "r.json").read_text()


def test_what_was_closed_is_closed_for_the_command(memrun):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m memrun --limit 50M -- sh -c 'ls -l /proc/self/fd' 2>&-"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert " 2 -> /proc/" in done.stdout  # ls took it for the directory: it was free
