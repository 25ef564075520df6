"""What root prepares on a v2 machine without systemd: a group that is of use to who is started in it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from memrun.cgroup import detect

PERSON = pwd.getpwuid(65534)
#: The one capability is for a Python, or a checkout, that is closed to others: to read, not to write.
ENTER = 'echo 0 > "$0/cgroup.procs"; exec setpriv --reuid {uid} --regid {gid} --clear-groups {read} "$@"'
READ = "--inh-caps +dac_read_search --ambient-caps +dac_read_search"


@pytest.mark.v2
@pytest.mark.skipif(os.geteuid() != 0, reason="root prepares it")
@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="there it is lingering: tests/systemd")
def test_prepared_used_and_taken_back(memrun) -> None:
    top = detect.look().unified_top
    login = f"{top}/memrun/{PERSON.pw_uid}/login"
    done = memrun("doctor", "--setup", PERSON.pw_name, "--apply")
    assert done.returncode == 0, done.stderr
    try:
        enter = ["sh", "-c", ENTER.format(uid=PERSON.pw_uid, gid=PERSON.pw_gid, read=READ), login]
        for words in ([], ["sh", "-c", '"$@"; exit $?', "sh"]):  # alone in there, and below a shell that stays
            inside = [*words, sys.executable, "-m", "memrun", "-v", "--limit", "50M", "--", "true"]
            done = subprocess.run([*enter, *inside], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        assert f"below {top}/memrun/{PERSON.pw_uid}, which memrun's own group is in" in done.stderr
    finally:
        done = memrun("doctor", "--setup", PERSON.pw_name, "--undo", "--apply")
    assert done.returncode == 0, done.stderr
    assert not os.path.exists(f"{top}/memrun")
