"""The promises of docs/threat-model.md: what a job can do to its memrun, and one user to another's. Each is tried."""

from __future__ import annotations

import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from faults.scenarios import soon

from memrun import names
from memrun.batch import summary
from memrun.errors import MemrunError
from memrun.views import logs

MEMRUN = [sys.executable, "-m", "memrun"]
STRANGER = 54399  # a user that nobody is
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
EVIL = "\x1b]0;evil\x07\x1b[31m\x9b2J\n\rroot#"

# What a process that is nobody tries against its parent (a root's memrun), the hand, and its own group. What succeeds is printed.
ATTACK = r"""
import ctypes, os, signal, socket, sys
memrun, sock = int(sys.argv[1]), sys.argv[2]
def hand(pid):
    try:
        return pid.isdigit() and pid != str(os.getpid()) and f"/memrun-{memrun}-" in open(f"/proc/{pid}/cmdline").read()
    except OSError:
        return False  # it has ended
hands = [int(pid) for pid in os.listdir("/proc") if hand(pid)]
groups = [line.rstrip().split(":", 2) for line in open("/proc/self/cgroup")]
def place(controllers, path):
    for top in ([f"/sys/fs/cgroup/{controllers.split(',')[0].removeprefix('name=')}"] if controllers else ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]):
        if os.path.exists(f"{top}{path}/cgroup.procs"):
            return top + path
    return ""
places = {found for _, controllers, path in groups if "/memrun-" in path and (found := place(controllers, path))}
print("groups", len(places), "hands", bool(hands))
def attempt(what, act):
    try:
        if act() is not False:
            print("DONE", what)
    except OSError:
        pass
def write(path, text):
    os.write(os.open(path, os.O_WRONLY), text)
def connect():
    wire = socket.socket(socket.AF_UNIX)
    wire.connect(sock)
for pid in [memrun, *hands]:
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        attempt(f"signal {number} to {pid}", lambda: os.kill(pid, number))
    for file in ("environ", "mem", "maps"):
        attempt(f"read {file}", lambda: open(f"/proc/{pid}/{file}", "rb").read(1))
    attempt("its descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
    libc = ctypes.CDLL(None, use_errno=True)
    attempt("ptrace", lambda: libc.ptrace(16, pid, None, None) == 0)
    attempt("oom_score_adj", lambda: write(f"/proc/{pid}/oom_score_adj", b"1000"))
attempt("the socket", connect)
attempt("the directory of sockets", lambda: os.listdir(os.path.dirname(sock)))
for group in places:
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.high", "memory.swap.max", "memory.oom_control", "freezer.state", "cgroup.freeze", "cgroup.kill", "cgroup.procs"):
        if os.path.exists(f"{group}/{name}"):
            attempt(f"write {name}", lambda: write(f"{group}/{name}", b"0"))
    attempt("leave", lambda: write(f"{os.path.dirname(os.path.dirname(group))}/cgroup.procs", b"0"))
    attempt("leave to the run's", lambda: write(f"{os.path.dirname(group)}/cgroup.procs", b"0"))
    attempt("a group below", lambda: os.mkdir(f"{group}/mine"))
for fd in map(int, os.listdir("/proc/self/fd")):
    attempt(f"descriptor {fd}", lambda: fd > 2 and not os.readlink(f"/proc/self/fd/{fd}").startswith("/proc/"))
attempt("back to root", lambda: os.setuid(0))
"""


@as_root
def test_a_job_of_another_user_can_do_nothing_to_its_memrun():
    """Not signal, trace, read or ask it or its hand, nor touch its limit, nor leave its group; and no descriptor but 0, 1, 2 comes along."""
    runtime = names.directory(make=True)
    python = next((place for place in ("/usr/bin/python3", "/usr/local/bin/python3") if os.access(place, os.X_OK)), "")
    if not python:
        pytest.skip("no python3 that nobody can run")
    script = f'exec {python} -I -c "$0" $PPID {runtime}/$PPID.sock'
    words = ["--limit", "100M", "--user", "nobody", "--working-dir", "/", "--", "sh", "-c", script, ATTACK]
    done = subprocess.run([*MEMRUN, *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.stdout, done.stderr
    first, *rest = done.stdout.splitlines()
    assert re.fullmatch(r"groups [1-9] hands True", first), done
    assert (rest, done.returncode, done.stderr) == ([], 0, "")


@as_root
def test_a_job_of_root_that_leaves_its_group_is_ended_itself():
    """Root's job can leave. Its first process ends with memrun's word for it all the same; who descends from it is not promised."""
    away = "for file in /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ -e $file ] && echo $$ > $file; done; exec sleep 1000"
    done = subprocess.run(
        [*MEMRUN, "-t", "300ms", "--limit", "20M", "--", "sh", "-c", away], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 124, done.stderr


# Names and texts on a terminal


@pytest.fixture
def evil(tmp_path):
    """A program whose file is called that."""
    made = tmp_path / EVIL.replace("/", "")
    made.write_text("#!/bin/sh\nread line\nexit 3\n")
    made.chmod(0o755)
    return made


def obeyed(text):
    """Characters that a terminal would obey."""
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


def test_a_program_s_name_does_nothing_to_a_terminal(memrun, evil):
    with subprocess.Popen(
        [*MEMRUN, "-v", "--limit", "20M", "--", str(evil)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        lines = process.stderr.readline()
        name = soon_listed(memrun, process.pid)
        said = [
            memrun(*words)
            for words in (["ps"], ["show", name], ["logs", name], ["events", name], ["raise", EVIL, "1G"], ["wait", EVIL])
        ]
        process.communicate_lines = process.communicate(b"\n", timeout=30)[1]
    lines = (lines + process.communicate_lines).decode()
    assert process.returncode == 3
    assert "exited with status 3" in lines
    for text in (lines, *(done.stdout + done.stderr for done in said)):
        assert not obeyed(text), text


def soon_listed(memrun, pid):
    """The name of that memrun's job, once it is listed."""
    found = []

    def look():
        rows = [line.split() for line in memrun("ps").stdout.splitlines()]
        found[:] = [words[0] for words in rows if words and "evil" in words[0]]
        return not found

    assert not soon(look, 10), f"memrun {pid} is not listed"
    return found[0]


def test_a_process_s_own_name_does_nothing_to_a_terminal(memrun):
    """It may call itself anything; here one that cannot be attached, because it is an ancestor, or has ended."""
    code = "open('/proc/self/comm', 'w').write('\\x1b[31mevil'); import subprocess, sys, os; sys.exit(subprocess.call(sys.argv[1:] + [str(os.getpid())]))"
    words = [sys.executable, "-c", code, *MEMRUN, "attach", "--limit", "20M"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 125
    assert "evil" in done.stderr
    assert not obeyed(done.stderr), done.stderr


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ([b"plain\ttext\r\n"], b"plain\ttext\r\n"),
        ([b"\x1b[1;31mred\x1b[0m"], b"\x1b[1;31mred\x1b[0m"),
        ([b"\x1b[1;3", b"1mred\x1b", b"[m"], b"\x1b[1;31mred\x1b[m"),
        ([b"\x1b]0;title\x07", b"\x1b[2J\x1b[H", b"\x1bc"], b"?]0;title??[2J?[H?c"),
        ([b"\x1b", b"]52;c;", b"x\x07"], b"?]52;c;x?"),
        (["é\x9b2J\x85".encode()[:3], "é\x9b2J\x85".encode()[3:]], "é?2J?".encode()),
        ([b"\x00\x08\x0e\x7f"], b"????"),
        ([b"torn \x1b[1"], b"torn ?[1"),
    ],
)
def test_a_log_does_nothing_to_a_terminal(pieces, shown):
    tamed = logs.Tamed()
    assert b"".join(map(tamed.take, pieces)) + tamed.take(b"", last=True) == shown


def test_a_log_is_tame_on_a_terminal_only(tmp_path, monkeypatch):
    from cli.fakerun import FakeRun

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    log = tmp_path / "job.log"
    log.write_bytes(b"\x1b[2Jnew\n")
    fake = FakeRun(tmp_path)
    try:
        fake.row(log=[str(log)])
        ours, theirs = pty.openpty()
        subprocess.run([*MEMRUN, "logs", "job"], stdout=theirs, timeout=30, check=True)
        assert os.read(ours, 100) == b"?[2Jnew\r\n"
        os.close(ours)
        os.close(theirs)
        assert subprocess.run([*MEMRUN, "logs", "job"], stdout=subprocess.PIPE, timeout=30).stdout == b"\x1b[2Jnew\n"
    finally:
        fake.close()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a b", "a\x1b[31m", "", "x" * 65, "a\nb"])
def test_a_name_leads_nowhere(memrun, name):
    """It becomes part of paths."""
    done = memrun("--name", name, "--limit", "20M", "--", "true")
    assert done.returncode == 125
    assert not obeyed(done.stderr)


# One user and another's


def as_stranger(act):
    """What a function says, as text, or the name of the error that it ends with: in a forked copy of us that is another user (who may not be
    able to start our interpreter)."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.environ.pop("XDG_RUNTIME_DIR", None)
            said = str(act())
        except OSError as e:
            said = type(e).__name__
        finally:
            os.write(ours, said.encode())
            os._exit(0)
    os.close(ours)
    os.waitpid(pid, 0)
    with os.fdopen(theirs) as f:
        return f.read()


@as_root
@pytest.mark.parametrize("how", ["somebody else's", "open", "a link", "a file"])
def test_a_directory_that_was_put_there_first_is_not_used(tmp_path, how, monkeypatch):
    """/tmp/memrun-UID: no socket and no claim then, rather than one that somebody else can reach; a lock by name is refused."""
    place = Path(f"/tmp/memrun-{STRANGER}")
    other = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        if how == "a link":
            other.chmod(0o700)
            os.chown(other, STRANGER, STRANGER)
            place.symlink_to(other)
        elif how == "a file":
            place.touch()
        else:
            place.mkdir(mode=0o777)
            place.chmod(0o777)
            if how == "open":
                os.chown(place, STRANGER, STRANGER)
        assert as_stranger(lambda: (names.directory(make=True), names.lasting_directory())) == "(None, None)"
    finally:
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
        other.rmdir()


@as_root
def test_another_user_is_not_answered(memrun, tmp_path):
    """The modes keep others out; where somebody has opened them up, the kernel's word on who asks still does."""
    words = ["--limit", "20M", "--quiet", "--name", f"mine-{os.getpid()}", "--", "sleep", "1000"]
    runtime = Path(tempfile.mkdtemp(dir="/tmp"))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(runtime)}
    with subprocess.Popen([*MEMRUN, *words], env=environ) as process:
        sock = runtime / "memrun" / f"{process.pid}.sock"
        assert not soon(lambda: not answers(sock), 10)
        assert (sock.stat().st_mode & 0o777, sock.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        try:
            runtime.chmod(0o755)
            closed = as_stranger(lambda: asked(sock))
            sock.parent.chmod(0o755)
            sock.chmod(0o666)
            opened = as_stranger(lambda: asked(sock))
        finally:
            sock.parent.chmod(0o700)
            process.terminate()
    shutil.rmtree(runtime)
    assert closed == "PermissionError"
    assert opened in {"b''", "ConnectionResetError", "BrokenPipeError"}


def asked(sock):
    """The first words of an answer."""
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(str(sock))
        wire.sendall(b'{"verb": "ps"}\n')
        return wire.recv(12)


def answers(sock):
    try:
        return asked(sock).startswith(b'{"ok": true')
    except OSError:
        return False


@pytest.mark.parametrize("kind", ["--joblog", "--log-target", "--stdout-link", "--report"])
def test_a_link_in_the_place_of_a_file_is_not_written_through(memrun, tmp_path, kind):
    """In a directory of somebody else's it may be anything by now."""
    target = tmp_path / "precious"
    target.write_text("precious\n")
    link = tmp_path / "link"
    link.symlink_to(target)
    if kind == "--joblog":
        with pytest.raises(MemrunError):
            summary.joblog(str(link))
    elif kind == "--report":
        assert memrun("--report", str(link), "--limit", "20M", "--", "true").returncode == 0
        assert not link.is_symlink()
    elif kind == "--log-target":
        assert memrun("--log-target", str(link), "--limit", "20M", "--", "true").returncode == 125
    else:
        (tmp_path / "jobs.toml").write_text(
            f'[batch]\nmemory = "50M"\n[jobs.a]\nlimit = "20M"\ncommand = ["echo", "x"]\nlog = "{link}"\n'
        )
        assert memrun("up", str(tmp_path / "jobs.toml")).returncode != 0
    assert target.read_text() == "precious\n"
