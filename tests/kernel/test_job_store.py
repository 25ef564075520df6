"""The job store where SQLite's shared memory cannot be had (NFS, Lustre, 9p), and where two machines run one job file."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys

import pytest

MEMRUN = [sys.executable, "-m", "memrun"]
NO_SHM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int refused(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = fd < 0 ? -1 : readlink(link, path, sizeof path - 1);
    return n > 4 && !memcmp(path + n - 4, "-shm", 4);
}

#define REFUSE(NAME) \
    void *NAME(void *at, size_t size, int prot, int flags, int fd, off_t from) { \
        static void *(*real)(void *, size_t, int, int, int, off_t); \
        if (!real) real = dlsym(RTLD_NEXT, #NAME); \
        if (refused(fd)) { errno = ENODEV; return MAP_FAILED; } \
        return real(at, size, prot, flags, fd, from); \
    }
REFUSE(mmap)
REFUSE(mmap64)
"""
TWO = """
[jobs.first]
command = "echo first >> ran"
limit = "50M"
[jobs.second]
command = "echo second >> ran; echo > started; read line < gate"
limit = "50M"
depends_on = ["first"]
"""


@pytest.fixture(scope="module")
def no_shm(tmp_path_factory):
    """An environment in which mmap of any *-shm fails, as it does on a network file system."""
    cc = shutil.which("cc") or shutil.which("gcc")
    if cc is None:
        pytest.skip("no C compiler here")
    place = tmp_path_factory.mktemp("preload")
    (place / "no_shm.c").write_text(NO_SHM)
    subprocess.run([cc, "-shared", "-fPIC", "-o", place / "no_shm.so", place / "no_shm.c", "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(place / "no_shm.so")}


class Batch:
    """A job file whose second job says that it runs, and goes on when it is let. Both FIFOs are held open, so that nobody waits for a reader."""

    def __init__(self, place):
        self.file, self.place = place / "jobs.toml", place
        self.file.write_text(TWO)
        self.processes = []
        for name in ("started", "gate"):
            os.mkfifo(place / name)
        self.started, self.gate = (os.open(place / name, os.O_RDWR) for name in ("started", "gate"))

    def begin(self, env=None):
        """Run it until its second job runs."""
        process = subprocess.Popen([*MEMRUN, "up", str(self.file)], stderr=subprocess.PIPE, text=True, env=env)
        self.processes.append(process)
        assert select.select([self.started], [], [], 60)[0], "the second job does not run"
        os.read(self.started, 1)
        return process

    def end(self, process):
        """Let the second job go on, and all of it end."""
        os.write(self.gate, b"on\n")
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said

    def up(self, *words, env=None, before=()):
        return subprocess.run(
            [*before, *MEMRUN, "up", *words, str(self.file)], capture_output=True, text=True, env=env, timeout=60
        )

    @property
    def ran(self):
        return (self.place / "ran").read_text().split()

    def close(self):
        for process in self.processes:
            with process:
                process.terminate()
        os.close(self.started)
        os.close(self.gate)


@pytest.fixture
def batch(tmp_path):
    made = Batch(tmp_path)
    yield made
    made.close()


def test_without_shared_memory_a_rollback_journal_does(batch, no_shm):
    process = batch.begin(no_shm)
    seen = batch.up("--dry-run", env=no_shm)
    assert "first: is done (success)" in seen.stdout  # others may read meanwhile
    second = batch.up(env=no_shm)
    assert (second.returncode, f"being run already, by memrun with pid {process.pid}" in second.stderr) == (125, True)
    process.kill()
    batch.end(batch.begin(no_shm))  # what was interrupted runs again, what was done does not
    assert batch.ran == ["first", "second", "second"]
    assert batch.up(env=no_shm).returncode == batch.up().returncode == 0  # and with shared memory, too
    assert batch.ran == ["first", "second", "second"]


def test_what_a_killed_memrun_has_left_in_wal_mode_is_read_without_shared_memory(batch, no_shm):
    batch.begin().kill()
    batch.end(batch.begin(no_shm))
    assert batch.ran == ["first", "second", "second"]


def test_another_machine_is_refused_by_name(batch):
    process = batch.begin()
    second = batch.up(before=["unshare", "--uts", "sh", "-c", 'hostname beta && exec "$@"', "sh"])
    if "unshare" in second.stderr:
        pytest.skip("no UTS namespace to be had")
    batch.end(process)
    assert second.returncode == 125
    assert f"jobs.toml is being run already, on {os.uname().nodename}, by memrun with pid {process.pid} there" in second.stderr
