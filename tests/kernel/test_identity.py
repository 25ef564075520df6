"""As another user: that user's ids and no more, in the limited group all the same; and nothing of root's through a symlink."""

from __future__ import annotations

import json
import os
import pwd
import re
import resource
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from memrun import identity, logfile
from memrun.cgroup import detect
from memrun.errors import MemrunError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
NOBODY = pwd.getpwnam("nobody")
CAPABLE = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
may_lower_a_score = pytest.mark.skipif(not CAPABLE >> 24 & 1, reason="root has no CAP_SYS_RESOURCE here")
MEMRUN = [sys.executable, "-m", "memrun"]


@pytest.fixture
def theirs():
    """A directory of nobody's, in a place that everybody can reach."""
    place = Path(tempfile.mkdtemp(prefix="memrun-test-", dir="/tmp"))
    os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def secret(tmp_path):
    file = tmp_path / "secret"
    file.write_text("KEY=root's own\n")
    file.chmod(0o600)
    return file


def owner(path):
    found = os.stat(path, follow_symlinks=False)
    return found.st_uid, found.st_gid


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.split() for key, _, value in (line.partition(":") for line in lines)}


def held(*words):
    """A memrun whose command says its pid and then waits for a line."""
    command = ["--limit", "50M", *words, "--", "sh", "-c", "echo $$; read line"]
    return subprocess.Popen([*MEMRUN, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("words", "uid", "gid", "groups"),
    [
        (["--user", "nobody"], NOBODY.pw_uid, NOBODY.pw_gid, [NOBODY.pw_gid]),
        (["--user", str(NOBODY.pw_uid), "--group", "daemon"], NOBODY.pw_uid, 1, [1]),
        (["--user", "54321", "--group", "54322"], 54321, 54322, [54322]),
    ],
)
def test_exactly_that_user_as_seen_from_outside(words, uid, gid, groups):
    with held(*words) as process:
        pid = process.stdout.readline().strip()
        status = status_of(pid)
        assert status["Uid"] == [str(uid)] * 4
        assert status["Gid"] == [str(gid)] * 4
        assert status["Groups"] == [str(group) for group in groups]
        assert (status["CapPrm"], status["CapEff"], status["CapAmb"]) == (["0" * 16],) * 3
        assert status["NoNewPrivs"] == ["0"]
        own = detect.own(int(pid))
        assert f"/memrun-{process.pid}-" in own.get("memory", own.get("", ""))
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


def test_a_group_alone():
    with held("--group", "daemon") as process:
        status = status_of(process.stdout.readline().strip())
        assert (status["Uid"], status["Gid"]) == (["0"] * 4, ["1"] * 4)
        assert "1" in status["Groups"]
        process.communicate("\n", timeout=30)


def test_what_a_login_sets(memrun):
    done = memrun("--user", "nobody", "--", "sh", "-c", 'echo "$HOME $USER $LOGNAME $SHELL"')
    assert done.stdout == f"{NOBODY.pw_dir} nobody nobody {NOBODY.pw_shell}\n"
    done = memrun("--user", "nobody", "--env", "HOME=/x", "--", "sh", "-c", 'echo "$HOME $USER"')
    assert done.stdout == "/x nobody\n"


def test_root_s_files_stay_root_s(memrun, secret):
    done = memrun("--user", "nobody", "--", "cat", str(secret))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


def test_no_way_back(memrun):
    """The whole tree, with everything that Python can try."""
    code = "import os\nfor act in (os.setuid, os.setgid, lambda n: os.setgroups([n])):\n try: act(0); print('back')\n except PermissionError: print('no')"
    done = memrun("--user", "nobody", "--working-dir", "/", "--", "/usr/bin/env", "python3", "-I", "-c", code)
    if done.returncode == 127:
        pytest.skip("no python3 that nobody can run")
    assert done.stdout == "no\n" * 3


def test_the_order_of_the_environment(memrun, tmp_path):
    (tmp_path / "one").write_text("B=one\nC='o n e'\nD=one\n")
    (tmp_path / "two").write_text("C=two\n")
    words = [
        "--pass-env",
        "A",
        "--pass-env",
        "B",
        "--env-file",
        f"{tmp_path}/one",
        f"--env-file={tmp_path}/two",
        "--env",
        "D=set",
    ]
    environ = {**os.environ, "A": "passed", "B": "passed", "X": "not passed"}
    done = memrun(*words, "--", "/usr/bin/env", env=environ)
    assert sorted(done.stdout.splitlines()) == ["A=passed", "B=one", "C=two", "D=set"]


def test_umask_nice_and_score(memrun, theirs):
    words = ["--user", "nobody", "--umask", "027", "--nice", "7", "--oom-score-adj", "300", "--working-dir", str(theirs)]
    done = memrun(*words, "--", "sh", "-c", "umask; nice; cat /proc/self/oom_score_adj; pwd; echo hi > new")
    assert (done.stdout, done.stderr) == (f"0027\n7\n300\n{theirs}\n", "")
    assert stat.S_IMODE((theirs / "new").stat().st_mode) == 0o640


@pytest.mark.skipif(not CAPABLE >> 23 & 1, reason="root has no CAP_SYS_NICE here")
def test_a_lower_nice_value_is_set_before_the_rights_go(memrun):
    done = memrun("--user", "nobody", "--nice", "-3", "--", "nice")
    assert (done.stdout, done.stderr) == ("-3\n", "")


@may_lower_a_score
def test_a_lower_score_is_set_before_the_rights_go(memrun):
    done = memrun("--user", "nobody", "--oom-score-adj", "-500", "--", "cat", "/proc/self/oom_score_adj")
    assert (done.stdout, done.stderr) == ("-500\n", "")


def test_a_score_that_may_not_be_set(memrun):
    if CAPABLE >> 24 & 1:
        pytest.skip("root may do everything here")
    done = memrun("--oom-score-adj", "-500", "--", "true")
    what = "cannot set oom_score_adj to -500: Permission denied"
    assert (done.returncode, done.stderr.partition(". ")[0]) == (125, f"memrun: {what}")


@may_lower_a_score
def test_an_inherited_immunity_ends_unless_it_is_asked_for():
    said = 'echo -1000 > /proc/self/oom_score_adj; exec "$@"'
    for words, score in [([], "0"), (["--user", "nobody"], "0"), (["--oom-score-adj", "-1000"], "-1000")]:
        command = [*MEMRUN, "--limit", "50M", *words, "--", "cat", "/proc/self/oom_score_adj"]
        done = subprocess.run(["sh", "-c", said, "sh", *command], capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (score + "\n", "")


def test_files_are_that_user_s_and_appended_to(memrun, theirs):
    out, err, report = theirs / "out", theirs / "err", theirs / "report"
    for _ in range(2):
        done = memrun(
            "--user", "nobody", "--umask", "077", "--stdout", str(out), "--stderr", str(err), "--report", str(report),
            "--", "sh", "-c", "echo said; echo complained >&2",
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (out.read_text(), err.read_text()) == ("said\n" * 2, "complained\n" * 2)
    assert {owner(path) for path in (out, err, report)} == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert json.loads(report.read_text())["result"] == "success"
    assert sorted(path.name for path in theirs.iterdir()) == ["err", "out", "report"]


@pytest.mark.parametrize("option", ["--stdout", "--stderr", "--report", "--env-file"])
def test_a_symlink_leads_to_nothing_of_root_s(memrun, theirs, secret, option):
    """The link is nobody's own, to a file and to a directory of root's."""
    before = secret.read_text()
    for link, path in [(secret, theirs / "a"), (secret.parent, theirs / "b/secret"), (secret.parent, theirs / "c/new")]:
        name = path if path.parent == theirs else path.parent
        os.symlink(link, name)
        os.chown(name, NOBODY.pw_uid, NOBODY.pw_gid, follow_symlinks=False)
        done = memrun("--user", "nobody", option, str(path), "--", "/usr/bin/env")
        assert "root's own" not in done.stdout
        if option == "--report" and path.parent == theirs:  # the link is replaced, by a file of nobody's
            assert (done.returncode, path.is_symlink(), owner(path)) == (0, False, (NOBODY.pw_uid, NOBODY.pw_gid))
        else:
            assert (done.returncode, done.stdout) == (125, "")
            assert done.stderr.startswith("memrun: cannot ")
            assert "as user nobody" in done.stderr
            assert done.stderr.count("\n") == 1
    assert secret.read_text() == before
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]


def test_a_link_that_comes_later_does_not_help(memrun, theirs, secret):
    """The job swaps its report's directory for a link to root's before memrun writes."""
    (theirs / "d").mkdir()
    os.chown(theirs / "d", NOBODY.pw_uid, NOBODY.pw_gid)
    report = theirs / "d/secret"
    done = memrun(
        "--user", "nobody", "--report", str(report), "--", "sh", "-c", f"rmdir {theirs}/d && ln -s {secret.parent} {theirs}/d"
    )
    assert done.returncode == 125
    assert done.stderr == f"memrun: cannot write the report {report} as user nobody: Permission denied\n"
    assert secret.read_text() == "KEY=root's own\n"


def test_a_file_kept_open_for_somebody(theirs, secret):
    who = identity.look_up("nobody", "")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    fd = identity.opened_as(who, f"{theirs}/log", flags, 0o600)
    assert os.write(fd, b"kept\n") == 5
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert ((theirs / "log").read_text(), owner(theirs / "log")) == ("kept\n", (NOBODY.pw_uid, NOBODY.pw_gid))
    (theirs / "link").symlink_to(secret)
    with pytest.raises(PermissionError):
        identity.opened_as(who, f"{theirs}/link", flags)
    assert os.geteuid() == 0


def test_a_batch_s_logs_are_that_user_s_too(theirs, secret):
    who = identity.look_up("nobody", "")
    log = logfile.Rotated(f"{theirs}/logs/x.log", 8, 2, who)
    for line in (b"one\n", b"two\n", b"three\n", b"four\n"):
        log.take(line)
    assert {path.name: path.read_text() for path in (theirs / "logs").iterdir()} == {
        "x.log": "four\n", "x.log.1": "three\n", "x.log.2": "one\ntwo\n",
    }  # fmt: skip
    assert {owner(path) for path in (theirs / "logs", *(theirs / "logs").iterdir())} == {(NOBODY.pw_uid, NOBODY.pw_gid)}
    (theirs / "logs").rename(theirs / "old")
    (theirs / "logs").symlink_to(secret.parent)
    log.take(b"five\n")
    assert (log.lost, [path.name for path in secret.parent.iterdir()]) == (5, ["secret"])
    log.close()
    with pytest.raises(MemrunError, match="as user nobody: Permission denied"):
        logfile.plain(f"{theirs}/logs/secret", who)


def test_jobs_of_a_file_run_as_somebody_too(memrun, theirs):
    jobs = theirs / "jobs.toml"
    jobs.write_text(f"""
[defaults]
limit = "50M"
log = "{theirs}/logs/{{job}}.log"
env_file = "{theirs}/env"
environment = {{ B = "set" }}

[jobs.one]
user = "nobody"
umask = "027"
nice = 3
command = "id -un; umask; nice; echo $A $B $HOME"

[jobs.two]
command = "id -un; echo $A $B"
""")
    (theirs / "env").write_text("A=file\nB=file\n")
    logs = theirs / "logs"
    logs.mkdir()
    os.chown(logs, NOBODY.pw_uid, NOBODY.pw_gid)
    done = memrun("up", str(jobs))
    assert done.returncode == 0, done
    assert (logs / "one.log").read_text() == f"nobody\n0027\n3\nfile set {NOBODY.pw_dir}\n"
    assert (logs / "two.log").read_text() == "root\nfile set\n"
    assert (owner(logs / "one.log"), owner(logs / "two.log")) == ((NOBODY.pw_uid, NOBODY.pw_gid), (0, 0))


def test_a_user_with_all_the_processes_that_it_may_have(memrun):
    as_somebody = ["--user", "54321", "--group", "54321"]
    with held(*as_somebody) as process:
        process.stdout.readline()
        done = memrun(*as_somebody, "--", "true", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0)))
        process.communicate("\n", timeout=30)
    assert done.returncode == 125
    assert re.fullmatch(
        r"memrun: cannot execute \S+ as user 54321: that user has all the processes that it may. See ulimit -u\n", done.stderr
    )


def test_a_report_of_what_was_not_started_is_that_user_s_too(memrun, theirs, secret):
    for place in (theirs, secret.parent):
        done = memrun("--user", "nobody", "--report", f"{place}/report", "--env-file", "/no/such", "--", "true")
        assert (done.returncode, done.stdout) == (125, "")
    assert json.loads((theirs / "report").read_text())["result"] == "launch"
    assert owner(theirs / "report") == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert [path.name for path in secret.parent.iterdir()] == ["secret"]


def test_variables_from_a_pipe_are_there_at_every_attempt(memrun):
    told, tell = os.pipe()
    os.write(tell, b"A=from a pipe\n")
    os.close(tell)
    words = ["--user", "nobody", "--env-file", f"/dev/fd/{told}", "--restart", "on-failure", "--attempts", "2", "--delay", "0"]
    done = memrun(*words, "--", "sh", "-c", "echo $A; exit 1", pass_fds=[told])
    os.close(told)
    assert done.stdout == "from a pipe\n" * 2


def test_a_pipe_that_nobody_reads_holds_nobody_up(memrun, theirs):
    os.mkfifo(theirs / "fifo")
    done = memrun("--stdout", f"{theirs}/fifo", "--", "true")
    assert (done.returncode, done.stderr) == (125, f"memrun: cannot open {theirs}/fifo to write to it: nobody reads from it\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--user", "no-such-user"], "there is no user 'no-such-user' on this machine"),
        (["--group", "no-such-group"], "there is no group 'no-such-group' on this machine"),
        (["--user", "54321"], "there is no account of user 54321, and so no group. Say which: --group GROUP"),
        (["--user", "4294967295"], "4294967295 is no number of a user or a group"),
        (["--working-dir", "/no/such/dir"], "there is no directory /no/such/dir"),
        (["--working-dir", "/dev/null"], "/dev/null is not a directory"),
        (["--env-file", "/no/such/file"], "cannot read the environment file /no/such/file: No such file or directory"),
        (["--user", "nobody", "--stdout", "/no/such/file"], "cannot open /no/such/file as user nobody to write to it: No such file or directory"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(memrun, words, said):
    done = memrun(*words, "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"memrun: {said}\n")


def test_what_is_closed_to_that_user(memrun, secret, theirs):
    place = secret.parent
    done = memrun("--user", "nobody", "--working-dir", str(place), "--", "true")
    assert (done.returncode, done.stderr) == (
        125,
        f"memrun: cannot enter the directory {place} as user nobody: Permission denied\n",
    )
    program = place / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = memrun("--user", "nobody", "--", str(program))
    assert (done.returncode, done.stderr) == (126, f"memrun: cannot execute {program} as user nobody: Permission denied\n")
    shutil.copy("/bin/true", theirs / "program")
    done = memrun("--user", "nobody", "--env", f"PATH={place}:{theirs}", "--", "program")
    assert (done.returncode, done.stderr) == (0, "")  # as that user's shell would find it


def test_the_command_is_looked_for_where_it_starts(memrun, theirs):
    (theirs / "program").write_text("#!/bin/sh\necho here\n")
    (theirs / "program").chmod(0o755)
    assert memrun("--working-dir", str(theirs), "--", "./program").stdout == "here\n"
    assert memrun("--working-dir", str(theirs), "--", "./no").returncode == 127


@pytest.mark.parametrize(
    "words", [[], ["--oom-score-adj", "300"], ["--user", "nobody"], ["--user", "nobody", "--oom-score-adj", "300"]]
)
def test_held_at_the_limit_all_the_same(judged, hog, theirs, words):
    program = shutil.copy(hog, theirs / "hog")
    limits = ["--limit", "20M", "--on-oom", "pause", "--grow", "2"]
    done, record = judged(*limits, "--report", f"{theirs}/report", *words, "--", str(program), "touch", "60")
    record = json.loads((theirs / "report").read_text())
    assert (record["result"], done.returncode, record["oom_kills"]) == ("success", 0, 0), (done, record)
    assert record["paused"] > 0


def test_the_smallest_limit_is_enough_for_a_change_of_user(memrun, theirs):
    for _ in range(5):
        words = ["--user", "nobody", "--working-dir", str(theirs), "--stdout", f"{theirs}/out"]
        done = memrun("--limit", "512K", *words, "--", "true")
        assert (done.returncode, done.stderr) == (0, "")
