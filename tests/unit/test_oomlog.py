"""The kernel's log of OOM kills, as recorded from kernels of both kinds."""

from __future__ import annotations

import os
import socket

import pytest

from memrun import job, oomlog

PAGE = 4096  # of the machines that these lines come from

V1 = """\
Memory cgroup stats for /batch.slice/4f0b/memrun-23844-5e4f/tail.1:
rss_huge 0
total_cache 16384
total_rss 5144576
total_rss_huge 0
total_unevictable 0
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[  23846]     0 23846     1956     1643     1248      395         0    53248        0             0 tail
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/batch.slice/4f0b/memrun-23844-5e4f/tail.1,\
task_memcg=/batch.slice/4f0b/memrun-23844-5e4f/tail.1,task=tail,pid=23846,uid=0
Memory cgroup out of memory: Killed process 23846 (tail) total-vm:7824kB, anon-rss:4992kB, file-rss:1580kB, shmem-rss:0kB, UID:0 \
pgtables:52kB oom_score_adj:0
""".splitlines()
V1_ODD_NAME = """\
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[  23964]     0 23964     1090      767       64      703         0    53248        0             0 bash
[  23967]     0 23967     8260     7943     7520      423         0   102400        0             0 a) 5 (b
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/batch.slice/4f0b/memrun-23962-bc14/bash.1,\
task_memcg=/batch.slice/4f0b/memrun-23962-bc14/bash.1,task=a) 5 (b,pid=23967,uid=0
Memory cgroup out of memory: Killed process 23967 (a) 5 (b) total-vm:33040kB, anon-rss:30080kB, file-rss:1692kB, shmem-rss:0kB, UID:0 \
pgtables:100kB oom_score_adj:0
""".splitlines()
V2_72 = """\
Memory cgroup stats for /memrun-766-c039/tail.1:
anon 5144576
file 0
swpin_zero 0
Memory cgroup min protection 0kB -- low protection 0kB
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name
[    768]     0   768     1951     1656     1255      401         0    53248        0             0 tail
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/memrun-766-c039/tail.1,task_memcg=/memrun-766-c039/tail.1,task=tail,pid=768,uid=0
Memory cgroup out of memory: Killed process 768 (tail) total-vm:7804kB, anon-rss:5020kB, file-rss:1604kB, shmem-rss:0kB, UID:0 \
pgtables:52kB oom_score_adj:0
Tasks in /memrun-766-c039/tail.1 are going to be killed due to memory.oom.group set
Memory cgroup out of memory: Killed process 768 (tail) total-vm:7804kB, anon-rss:5020kB, file-rss:1604kB, shmem-rss:0kB, UID:0 \
pgtables:52kB oom_score_adj:0
""".splitlines()
V2_61 = """\
Memory cgroup stats for /memrun-707-1ee1/tail.1:
anon 5140480
Tasks state (memory values in pages):
[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[    709]     0   709     1951     1651    40960        0             0 tail
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/memrun-707-1ee1/tail.1,task_memcg=/memrun-707-1ee1/tail.1,task=tail,pid=709,uid=0
Memory cgroup out of memory: Killed process 709 (tail) total-vm:7804kB, anon-rss:5020kB, file-rss:1584kB, shmem-rss:0kB, UID:0 \
pgtables:40kB oom_score_adj:0
""".splitlines()


@pytest.fixture(autouse=True)
def _page_size(monkeypatch):
    monkeypatch.setattr(oomlog, "PAGE", PAGE)


@pytest.mark.parametrize(
    ("lines", "group", "largest", "anon"),
    [
        (V1, "memrun-23844-5e4f/tail.1", [(23846, "tail", 1643 * PAGE)], 5144576),
        (V1_ODD_NAME, "memrun-23962-bc14/bash.1", [(23967, "a) 5 (b", 7943 * PAGE), (23964, "bash", 767 * PAGE)], None),
        (V2_72, "memrun-766-c039/tail.1", [(768, "tail", 1656 * PAGE)], 5144576),
        (V2_61, "memrun-707-1ee1/tail.1", [(709, "tail", 1651 * PAGE)], 5140480),
    ],
)
def test_recorded_kills(lines, group, largest, anon):
    said = oomlog.parse(lines, group)
    assert (said.largest, said.anon) == (largest, anon)


@pytest.mark.parametrize("lines", [V1, V2_72, V2_61])
def test_somebody_else_s_kill_is_not_ours(lines):
    for group in ("memrun-1-aaaa/tail.1", "memrun-23844-5e4f/tail.2", "emrun-766-c039/tail.1", "1ee1/tail.1", "tail"):
        assert oomlog.parse(lines, group).largest == []


def test_ours_among_those_of_others():
    said = oomlog.parse([*V1, *V2_72, *V2_61], "memrun-766-c039/tail.1")
    assert said.largest == [(768, "tail", 1656 * PAGE)]


def test_the_last_kill_counts():
    again = [line.replace("  1656 ", "   999 ").replace("anon 5144576", "anon 77") for line in V2_72]
    said = oomlog.parse([*V2_72, *again], "memrun-766-c039/tail.1")
    assert (said.largest[0][2], said.anon) == (999 * PAGE, 77)


def test_a_group_below_ours_is_ours():
    lines = [line.replace("tail.1", "tail.1/inner") for line in V2_72]
    assert oomlog.parse(lines, "memrun-766-c039/tail.1").largest


@pytest.mark.parametrize("name", ["a,b", "a=b", "a,task_memcg=", "a,task=b", "[x]"])
def test_names_with_commas_and_equals_signs(name):
    lines = [line.replace("tail.1", f"{name}.1") for line in V2_72]
    assert oomlog.parse(lines, f"memrun-766-c039/{name}.1").largest == [(768, "tail", 1656 * PAGE)]


@pytest.mark.parametrize("evil", [",task_memcg=/x", "oom-kill:,", "[  pid  ]", "anon 5", "Killed process"])
def test_a_process_s_name_cannot_hide_it(evil):
    lines = [
        line.replace("task=tail", f"task={evil}").replace("(tail)", f"({evil})").replace("0 tail", f"0 {evil}") for line in V2_72
    ]
    said = oomlog.parse(lines, "memrun-766-c039/tail.1")
    assert [(pid, rss) for pid, _, rss in said.largest] == [(768, 1656 * PAGE)]


@pytest.mark.parametrize("name", ["7up", "12 monkeys", "5", "a b c", "-1", "[x]", ""])
def test_names_as_processes_choose_them(name):
    lines = [line.replace("0 tail", f"0 {name}") for line in V2_72]
    assert oomlog.parse(lines, "memrun-766-c039/tail.1").largest[0][1] == name.strip()


def test_without_the_table_the_victim_s_own_line_must_do():
    lines = [line for line in V2_61 if not line.startswith("[")]
    said = oomlog.parse(lines, "memrun-707-1ee1/tail.1")
    assert said.largest == [(709, "tail", (5020 + 1584) * 1024)]
    older = [line.partition(", UID")[0].replace(") total", "), total") for line in lines]  # as 4.19 to 5.3 write it
    assert oomlog.parse(older, "memrun-707-1ee1/tail.1").largest == said.largest


def test_nothing_logged_is_nothing_known():
    said = oomlog.parse([], "memrun-1-a/x.1")
    assert (said.largest, said.anon) == ([], None)


def test_a_log_that_may_not_be_read(monkeypatch):
    monkeypatch.setattr(job, "KMSG", "/nowhere/kmsg")
    assert job.kernel_log() == -1


def test_records_as_the_device_gives_them(tmp_path):
    """Each read is a record 'priority,number,time,flags;text' with continuation lines; a pipe in packet mode does the same."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    for text in V2_61:
        os.write(writer, f"4,1234,5678,-;{text}\n SUBSYSTEM=x\n".encode())
    log = oomlog.Log(reader)
    assert log.report(0, "memrun-707-1ee1/tail.1", 1).largest == [(709, "tail", 1651 * PAGE)]
    os.close(reader)
    os.close(writer)


def test_who_listens_later_hears_what_is_logged_later():
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    log = oomlog.Log(reader)
    first = log.end()
    for text in V2_61:
        os.write(writer, f"4,1,1,-;{text}\n".encode())
    second = log.end()
    victim = V2_61[-1].replace("709", "710")
    os.write(writer, f"4,1,1,-;{victim}\n".encode())
    assert log.report(second, "memrun-1-a/x.1", 1).largest == [(710, "tail", (5020 + 1584) * 1024)]
    assert log.report(first, "memrun-707-1ee1/tail.1", 1).largest == [(709, "tail", 1651 * PAGE)]  # also when asked later
    assert log.end() == second + 1
    os.close(reader)
    os.close(writer)


def test_a_storm_in_the_log_is_not_kept():
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_DIRECT)
    log = oomlog.Log(reader)
    since = log.end()
    for number in range(5 * oomlog.MOST):
        os.write(writer, b"4,1,1,-;noise\n")
        if number % 8 == 0:
            log.end()
    for text in V2_61:
        os.write(writer, f"4,1,1,-;{text}\n".encode())
    assert log.report(since, "memrun-707-1ee1/tail.1", 1).largest == [(709, "tail", 1651 * PAGE)]
    assert len(log._lines) < 2 * oomlog.MOST
    os.close(reader)
    os.close(writer)


class TestTooMuchToLog:
    """All but the "Killed process" lines is rate-limited; without the others nothing says whose they are, but their number."""

    VICTIM = V2_61[-1]
    NAMED = (709, "tail", (5020 + 1584) * 1024)

    def test_as_many_as_were_counted_are_ours(self):
        assert oomlog.parse([self.VICTIM], "memrun-1-a/x.1", 1).largest == [self.NAMED]

    def test_more_or_less_than_were_counted_are_nobody_s(self):
        assert oomlog.parse([self.VICTIM], "memrun-1-a/x.1", 2).largest == []
        assert oomlog.parse([self.VICTIM] * 3, "memrun-1-a/x.1", 2).largest == []

    def test_the_same_one_twice_is_one(self):
        """With the whole group dying together the kernel kills, logs and counts the first one twice."""
        assert oomlog.parse([self.VICTIM] * 2, "memrun-1-a/x.1", 2).largest == [self.NAMED]

    def test_what_is_said_to_be_another_s_is_not_counted(self):
        assert oomlog.parse([*V2_61, self.VICTIM], "memrun-1-a/x.1", 1).largest == [self.NAMED]
        assert oomlog.parse(V2_61, "memrun-1-a/x.1", 1).largest == []


def test_only_the_kernel_s_own_lines_count(tmp_path):
    """Whatever a program writes to /dev/kmsg has another facility than the kernel's 0."""
    said = "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/g,task_memcg=/g,task=x,pid=1,uid=0"
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with read, write:
        read.setblocking(False)
        for record in (f"4,1,1,-;{said}\n", f"12,2,2,-;{said} forged\n", "garbage", "6,3,3,-;last\n SUBSYSTEM=x\n"):
            write.send(record.encode())
        log = oomlog.Log(read.fileno())
        assert log.end() == 2
        assert log._lines == [said, "last"]
