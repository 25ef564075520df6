"""--on-event: the user's commands, outside of the job's group, bounded, and never in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

MEMRUN = [sys.executable, "-m", "memrun"]
FACTS = 'echo "$MEMRUN_EVENT $MEMRUN_NAME $MEMRUN_ATTEMPT $MEMRUN_LIMIT $MEMRUN_RESULT $MEMRUN_STATUS" >> '


@pytest.fixture
def told(tmp_path):
    """told.on(*events) -> options; told() -> the lines that their hooks have written."""

    class Told:
        name = f"h{os.getpid()}"  # no two jobs have a given one at a time
        path = tmp_path / "told"

        def on(self, *events):
            return [word for event in events for word in ("--on-event", f"{event}={FACTS}{self.path}")]

        def __call__(self):
            return self.path.read_text().splitlines() if self.path.exists() else []

    return Told()


def test_a_kill_at_the_limit_and_the_end(memrun, hog, told):
    done = memrun("--limit", "20M", "-q", "--name", told.name, *told.on("oom", "finished"), "--", hog, "touch", "60")
    assert (done.returncode, done.stderr) == (137, "")
    assert sorted(told()) == [f"finished {told.name} 1 {20 << 20} oom-kill 137", f"oom {told.name} 1 {20 << 20}  "]


def test_even_a_trivial_command_has_its_end_told(memrun, told):
    assert memrun(*told.on("finished"), "--", "true").returncode == 0
    assert told() == ["finished true 1 infinity success 0"]


@pytest.mark.parametrize(("options", "command", "status"), [
    ([], "no-such-command-at-all", 127), ([], "/dev/null", 126), (["--working-dir", "/nowhere"], "true", 125),
])  # fmt: skip
def test_what_could_not_be_started_has_finished_too(memrun, told, options, command, status):
    done = memrun(*told.on("finished", "oom"), *options, "--name", told.name, "--", command)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert told() == [f"finished {told.name} 1  launch {status}"]


def test_a_job_of_a_file_that_could_not_be_started_has_finished_too(memrun, told, tmp_path):
    hook = f"{FACTS}{told.path}".replace('"', '\\"')
    (tmp_path / "jobs.toml").write_text(
        f'[jobs.one]\ncommand = ["no-such-command-at-all"]\nlimit = "20M"\non_event = {{ finished = "{hook}" }}\n'
    )
    assert memrun("up", "jobs.toml", cwd=tmp_path).returncode == 1
    assert told() == ["finished one 1  launch 127"]


def test_a_signal_ends_the_wait_for_the_hook_of_what_could_not_be_started(tmp_path):
    words = ["--on-event", f"finished=echo on > {tmp_path}/on; sleep 1000", "--", "no-such-command-at-all"]
    with subprocess.Popen([*MEMRUN, *words], stderr=subprocess.PIPE) as process:
        while not (tmp_path / "on").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 127


@pytest.mark.parametrize("delay", ["0", "1ms", "2ms", "3ms", "20ms"])
def test_restarted(memrun, hog, told, delay):
    """Also so soon that news of the first attempt is still under way: it must not end the second."""
    words = ["--limit", "10M", "--on-oom", "restart", "--grow", "4", "--delay", delay, "-q", "--name", told.name]
    done = memrun(*words, *told.on("restarted", "oom", "finished"), "--", hog, "touch", "20")
    assert done.returncode == 0, done.stderr
    assert sorted(told()) == [
        f"finished {told.name} 2 {40 << 20} success 0",
        f"oom {told.name} 1 {10 << 20}  ",
        f"restarted {told.name} 2 {40 << 20}  ",
    ]


def test_held_and_raised(memrun, hog, told):
    words = ["--limit", "20M", "--on-oom", "pause", "--grow", "4", "-q", "--name", told.name]
    done = memrun(*words, *told.on("paused", "raised", "resumed"), "--", hog, "touch", "40")
    assert done.returncode == 0, done.stderr
    assert sorted(told()) == [
        f"paused {told.name} 1 {20 << 20}  ",
        f"raised {told.name} 1 {80 << 20}  ",
        f"resumed {told.name} 1 {80 << 20}  ",
    ]


def test_raised_before_it_is_held(memrun, hog, told):
    """It climbs so slowly that each raise has been prepared, and is told of in the same way."""
    words = ["--limit", "20M", "--on-oom", "pause", "--grow", "4", "-q", "--name", told.name]
    done = memrun(*words, *told.on("paused", "raised", "resumed"), "--", hog, "step", "1000", "30", "30")
    assert done.returncode == 0, done.stderr
    assert sorted(told()) == [
        f"paused {told.name} 1 {20 << 20}  ",
        f"raised {told.name} 1 {80 << 20}  ",
        f"resumed {told.name} 1 {80 << 20}  ",
    ]


def test_a_threshold(memrun, hog, told):
    done = memrun(
        "--limit",
        "40M",
        "-q",
        "--name",
        told.name,
        "--at",
        "50%=log",
        *told.on("threshold"),
        "--",
        hog,
        "step",
        "1000",
        "30",
        "30",
    )
    assert done.returncode == 0
    assert told()[0] == f"threshold {told.name} 1 {40 << 20}  "


@pytest.mark.parametrize("mark", ["50%=log", "20M=exec:true", "50%=signal:USR1"])
def test_a_threshold_that_was_passed_before_anybody_could_look(memrun, hog, told, mark):
    """It is over sooner than an event loop is loaded: its peak tells."""
    words = ["--limit", "40M", "--name", told.name, "--at", mark, "--at", "39M=log", *told.on("threshold", "finished")]
    done = memrun(*words, "--", hog, "touch", "30")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "threshold" in line] == [
        f"memrun: {told.name}: threshold: use passes {mark.partition('=')[0]}: {mark.partition('=')[2]}: seen at its end"
    ]
    assert sorted(told()) == [f"finished {told.name} 1 {40 << 20} success 0", f"threshold {told.name} 1 {40 << 20}  "]


def test_what_a_threshold_starts_is_told_as_a_hook_is(memrun, hog, told):
    done = memrun("--limit", "40M", "-q", "--name", told.name, "--at", f"50%=exec:{FACTS}{told.path}", "--", hog, "touch", "30")
    assert done.returncode == 0
    assert told() == [f"threshold {told.name} 1 {40 << 20}  "]


def test_each_attempt_passes_its_thresholds(memrun, hog, told):
    words = ["--limit", "40M", "-q", "--restart", "always", "--attempts", "3", "--delay", "1ms", "--name", told.name]
    memrun(*words, "--at", "50%=log", *told.on("threshold"), "--", hog, "touch", "30")
    assert sorted(told()) == [f"threshold {told.name} {attempt} {40 << 20}  " for attempt in (1, 2, 3)]


def test_it_runs_outside_of_the_job_s_group(memrun, tmp_path):
    out = tmp_path / "out"
    command = f"grep memrun /proc/self/cgroup > {out}; true"
    memrun("--on-event", f"finished={command}", "--", "true")
    assert not [line for line in out.read_text().splitlines() if "true.1" in line]


def test_no_more_than_four_at_a_time_and_the_end_is_told_all_the_same(tmp_path, told):
    """Six restarts with hooks that block: two are left out. The end's waits for its turn."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = ["--restart", "always", "--attempts", "7", "--delay", "1ms", "--name", told.name]
    words += ["--on-event", f"restarted=: < {gate}", *told.on("finished")]
    with subprocess.Popen([*MEMRUN, *words, "--", "true"], stderr=subprocess.PIPE, text=True) as one:
        said = ""
        while "exhausted" not in said:
            said = one.stderr.readline()
            assert said
            if "left out" in said:
                assert said == f"memrun: {told.name}: hook: left out, 4 others are not done yet: : < {gate}\n"
        assert told() == []
        with open(gate, "w"):
            assert one.wait(20) == 0
    assert told() == [f"finished {told.name} 7 infinity exhausted 0"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_wants_memrun_to_end_does_not_wait_for_its_hooks(tmp_path, number):
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    with subprocess.Popen(
        [*MEMRUN, "--on-event", f"finished=echo $$ > {pid}; exec sleep 1000", "--", "true"], stderr=subprocess.PIPE, text=True
    ) as one:
        hook = int(pid.read_text())
        one.send_signal(number)
        assert one.wait(20) == 0
        assert "was not done in time, and killed" in one.stderr.read()
    with pytest.raises(ProcessLookupError):
        os.kill(hook, 0)


def test_a_hook_does_not_hold_up_the_reaction(tmp_path, memrun, hog, told):
    """The hook of the pause blocks until the job, raised by rule, has ended."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    words = ["--limit", "20M", "--on-oom", "pause", "--grow", "4", "--on-event", f"paused=: < {gate}"]
    before = time.monotonic()
    done = memrun(*words, "--", "sh", "-c", f"{hog} touch 40 && : > {gate}")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - before < 20


def test_in_a_batch(memrun, tmp_path, told):
    file = tmp_path / "x.toml"
    file.write_text(f"""
[defaults]
limit = "20M"
on_event = {{ finished = '{FACTS}{told.path}' }}
[jobs.a]
command = "true"
[jobs.b]
command = "exit 3"
""")
    assert memrun("up", "-q", str(file)).returncode == 1
    assert sorted(told()) == [f"finished a 1 {20 << 20} success 0", f"finished b 1 {20 << 20} exit-code 3"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("finshed=x", "--on-event: 'finshed' is no event. Did you mean finished?"),
        (
            "zzz",
            "--on-event: 'zzz' is no event. There are: oom, paused, raised, resumed, restarted, threshold, pressure, finished",
        ),
        ("oom", "--on-event: 'oom' has no command. Try: oom='logger $MEMRUN_NAME: $MEMRUN_TEXT'"),
    ],
)
def test_what_is_no_hook(memrun, word, said):
    done = memrun("--on-event", word, "--", "true")
    assert (done.returncode, done.stderr) == (125, f"memrun: {said}\n")
