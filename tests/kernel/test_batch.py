"""Job files on a real kernel: the budget seen from outside, results, interruption, signals. The same on v1 and v2."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memrun.batch import openfiles
from memrun.cgroup import detect

MEMRUN = [sys.executable, "-m", "memrun"]
JOBS = int(os.environ.get("MEMRUN_TEST_JOBS", "40"))  # 300 in a long run
KILLS = int(os.environ.get("MEMRUN_TEST_KILLS", "6"))  # 50 in a long run
MIB = 1 << 20
EXAMPLES = Path(__file__).parents[2] / "examples"


class File:
    """A job file, and memruns that run it."""

    def __init__(self, folder):
        self.folder = folder
        self.path = folder / "jobs.toml"
        self.report = folder / "report.json"

    def write(self, text):
        self.path.write_text(text)
        return self

    def start(self, *words):
        return subprocess.Popen(
            [*MEMRUN, "up", str(self.path), "--report", str(self.report), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
        )  # fmt: skip

    def up(self, *words):
        process = self.start(*words)
        out, err = process.communicate(timeout=110)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def records(self):
        return {record["name"]: record for record in json.loads(self.report.read_text())["jobs"]}

    def say(self, verb, *words):
        return subprocess.run([*MEMRUN, verb, *words], capture_output=True, text=True, timeout=60)

    def rows(self):
        rows = json.loads(self.say("ps", "--json").stdout)
        return {row["name"]: row for row in rows if row["file"] == str(self.path)}

    def until(self, name, state, seconds=30):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            row = self.rows().get(name)
            if row and row["state"] == state:
                return row
            time.sleep(0.05)  # asked from outside, as a user would
        raise AssertionError(f"never {state}: {self.rows()}")


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


def _names(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []  # it is over


def limits_below(pid):
    """Limits of the groups of one memrun's jobs, read from the tree as anybody could."""
    setup = detect.look()
    name = "memory.limit_in_bytes" if setup.version == "v1" else "memory.max"
    found = []
    for run in Path(setup.memory).glob(f"memrun-{pid}-*"):
        for group in [run / name for name in _names(run)]:
            try:
                text = (group / name).read_text().strip() if group.is_dir() else ""
                if text and (setup.version == "v1" or (group / "cgroup.procs").read_text()):
                    found.append(0 if text == "max" else int(text))
            except OSError:
                continue
    return [limit for limit in found if limit < 1 << 50]


def total_below(pid):
    """Their sum, at one moment: files are read one after the other, and a job that ends in between gives its memory to one that is
    read later. So only what two walks agree on counts; a budget that is overdrawn is so for longer than that."""
    first = limits_below(pid)
    return sum(first) if first == limits_below(pid) else 0


def test_needs_order_results_and_status(file):
    file.write("""
[batch]
memory = "200M"
[defaults]
limit = "20M"
[jobs.one]
command = "echo one >> order"
[jobs.two]
command = ["sh", "-c", "echo two >> order; exit 3"]
depends_on = ["one"]
[jobs.three]
command = "echo three >> order"
depends_on = { two = "finished" }
[jobs.four]
command = "echo four >> order"
depends_on = ["two"]
[jobs.missing]
command = ["/no/such/command"]
""")
    done = file.up()
    assert (file.folder / "order").read_text().split() == ["one", "two", "three"]
    found = {name: (record["result"], record["exit_code"]) for name, record in file.records().items()}
    assert found == {
        "one": ("success", 0), "two": ("exit-code", 3), "three": ("success", 0), "four": ("skipped", None), "missing": ("launch", None),
    }  # fmt: skip
    assert done.returncode == 1
    assert "needs two" in done.stderr


def test_finished_stays_finished(file):
    file.write("""
[batch]
memory = "100M"
[defaults]
limit = "20M"
[jobs.good]
command = "echo good >> ran"
[jobs.bad]
command = "echo bad >> ran; test -e fixed"
[jobs.after]
command = "echo after >> ran"
depends_on = ["bad"]
""")
    assert file.up().returncode == 1
    again = file.up()
    assert again.returncode == 1
    assert sorted((file.folder / "ran").read_text().split()) == ["bad", "good"]
    (file.folder / "fixed").touch()
    assert file.up("--only-failed").returncode == 0
    assert sorted((file.folder / "ran").read_text().split()) == ["after", "bad", "bad", "good"]
    assert file.up("--fresh").returncode == 0
    assert len((file.folder / "ran").read_text().split()) == 7
    assert file.up().returncode == 0
    assert len((file.folder / "ran").read_text().split()) == 7
    said = file.up("--dry-run")
    assert said.returncode == 0
    assert "0 of 3 jobs would be run" in said.stdout


def test_a_budget_is_never_exceeded_and_every_job_is_accounted_for(file, hog):
    """Random limits and behaviours; the sum of the limits is read from the tree while it runs."""
    rng = random.Random(JOBS)
    ways = {
        "fine": ("touch 4", "success"),
        "leak": ("touch 200", "oom-kill"),
        "three": ("exit 3", "exit-code"),
        "crash": ("kill -SEGV $$", "signal"),
        "hang": ("sleep 1000", "timeout"),
        "daemon": ("setsid sleep 1000 & exit 0", "success"),
    }
    text = ['[batch]\nmemory = "300M"\n[defaults]\nstop_timeout = "100ms"\n']
    wanted = {}
    for number in range(JOBS):
        way = rng.choice(list(ways))
        words, wanted[f"{way}-{number}"] = ways[way]
        command = f"{hog} {words}" if words.startswith("touch") else words
        text.append(f"[jobs.{way}-{number}]\ncommand = '''{command}'''\nlimit = \"{rng.randint(12, 150)}M\"\n")
        text.append("timeout = '1s'\n" if way == "hang" else "")
    file.write("".join(text))
    process = file.start()
    highest = looks = 0
    while process.poll() is None:
        highest, looks = max(highest, total_below(process.pid)), looks + 1
        time.sleep(0.002)  # there may be one processor only
    process.communicate()
    assert {name: record["result"] for name, record in file.records().items()} == wanted
    assert 100 * MIB < highest <= 300 * MIB, (highest, looks)
    assert process.returncode == 1


def test_a_second_up_is_refused_with_the_pid_of_the_first(file):
    file.write('[jobs.long]\ncommand = "echo there; sleep 100"\nlimit = "20M"\n')
    first = file.start("-v")
    file.until("long", "RUNNING")
    second = file.up()
    assert second.returncode == 125
    assert f"pid {first.pid}" in second.stderr
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "stopping" in err
    assert file.records()["long"]["result"] == "stopped"


NEEDS_A_WHILE = """
[jobs.long]
limit = "20M"
command = '''exec 2>/dev/null; trap "until test -e gate; do sleep 0.02; done; echo clean > told; exit 0" TERM; echo ready; while :; do sleep 0.02; done'''
"""


@pytest.fixture
def like_timeout(file):
    """A batch that was ended as GNU timeout ends it: it signals its child, and then the process group, memrun's three processes among it."""
    file.write(NEEDS_A_WHILE)
    process = subprocess.Popen(
        [*MEMRUN, "up", str(file.path), "--report", str(file.report)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=file.folder, start_new_session=True,
    )  # fmt: skip
    try:
        assert "ready" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        os.killpg(process.pid, signal.SIGTERM)
        assert "stopping" in process.stderr.readline()
        file.rows()  # answered by who has heard of both by now
        yield process
    finally:
        process.kill()
        process.communicate()


def test_one_request_to_stop_that_comes_as_several_signals_leaves_the_jobs_their_grace(file, like_timeout):
    (file.folder / "gate").touch()
    _, err = like_timeout.communicate(timeout=30)
    assert (file.folder / "told").read_text() == "clean\n"
    assert "killing" not in err
    assert like_timeout.returncode == 143


def test_a_signal_that_comes_a_second_later_kills(file, like_timeout):
    time.sleep(1)  # it is the difference
    like_timeout.send_signal(signal.SIGTERM)
    _, err = like_timeout.communicate(timeout=5)
    assert "killing what is left (1 job)" in err
    assert not (file.folder / "told").exists()
    assert like_timeout.returncode == 143


def test_interrupted_jobs_run_again(file):
    file.write("""
[defaults]
limit = "20M"
[jobs.quick]
command = "echo quick >> ran"
[jobs.slow]
command = "echo slow >> ran; test -e go || sleep 100"
depends_on = ["quick"]
""")
    process = file.start()
    file.until("slow", "RUNNING")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    (file.folder / "go").touch()
    assert file.up().returncode == 0
    assert (file.folder / "ran").read_text().split() == ["quick", "slow", "slow"]


def test_killed_at_any_moment_no_job_is_lost_or_runs_twice_at_a_time(file):
    jobs = 20
    file.write(f"""
[batch]
memory = "200M"
[jobs.j]
array = "1-{jobs}"
command = '''mkdir lock.{{index}} || echo twice >> wrong; sleep 0.0{{index}}; rmdir lock.{{index}}; echo {{index}} >> ran'''
limit = "20M"
""")
    rng = random.Random(1)
    for _ in range(KILLS):
        process = file.start("-q")
        time.sleep(rng.uniform(0.1, 0.9))  # any moment will do
        process.kill()
        process.communicate(timeout=20)
        for lock in file.folder.glob("lock.*"):
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(limits_below(process.pid)):
                time.sleep(0.01)
            lock.rmdir()
    assert file.up().returncode == 0
    assert not (file.folder / "wrong").exists()
    assert {int(word) for word in (file.folder / "ran").read_text().split()} == set(range(1, jobs + 1))
    assert {record["result"] for record in file.records().values()} == {"success"}


def test_paused_jobs_are_raised_from_the_budget_and_never_wait_for_each_other_for_ever(file, hog):
    file.write(f"""
[batch]
memory = "120M"
[defaults]
limit = "30M"
on_oom = "pause"
grow = 2
[jobs.a]
command = ["{hog}", "touch", "50"]
[jobs.b]
command = ["{hog}", "touch", "80"]
[jobs.c]
command = ["{hog}", "touch", "80"]
[jobs.d]
command = ["{hog}", "touch", "50"]
""")
    process = file.start()
    highest = 0
    while process.poll() is None:
        highest = max(highest, total_below(process.pid))
        time.sleep(0.002)
    _, err = process.communicate()
    records = file.records()
    assert {record["result"] for record in records.values()} == {"success"}, err
    gave_way = [attempt["why"] for record in records.values() for attempt in record["attempts"] if attempt["result"] != "success"]
    assert all("wait for each other" in why for why in gave_way)
    assert highest <= 120 * MIB
    assert any(record["raises"] for record in records.values())
    assert process.returncode == 0


def test_only_memory_failures_grow(file, hog):
    file.write(f"""
[batch]
memory = "200M"
[defaults]
on_oom = "restart"
grow = 2
delay = "10ms"
[jobs.big]
command = ["{hog}", "touch", "50"]
limit = "20M"
log = "logs/{{job}}.{{attempt}}.log"
[jobs.other]
command = "echo limit {{limit}} attempt {{attempt}}; exit 1"
limit = "20M"
restart = "on-failure"
attempts = 2
log = "logs/{{job}}.{{attempt}}.log"
""")
    assert file.up().returncode == 1
    big, other = file.records()["big"], file.records()["other"]
    assert big["result"] == "success"
    assert [attempt["limit"] for attempt in big["attempts"]] == [20 * MIB, 40 * MIB, 80 * MIB]
    assert other["result"] == "exhausted"
    assert [attempt["limit"] for attempt in other["attempts"]] == [20 * MIB, 20 * MIB]
    logs = file.folder / "logs"
    assert sorted(path.name for path in logs.iterdir()) == ["big.1.log", "big.2.log", "big.3.log", "other.1.log", "other.2.log"]
    assert (logs / "other.2.log").read_text() == f"limit {20 * MIB} attempt 2\n"


def test_services_live_beside_batch_jobs_and_end_in_reverse_order(file):
    file.write("""
[batch]
memory = "200M"
[defaults]
limit = "20M"
[jobs.base]
command = "trap 'echo base >> ended; exit 0' TERM; while :; do sleep 1 & wait; done"
restart = "always"
[jobs.web]
command = "trap 'echo web >> ended; exit 0' TERM; touch ready; while :; do sleep 1 & wait; done"
restart = "always"
depends_on = { base = "started" }
[jobs.work]
command = "until test -e ready; do sleep 0.05; done; echo work >> ended"
depends_on = { web = "started" }
""")
    done = file.up()
    assert (file.folder / "ended").read_text().split() == ["work", "web", "base"], done.stderr
    assert done.returncode == 0


def test_hup_reads_the_file_again(file):
    service = "[jobs.{0}]\ncommand = 'echo {0} {1} >> ran; sleep 1000'\nrestart = 'always'\n"
    head = '[defaults]\nlimit = "20M"\nstop_timeout = "100ms"\n'
    file.write(head + service.format("kept", 1) + service.format("changed", 1) + service.format("gone", 1))
    process = file.start()
    before = {name: file.until(name, "RUNNING")["pid"] for name in ("kept", "changed", "gone")}
    file.write(head + service.format("kept", 1) + service.format("changed", 2) + service.format("new", 1))
    process.send_signal(signal.SIGHUP)
    file.until("new", "RUNNING")
    file.until("gone", "EXITED")
    deadline = time.monotonic() + 20
    while file.until("changed", "RUNNING")["pid"] == before["changed"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert file.until("kept", "RUNNING")["pid"] == before["kept"]
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert sorted((file.folder / "ran").read_text().splitlines()) == ["changed 1", "changed 2", "gone 1", "kept 1", "new 1"], err


def test_verbs_on_jobs_of_a_file(file, hog):
    file.write(f"""
[batch]
memory = "100M"
[jobs.align]
command = ["{hog}", "touch", "50"]
matrix = {{ sample = ["a"] }}
limit = "30M"
on_oom = "pause"
log = "align.log"
[jobs.later]
command = "true"
limit = "20M"
depends_on = ["align"]
""")
    process = file.start()
    row = file.until("align[sample=a]", "PAUSED")
    assert row["file"] == str(file.path)
    assert row["cgroup"]
    assert file.rows()["later"]["state"] == "WAITING"
    refused = file.say("raise", "align[sample=a]", "4G")
    assert refused.returncode == 125
    assert "budget" in refused.stderr
    assert file.say("raise", "align[sample=a]", "80M").returncode == 0
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_who_waits_for_the_other_s_memory_gives_way_and_the_record_says_why(file, hog):
    file.write(f"""
[batch]
memory = "100M"
[defaults]
limit = "40M"
on_oom = "pause"
grow = 2
[jobs.a]
command = ["{hog}", "touch", "60"]
[jobs.b]
command = ["{hog}", "touch", "60"]
""")
    done = file.up()
    records = file.records()
    assert {record["result"] for record in records.values()} == {"success"}, done.stderr
    first = [attempt for record in records.values() for attempt in record["attempts"] if attempt["result"] != "success"]
    assert len(first) == 1
    assert "wait for each other" in first[0]["why"]


@pytest.mark.parametrize(("name", "jobs"), [("nightly", 7), ("matrix-pause", 8), ("service", 5)])
def test_the_examples_run(name, jobs, tmp_path):
    shutil.copy(EXAMPLES / f"{name}.toml", tmp_path)
    subprocess.run(["cc", "-O2", "-o", str(tmp_path / "mem-allocate"), str(EXAMPLES / "mem-allocate.c")], check=True)
    words = [*MEMRUN, "up", str(tmp_path / f"{name}.toml"), "--report", str(tmp_path / "report.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert len(records) == jobs
    assert {record["result"] for record in records if record["name"] != "leaky"} == {"success"}


def _supervisor(pid):
    """Below the process that is known there is the heir, and below that the one that does the work."""
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def _children_of(pid):
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return {Path(f"/proc/{child}/comm").read_text().strip(): child for child in found}


def test_jobs_are_children_of_the_supervisor_and_a_killed_midwife_is_done_without(file):
    file.write("""
[defaults]
limit = "20M"
[jobs.a]
command = "echo $PPID >> parents; read x < gate"
[jobs.b]
command = "echo $PPID >> parents; pwd > where"
depends_on = ["a"]
working_dir = "{stem}"
foreach = "sub*"
""")
    (file.folder / "sub").mkdir()
    os.mkfifo(file.folder / "gate")
    process = file.start()
    file.until("a", "RUNNING")
    supervisor = _supervisor(process.pid)
    os.kill(_children_of(supervisor)["memrun-midwife"], signal.SIGKILL)
    with open(file.folder / "gate", "w") as gate:
        gate.write("go\n")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert (file.folder / "parents").read_text().split() == [str(supervisor)]
    assert (file.folder / "sub" / "parents").read_text().split() == [str(supervisor)]
    assert (file.folder / "sub" / "where").read_text().split() == [str(file.folder / "sub")]


@pytest.mark.parametrize("both", [False, True], ids=["the keeper", "the keeper and the supervisor"])
def test_a_job_that_has_exited_when_memrun_is_killed_has_done_its_work(file, both):
    """Nobody has reaped it yet, and the kill is what the supervisor hears first."""
    file.write(
        '[jobs.a]\ncommand = "echo a >> ran; read x < gate"\nlimit = "20M"\n[jobs.b]\ncommand = "sleep 100"\nlimit = "20M"\n'
    )
    os.mkfifo(file.folder / "gate")
    process = file.start()
    ended = os.pidfd_open(file.until("a", "RUNNING")["pid"])
    file.until("b", "RUNNING")
    supervisor = _supervisor(process.pid)
    os.kill(supervisor, signal.SIGSTOP)
    with open(file.folder / "gate", "w") as gate:
        gate.write("go\n")
    select.select([ended], [], [], 30)
    os.close(ended)
    process.kill()
    process.wait()
    os.kill(supervisor, signal.SIGKILL if both else signal.SIGCONT)
    process.communicate()
    said = file.up("--dry-run").stdout
    deadline = time.monotonic() + 20
    while "a: is done (success)" not in said and time.monotonic() < deadline:
        said = file.up("--dry-run").stdout
    assert "a: is done (success)" in said
    assert "b: runs again" in said


def test_services_are_there_again_for_what_is_new(file):
    file.write("""
[defaults]
limit = "20M"
stop_timeout = "100ms"
[jobs.db]
command = "echo db >> ran; sleep 1000"
restart = "always"
[jobs.one]
command = "echo one >> ran"
depends_on = { db = "started" }
""")
    assert file.up().returncode == 0
    assert file.up().returncode == 0  # nothing to do: not even for the service
    file.write(file.path.read_text() + "[jobs.two]\ncommand = 'grep -c db ran > count'\ndepends_on = { db = 'started' }\n")
    assert file.up().returncode == 0
    assert sorted((file.folder / "ran").read_text().split()) == ["db", "db", "one"]


def test_hup_takes_the_budget_and_what_was_removed_and_leaves_alone_what_only_waits_for_others(file):
    def written(memory, more, needs):
        head = f'[batch]\nmemory = "{memory}"\n[defaults]\nlimit = "20M"\nstop_timeout = "100ms"\n'
        one = f"[jobs.one]\ncommand = 'echo one >> ran; sleep 1000'\n{needs}\n[jobs.two]\ncommand = 'true'\n"
        return head + one + ("[jobs.three]\ncommand = 'echo three >> ran; sleep 1000'\n" if more else "")

    process = file.write(written("60M", more=True, needs="")).start()
    pid = file.until("one", "RUNNING")["pid"]
    first = file.until("three", "RUNNING")["pid"]
    file.write(written("30M", more=False, needs="depends_on = ['two']"))
    process.send_signal(signal.SIGHUP)
    file.until("three", "EXITED")
    file.write(written("30M", more=True, needs="depends_on = ['two']"))
    process.send_signal(signal.SIGHUP)
    file.until("three", "WAITING")  # there is no room any more
    file.write(written("60M", more=True, needs=""))
    process.send_signal(signal.SIGHUP)
    assert file.until("three", "RUNNING")["pid"] != first
    assert file.until("one", "RUNNING")["pid"] == pid
    shown = file.say("ps").stdout
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert "memory is 30M" in err
    assert "two" not in [line.split()[0] for line in shown.splitlines()]
    assert "have ended: memrun ps --all" in shown
    assert sorted((file.folder / "ran").read_text().split()) == ["one", "three", "three"]


def test_jobs_have_the_limit_on_open_files_that_memrun_was_given(file):
    file.write('[jobs.a]\ncommand = "ulimit -Sn > given; ulimit -Hn >> given"\nlimit = "20M"\n')
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 256; ulimit -Hn 512; exec "$@"', "sh", *MEMRUN, "up", str(file.path)],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (file.folder / "given").read_text().split() == ["256", "512"]


def _open_files_with(file, number):
    """Of the supervisor, when so many jobs of each kind run."""
    told = file.folder / f"told{number}"
    os.mkfifo(told)
    text = "".join(
        f'[jobs.{kind}]\narray = "1-{number}"\nlimit = "8M"\n{keys}\ncommand = "echo x > {told}; exec sleep 100"\n'
        for kind, keys in (("plain", ""), ("held", 'on_oom = "pause"'), ("log", 'log = "{job}.log"'))
    )
    fd = os.open(told, os.O_RDWR)
    process = file.write(text).start("--fresh")
    try:
        heard = 0
        while heard < 3 * number:
            assert select.select([fd], [], [], 60)[0]
            heard += os.read(fd, 4096).count(b"x")
        file.until(f"log[{number}]", "RUNNING")
        return len(os.listdir(f"/proc/{_supervisor(process.pid)}/fd"))
    finally:
        process.terminate()
        process.communicate(timeout=60)
        os.close(fd)


def test_what_live_jobs_cost_is_what_admission_counts(file):
    """3 descriptors each, more where it is to be held or has a log: 5,000 jobs under a limit of 20,000."""
    few, more = 4, 14
    each = openfiles.EACH + (openfiles.EACH + openfiles.HELD) + (openfiles.EACH + openfiles.LOG)
    assert openfiles.EACH == 3
    assert _open_files_with(file, more) - _open_files_with(file, few) <= (more - few) * each


def test_a_full_disk_loses_no_record_once_there_is_room_again(file):
    """What could not be written is kept, and written at the end."""
    full = file.folder / "full"
    full.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(full)], capture_output=True).returncode
    ):
        pytest.skip("cannot mount a small file system")
    try:
        small = File(full)
        small.write("""
[batch]
parallel = 1
[defaults]
limit = "20M"
[jobs.fill]
command = "dd if=/dev/zero of=x bs=1k 2> /dev/null; true"
[jobs.work]
command = "true"
array = "1-3"
depends_on = ["fill"]
[jobs.lost]
command = "echo nobody reads this"
log = "log"
depends_on = ["work"]
[jobs.free]
command = "rm x"
depends_on = ["lost"]
""")
        done = small.up()
        assert done.returncode == 0, done.stderr
        assert "cannot record what happens" in done.stderr
        assert "bytes of output are missing" in done.stderr
        assert "0 of 6 jobs would be run" in small.up("--dry-run").stdout
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_on_failure_stop_starts_nothing_after_the_first_failure(file):
    file.write("""
[batch]
on_failure = "stop"
parallel = 1
[defaults]
limit = "20M"
[jobs.bad]
command = "exit 3"
[jobs.good]
command = "touch wrong"
array = "1-3"
""")
    assert file.up().returncode == 1
    assert not (file.folder / "wrong").exists()
    assert [record["result"] for record in file.records().values()] == ["exit-code", *["skipped"] * 3]


def test_a_job_has_a_report_of_its_own(file):
    file.write("[jobs.bad]\ncommand = 'exit 3'\nlimit = '20M'\nreport = 'reports.{job}.{attempt}.json'\n")
    assert file.up().returncode == 1
    assert json.loads((file.folder / "reports.bad.1.json").read_text())["exit_code"] == 3


def test_hooks_pressure_and_how_much_is_said_are_keys_of_a_job(file, hog, request):
    """Pressure by page cache, which v2 has only on a disk, and tells of only where there is PSI: test_gauges.py has that."""
    text = f"""
[defaults]
limit = "12M"
timeout = "60s"
[jobs.hooked]
command = ["{hog}", "touch", "60"]
quiet = true
on_event = {{ oom = "echo oom $MEMRUN_NAME >> hooks", finished = "echo $MEMRUN_RESULT $MEMRUN_NAME >> hooks" }}
[jobs.plain]
command = "true"
[jobs.loud]
command = "true"
verbose = true
"""
    wanted = {"oom hooked", "oom-kill hooked"}
    if detect.look().version == "v1":
        big = f"{request.getfixturevalue('disk')}/big"
        text += f"""
[jobs.squeezed]
command = "while ! grep -q low hooks; do {hog} file {big} 60; done"
pressure = {{ low = "exec:echo low $MEMRUN_NAME >> hooks" }}
"""
        wanted.add("low squeezed")
    done = file.write(text).up()
    assert wanted <= set((file.folder / "hooks").read_text().splitlines()), done.stderr
    assert "loud: started" in done.stderr
    assert "plain: started" not in done.stderr
    assert "memrun: plain: success" in done.stderr
    assert "memrun: hooked" not in done.stderr
