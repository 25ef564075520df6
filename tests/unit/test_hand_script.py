"""The dead man's hand: a shell script, for whatever /bin/sh is. What it kills is tested in tests/kernel and tests/contract."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from memrun import hand
from memrun.hand import LET_GO, SCRIPT, spread

SHELLS = [
    ["dash"],
    ["bash"],
    ["bash", "--posix"],
    ["busybox", "sh"],
    ["ksh"],
    ["mksh"],
    ["yash"],
    ["zsh", "--emulate", "sh"],
    ["sh"],
]
BRIEF = SCRIPT.replace("up + 10", "up + 1")  # rounds before it gives up: what a removal can do on plain folders, it does at once
HERE = [shell for shell in SHELLS if shutil.which(shell[0])]


def name(shell: list[str]) -> str:
    return " ".join(shell)


@pytest.fixture(params=HERE, ids=name)
def shell(request):
    return request.param


def act(shell: list[str], said: str, *places: object) -> subprocess.CompletedProcess[str]:
    """Run the script as `spread` does; the end of `said` is the end of the pipe."""
    command = [*shell, "-c", BRIEF, "memrun-hand", *map(str, places)]
    return subprocess.run(
        command, input=said, text=True, capture_output=True, env={}, timeout=30, executable=shutil.which(shell[0])
    )


def test_there_is_a_shell_to_test_with():
    assert HERE


def test_every_shell_can_read_it(shell):
    for script in (SCRIPT, LET_GO):
        done = subprocess.run([*shell, "-n", "-c", script], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_done_touches_nothing(shell, tmp_path):
    (tmp_path / "run").mkdir()
    assert act(shell, "done\n", tmp_path / "run").returncode == 0
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize("said", ["", "don", "undone\n", "done it\n"])
def test_any_other_end_removes(shell, tmp_path, said):
    for folder in ("a", ".hidden", "..odd", "with blank", "*", "-n", "$(exit)"):
        (tmp_path / "run" / folder / "deeper").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "beside" / "x").mkdir(parents=True)
    assert act(shell, said, tmp_path / "run", tmp_path / "never-made", tmp_path / "beside").returncode == 0
    assert os.listdir(tmp_path) == ["other"]


def test_it_lets_go_of_what_is_held(shell, tmp_path):
    """On plain files a removal cannot succeed, so what was written stays to be seen; the script is ended after a few rounds."""
    run = tmp_path / "run"
    run.mkdir()
    for file in ("cgroup.kill", "memory.oom_control", "freezer.state", "cgroup.procs"):
        (run / file).write_text("")
    command = [*shell, "-c", BRIEF, "memrun-hand", str(run)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=30)
    assert {file: (run / file).read_text() for file in os.listdir(run)} == {
        "cgroup.kill": "1\n",
        "memory.oom_control": "0\n",
        "freezer.state": "THAWED\n",
        "cgroup.procs": "",
    }


def test_a_process_without_a_number_is_not_itself(shell, tmp_path):
    """v2 lists who is being reaped as 0; kill -9 0 is the hand's own process group."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cgroup.procs").write_text("0\n0\n")
    command = [*shell, "-c", BRIEF, "memrun-hand", str(tmp_path / "run")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={}, timeout=30, start_new_session=True)
    assert done.returncode >= 0


class TestGivenBack:
    """The group that memrun divided is one group again: on plain files, a process that is put somewhere is the last number written there."""

    @pytest.fixture
    def base(self, tmp_path):
        (tmp_path / "memrun-self-77").mkdir()
        (tmp_path / "cgroup.procs").write_text("")
        (tmp_path / "cgroup.subtree_control").write_text("memory\n")
        return tmp_path

    @pytest.fixture(params=[SCRIPT, LET_GO], ids=["kills", "lets go"])
    def act(self, shell, base, request):
        def run():
            command = [*shell, "-c", request.param, "memrun-hand", str(base / "memrun-1-abcd")]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, env={"memrun": "77"}, timeout=30, executable=shutil.which(shell[0])
            )
            assert done.returncode == 0
            return (base / "cgroup.subtree_control").read_text().strip(), (base / "cgroup.procs").read_text().strip()

        return run

    @pytest.mark.parametrize("leaf", ["memrun-self-77", "memrun-rest"])
    def test_who_was_moved_out_of_the_way_is_back(self, act, base, leaf):
        (base / "memrun-self-77").rename(base / leaf)
        (base / leaf / "cgroup.procs").write_text("4000001\n")
        assert act() == ("-memory", "4000001")

    def test_so_is_the_processor(self, act, base):
        (base / "memrun-self-77" / "cpu.weight").write_text("10000\n")
        (base / "memrun-self-77" / "cgroup.procs").write_text("4000001\n")
        assert act() == ("-memory -cpu", "4000001")

    def test_the_leaf_is_gone(self, act, base):
        assert act() == ("-memory", "")
        assert not (base / "memrun-self-77").exists()

    @pytest.mark.parametrize("other", ["memrun-2-abcd", ".hidden", "somebody's"])
    def test_where_others_use_it_it_stays_divided(self, act, base, other):
        (base / other).mkdir()
        (base / "memrun-self-77" / "cgroup.procs").write_text("4000001\n")
        assert act() == ("memory", "")

    def test_what_another_memrun_divided_is_not_ours_to_give_back(self, act, base):
        (base / "memrun-self-77").rename(base / "memrun-self-78")
        assert act() == ("memory", "")


def let_go(shell: list[str], told: str, *places: object) -> int:
    script = LET_GO.replace("up + 10", "up + 0")
    command = [*shell, "-c", script, "memrun-hand", *map(str, places)]
    return subprocess.run(
        command, input=told, text=True, capture_output=True, env={}, timeout=30, executable=shutil.which(shell[0])
    ).returncode


class TestLetGo:
    """On plain files: a process that is put somewhere is the last number written there, and nobody ever leaves."""

    @pytest.fixture
    def places(self, tmp_path):
        for place in ("one", "two"):
            for folder in ("run/job.1", "home", "home/with blank", "other * [a-z]"):
                (tmp_path / place / folder).mkdir(parents=True)
                (tmp_path / place / folder / "cgroup.procs").write_text("")
        return tmp_path / "one", tmp_path / "two"

    def test_done_touches_nothing(self, shell, places):
        one, two = places
        (one / "run/job.1/cgroup.procs").write_text("4000001\n")
        assert let_go(shell, f"* 1 {one}/home\n* 2 {two}/home\ndone\n", one / "run", two / "run") == 0
        assert (one / "home/cgroup.procs").read_text() == ""

    def test_each_goes_where_it_came_from(self, shell, places):
        one, two = places
        told = f"* 1 {one}/home\n* 2 {two}/other * [a-z]\n4000002 1 {one}/home/with blank\n4000003 1 {one}/home/gone/deeper\n"
        for pid, home in (("4000001", "home"), ("4000002", "home/with blank"), ("4000003", "home")):
            for place in places:
                (place / "run/job.1/cgroup.procs").write_text(f"{pid}\n")
            let_go(shell, told, one / "run", two / "run")
            assert (one / home / "cgroup.procs").read_text() == f"{pid}\n"
            assert (two / "other * [a-z]" / "cgroup.procs").read_text() == f"{pid}\n"
            (one / home / "cgroup.procs").write_text("")

    def test_limits_and_freezers_go_first(self, shell, places):
        one, two = places
        files = "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.max memory.high cgroup.freeze freezer.state memory.oom_control".split()
        for file in files:
            (one / "run/job.1" / file).write_text("")
        let_go(shell, f"* 1 {one}/home\n* 2 {two}/home\n", one / "run", two / "run")
        read = [(one / "run/job.1" / file).read_text().strip() for file in files]
        assert read == ["-1", "-1", "max", "max", "0", "THAWED", "0"]

    def test_it_removes(self, shell, places):
        one, two = places
        for place in places:
            (place / "run/job.1/cgroup.procs").unlink()
            (place / "run/.hidden/below").mkdir(parents=True)
        assert let_go(shell, f"* 1 {one}/home\n* 2 {two}/home\n", one / "run", two / "run", one / "never-made") == 0
        assert not (one / "run").exists()
        assert not (two / "run").exists()

    def test_only_immunity_is_taken_back(self, shell, places):
        one, _ = places
        child = subprocess.Popen(["sleep", "100"])
        try:
            with open(f"/proc/{child.pid}/oom_score_adj", "w") as f:
                f.write("250")
            (one / "run/job.1/cgroup.procs").write_text(f"{child.pid}\n")
            let_go(shell, f"* 1 {one}/home\n* score 300\n", one / "run")
            with open(f"/proc/{child.pid}/oom_score_adj") as f:
                assert f.read() == "250\n"
        finally:
            child.kill()
            child.wait()


class TestHand:
    def test_dismissed_it_is_gone_and_touched_nothing(self, tmp_path, unchanged):
        (tmp_path / "run").mkdir()
        it = spread((str(tmp_path / "run"),))
        it.dismiss()
        it.dismiss()  # twice is once
        with pytest.raises(ProcessLookupError):
            os.kill(it.pid, 0)
        assert (tmp_path / "run").is_dir()

    def test_clenched_it_has_removed_when_that_returns(self, tmp_path, unchanged):
        (tmp_path / "run" / "a").mkdir(parents=True)
        it = spread((str(tmp_path / "run"),))
        it.clench()
        it.clench()
        it.dismiss()
        assert not (tmp_path / "run").exists()

    def test_no_signal_that_people_send_reaches_it(self, tmp_path, unchanged):
        it = spread((str(tmp_path / "run"),))
        assert os.getsid(it.pid) == it.pid
        it.dismiss()

    def test_killed_it_can_still_be_dismissed(self, tmp_path, unchanged):
        it = spread((str(tmp_path / "run"),))
        os.kill(it.pid, 9)
        os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)
        it.dismiss()

    def test_the_pipe_is_not_inherited_by_commands(self, tmp_path, unchanged):
        it = spread((str(tmp_path / "run"),))
        seen = subprocess.run(["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False).stdout
        ours = os.readlink(f"/proc/self/fd/{it.pipe}")
        it.dismiss()
        assert ours not in seen

    def test_no_shell_is_an_error_with_nothing_left(self, monkeypatch, unchanged):
        def refuse(*_: object, **__: object) -> int:
            raise OSError(11, "Resource temporarily unavailable")

        monkeypatch.setattr(hand.os, "posix_spawn", refuse)
        with pytest.raises(hand.LaunchError, match="cannot start a process"):
            spread(("/nowhere",))

    def test_one_that_is_stopped_does_not_keep_us_at_the_end(self, tmp_path, unchanged):
        it = stopped(tmp_path)
        it.dismiss()
        assert (tmp_path / "run").is_dir()

    def test_one_that_is_stopped_does_its_work_when_told(self, tmp_path, unchanged):
        it = stopped(tmp_path)
        it.clench()
        assert not (tmp_path / "run").exists()

    def test_nothing_but_kill_and_stop_reaches_it(self, tmp_path, unchanged):
        it = spread((str(tmp_path / "run"),))
        for number in sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}):
            os.kill(it.pid, number)
        assert os.waitid(os.P_PID, it.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None
        it.clench()

    def test_killed_it_is_spread_anew_and_knows_all_that_it_knew(self, tmp_path, unchanged):
        (tmp_path / "run").mkdir()
        it = spread((str(tmp_path / "run"),))
        assert not it.renew()
        it.tell("one thing")
        first = it.pid
        for deed in (it.renew, lambda: it.tell("another")):
            killed(it)
            deed()
            assert it.pid != first
            first = it.pid
        assert not it.is_broken()
        it.clench()
        assert not (tmp_path / "run").exists()

    def test_killed_when_it_is_needed_another_does_the_work(self, tmp_path, unchanged):
        (tmp_path / "run").mkdir()
        it = spread((str(tmp_path / "run"),))
        killed(it)
        it.clench()
        assert not (tmp_path / "run").exists()

    def test_files_go_too_but_for_a_name_that_somebody_else_has(self, tmp_path, unchanged):
        mine, theirs, part = (tmp_path / name for name in ("mine.name", "theirs.name", "a report.1.part"))
        for path in (mine, theirs, part):
            path.touch()
        with theirs.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            it = spread((str(tmp_path / "run"),))
            it.tell_of_files(tuple(f"-1 -1 {path}" for path in (mine, theirs, part, tmp_path / "none")))
            it.clench()
        assert list(tmp_path.iterdir()) == [theirs]


def stopped(tmp_path):
    (tmp_path / "run").mkdir()
    it = spread((str(tmp_path / "run"),))
    os.kill(it.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, it.pid, os.WSTOPPED)
    return it


def killed(it):
    os.kill(it.pid, signal.SIGKILL)
    os.waitid(os.P_PID, it.pid, os.WEXITED | os.WNOWAIT)


class TestNoProcessToBeHad:
    """A user with as many processes as RLIMIT_NPROC allows: no shell can fork."""

    @pytest.fixture
    def act(self, shell, tmp_path):
        if os.geteuid() != 0:
            pytest.skip("takes root, to be a user without other processes")

        def run(script, told, **known):
            (tmp_path / "run" / "a" / "deeper").mkdir(parents=True)
            (tmp_path / "run" / "with blank").mkdir()
            for path in (tmp_path, *tmp_path.rglob("*")):
                os.chown(path, 54321, 54321)
            path = shutil.which(shell[0])
            known |= {"python": sys.executable, "tidy": hand.TIDY, "script": script, "files": ""}
            command = [path, *shell[1:], "-c", script, "memrun-hand", str(tmp_path / "run")]
            for above in (tmp_path.parent, tmp_path.parent.parent):
                above.chmod(above.stat().st_mode | 0o011)
            done = subprocess.run(command, input=told, text=True, capture_output=True, env=known, timeout=60, preexec_fn=poor)
            assert not (tmp_path / "run").exists(), done.stderr

        return run

    @pytest.mark.parametrize("script", [SCRIPT, LET_GO], ids=["kills", "lets go"])
    def test_its_work_is_done(self, act, shell, script):
        if shell[0] not in {"dash", "sh"}:
            pytest.skip("bash waits for 15 s before it gives up")
        act(script, "")


def poor():
    os.setgroups([])
    os.setgid(54321)
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.setuid(54321)
