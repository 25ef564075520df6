"""In cron: a quiet success, one readable page of a failure, no overlapping runs. With Debian's own cron, where that is to be had."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRON = os.environ.get("MEMRUN_CRON") or shutil.which("cron", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
BARE = {
    "PATH": "/usr/bin:/bin",
    "PYTHONPATH": str(ROOT),
    "SHELL": "/bin/sh",
}  # what cron leaves: no TERM, no session, here not even a HOME
PAGE = re.compile(
    r"""memrun: hungry\d*: oom-kill: killed at the limit of 20M \(peak [\d.]+M\) after [\d.]+ s; largest: hog \(pid \d+\) [\d.]+M; give it more: --limit 40M

command: .*hog step 1000 20 60'

the last 5 of \d+ lines of its output:
step \d+
step \d+
step \d+
step \d+
step \d+

memory, up to 20M \(its limit\), over [\d.]+ s:
[_.\-=+*%\#]+\#
"""
)


def bare(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "memrun", *words],
        env=BARE | more,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        timeout=60,
    )


def test_nothing_of_a_success(tmp_path):
    done = bare("--mail-style", "--limit", "50M", "--", "sh", "-c", "echo noise; echo more >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_page_of_a_failure(hog):
    words = ["--mail-style", "--mail-lines", "5", "--limit", "20M", "--name", f"hungry{os.getpid()}"]
    done = bare(*words, "--", "sh", "-c", f"exec {hog} step 1000 20 60")
    assert (done.returncode, done.stdout) == (137, "")
    assert PAGE.fullmatch(done.stderr), done.stderr


def test_what_is_written_more_than_a_pipeful_goes_to_disk(tmp_path):
    """Five million bytes, of which the last lines stay; and a trivial failure needs no event loop."""
    done = bare("--mail-style", "--mail-lines", "2", "--limit", "100M", "--", "sh", "-c", "seq 800000; exit 3", LC_ALL="C.UTF-8")
    assert done.returncode == 3
    assert "the last 2 of 800000 lines of its output:\n799999\n800000\n\n" in done.stderr
    assert re.search(r"[▁-█]+\n$", done.stderr)
    done = bare("--mail-style", "--", "sh", "-c", "printf 'no end\\033[1m\\007'; exit 4")
    assert "\n\nits output:\nno end?\n\nmemory, up to " in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_another_user_can_open_his_own_output():
    done = bare(
        "--mail-style", "--user", "nobody", "--working-dir", "/", "--", "sh", "-c", "echo here > /dev/stdout; id -un; exit 3"
    )
    assert "its output:\nhere\nnobody\n" in done.stderr, done.stderr


def test_who_holds_the_pipe_open_is_not_waited_for():
    done = bare("--mail-style", "--", "sh", "-c", "echo here; sleep 1000 & exit 3")
    assert done.returncode == 3
    assert "its output:\nhere\n" in done.stderr


def test_restarts_are_told_among_the_output():
    done = bare(
        "--mail-style", "--restart", "on-failure", "--attempts", "2", "--retry-delay", "1ms", "--", "sh", "-c", "echo in; exit 3"
    )
    assert "its output:\nin\nmemrun: sh: restarting: restarts after exit-code in" in done.stderr
    assert "limit of infinity\nin\nmemrun: sh: exhausted: 2 attempts are used up\n\nmemory" in done.stderr


@pytest.mark.parametrize("other", ["--quiet", "--stdout=x", "--stderr=x"])
def test_what_contradicts_it(other):
    done = bare("--mail-style", other, "--", "true")
    assert (done.returncode, done.stderr) == (125, f"memrun: {other.partition('=')[0]} and --mail-style contradict each other\n")


def test_a_batch(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text('[defaults]\nlimit = "20M"\n[jobs.a]\ncommand = "echo fine"\n')
    done = bare("up", "--mail-style", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    file.write_text('[defaults]\nlimit = "20M"\n[jobs.b]\ncommand = "echo oh; exit 3"\n')
    done = bare("up", "--mail-style", str(file))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(
        r"\n0 succeeded, 1 failed, in .*\n\ncommand: memrun up .*\n\nits output:\nb \| oh\nmemrun: b: exit-code: ", done.stderr
    )


SETTING = """
mount -t tmpfs none /run && mount -t tmpfs none /usr/sbin && mkdir -p /var/spool && mount -t tmpfs none /var/spool &&
mkdir -p /var/spool/cron && mkdir -m 1730 /var/spool/cron/crontabs && install -m 600 "$1/crontab" /var/spool/cron/crontabs/root &&
cp -a /etc "$1/etc" && cp "$1/pam" "$1/etc/pam.d/cron" && : > "$1/etc/crontab" && mount --bind "$1/etc" /etc &&
install -m 755 "$1/sendmail" /usr/sbin/sendmail && exec "$2" -f
"""


@pytest.fixture
def crontab(tmp_path):
    """crontab(lines) -> cron, which runs them at once (@reboot), and mails to tmp_path/mail-*."""
    if os.geteuid() or not CRON:
        pytest.skip("wants root, and Debian's cron")
    started = []

    def start(lines):
        (tmp_path / "pam").write_text(
            "account required pam_permit.so\nsession required pam_permit.so\nauth required pam_permit.so\n"
        )
        script = f"#!/bin/sh\ncat > {tmp_path}/part.$$ && mv {tmp_path}/part.$$ {tmp_path}/mail-$$\n"
        (tmp_path / "sendmail").write_text(script)
        (tmp_path / "crontab").write_text(f"MAILTO=root\nPYTHONPATH={ROOT}\n" + "".join(f"@reboot {line}\n" for line in lines))
        shutil.copy(CRON, tmp_path / "cron")  # what is mounted over /usr/sbin hides it
        words = ["unshare", "-m", "sh", "-c", SETTING, "setting", str(tmp_path), str(tmp_path / "cron")]
        started.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}))
        return started[-1]

    yield start
    for one in started:
        one.terminate()
        one.wait(20)


def until(what):
    deadline = time.monotonic() + 40
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_cron_itself(crontab, tmp_path, hog):
    gate, marker = tmp_path / "gate", tmp_path / "marker"
    os.mkfifo(gate)
    memrun = f"{sys.executable} -m memrun --mail-style"
    alone = f"{memrun} --lock=alone -- sh -c 'echo noise; cat {gate}'"
    cron = crontab([
        f"{memrun} -- sh -c 'echo noise; : > {marker}'",
        f"{memrun} --mail-lines 5 --limit 20M --name hungry -- sh -c 'exec {hog} step 1000 20 60'",
        alone,
        alone,
    ])  # fmt: skip
    mails = until(lambda: len(found := list(tmp_path.glob("mail-*"))) == 2 and marker.exists() and found)
    with open(gate, "w"):
        pass
    until(lambda: not Path(f"/proc/{cron.pid}/task/{cron.pid}/children").read_text())
    assert len(list(tmp_path.glob("mail-*"))) == 2  # nothing of the two that did what they were there for
    bodies = sorted(mail.read_text().partition("\n\n") for mail in mails)
    (overlap,) = [body for _, _, body in bodies if "lock" in body]
    (page,) = [body for _, _, body in bodies if "lock" not in body]
    assert re.fullmatch(
        r"memrun: not started: another run has the lock alone \(pid \d+\)\. --lock-wait TIME waits for it\n", overlap
    )
    assert PAGE.fullmatch(page), page
