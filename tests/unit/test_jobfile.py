"""Job files: what they come to, and what is said when they make no sense."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from memrun import jobfile
from memrun.errors import JobFileError, UsageError
from memrun.jobfile.schema import NOT_KEYS
from memrun.jobs import Need, Output
from memrun.marks import Action, Pressure, Threshold
from memrun.options import OPTIONS
from memrun.units import Share

WHOLE = 10 << 30
FREE = '\n[batch]\nmemory = "infinity"\n'


@pytest.fixture
def load(tmp_path):
    """load(text, only..., more={name: text}) -> Batch."""

    def loaded(text, *only, more=None, free=True, whole=WHOLE):
        for name, content in (more or {}).items():
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text(content)
        path = tmp_path / "jobs.toml"
        path.write_text(text + (FREE if free else ""))
        return jobfile.load(str(path), only=only, whole=whole)

    return loaded


@pytest.fixture
def complaints(load, tmp_path):
    """complaints(text) -> the problems, with the directory taken off."""

    def found(text, **how):
        with pytest.raises(JobFileError) as e:
            load(text, **how)
        assert e.value.status == 125
        assert str(e.value) == "\n".join(e.value.problems)
        return [said.replace(f"{tmp_path}/", "") for said in e.value.problems]

    return found


def names(batch):
    return [job.name for job in batch.jobs]


PLAN = """
[batch]
memory = "80%"
parallel = 8
on_failure = "stop"

[defaults]
on_oom = "restart"
grow = 2.0
ceiling = "8G"

[jobs.extract]
command = ["python", "extract.py"]
limit = "500M"

[jobs.align]
command = ["./align", "{sample}"]
matrix = { sample = ["a", "b", "c"] }
depends_on = ["extract"]
limit = "1G"
on_oom = "pause"
log = "logs/{job}.{attempt}.log"
"""


def test_the_example_of_the_plan(load, tmp_path):
    batch = load(PLAN, free=False)
    assert names(batch) == ["extract", "align[sample=a]", "align[sample=b]", "align[sample=c]"]
    assert (batch.path, batch.memory, batch.parallel, batch.on_failure) == (f"{tmp_path}/jobs.toml", Share(8000), 8, "stop")
    extract, align = batch.jobs[:2]
    assert (extract.spec.command, extract.spec.limit, extract.spec.on_oom) == (["python", "extract.py"], 500 << 20, "restart")
    assert (extract.spec.grow, extract.spec.ceiling, extract.spec.name) == (2.0, 8 << 30, "extract")
    assert (align.spec.command, align.spec.on_oom, align.table, align.order) == (["./align", "a"], "pause", "align", 1)
    assert align.needs == (Need("extract"),)
    assert align.variables == {"sample": "a"}
    assert align.output == Output(log=f"{tmp_path}/logs/align[sample=a].{{attempt}}.log")
    assert align.spec.asked["limit"] == "1G"
    assert not align.service


def test_nothing_said_is_the_default(load):
    batch = load('[jobs.a]\ncommand = "true"\nlimit = "1M"', free=False)
    assert (batch.memory, batch.parallel, batch.on_failure) == (Share(8000), None, "continue")
    assert load('[jobs.a]\ncommand = "true"').memory is None
    spec = load('[jobs.a]\ncommand = "true"').jobs[0].spec
    for option in OPTIONS:
        if option.key not in {"name", "working_dir"}:
            assert getattr(spec, option.key) == option.default


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("limit = 5242880", "limit", 5 << 20),
        ("limit = 1e9", "limit", 10**9),
        ("limit = inf", "limit", None),
        ('limit = "50%"', "limit", Share(5000)),
        ("timeout = 90", "timeout", 90.0),
        ("timeout = 0", "timeout", None),
        ("timeout = 1.5", "timeout", 1.5),
        ('timeout = "1h"', "timeout", 3600.0),
        ("attempts = 3", "attempts", 3),
        ("grow = 2", "grow", 2.0),
        ("oom_group = false", "oom_group", False),
        ('oom_group = "off"', "oom_group", False),
        ("wait_all = true", "wait_all", True),
        ("wait_all = false", "wait_all", False),
        ('stop_signal = "INT"', "stop_signal", 2),
        ('at = "80%=log"', "at", (Threshold(Share(8000), Action("log")),)),
        ('at = ["80%=log", "5M=stop"]', "at", (Threshold(Share(8000), Action("log")), Threshold(5 << 20, Action("stop")))),
        ('thresholds = [{ at = "80%", do = "log", for = 30 }]', "at", (Threshold(Share(8000), Action("log"), 30.0),)),
        ('pressure = { medium = "log" }', "pressure", (Pressure("medium", Action("log")),)),
        ('pressure = "medium=log"', "pressure", (Pressure("medium", Action("log")),)),
    ],
)
def test_every_way_to_say_it(load, line, key, value):
    assert getattr(load(f'[jobs.a]\ncommand = "true"\n{line}').jobs[0].spec, key) == value


def test_defaults_are_beneath_the_jobs(load):
    text = '[defaults]\nenvironment = { A = 1, B = "x" }\nlog = "d.log"\nat = "80%=log"\n'
    text += '[jobs.a]\ncommand = "true"\nenvironment = { B = "y", C = true }\nthresholds = [{at = "5M", do = "stop"}]'
    job = load(text).jobs[0]
    assert job.spec.at == (Threshold(5 << 20, Action("stop")),)
    assert dict(job.spec.environment) == {"A": "1", "B": "y", "C": "true"}


def test_commands(load):
    text = """
[jobs.a]
command = ["prog", "{x}", 3, "{print}", "{attempt}"]
matrix.x = ["1 2", "$(rm)"]
[jobs.b]
command = "prog {x} ${x} '{print}' {attempt} {job}"
matrix = { x = ["1 2", "$(rm)"] }
"""
    jobs = load(text).jobs
    assert jobs[1].spec.command == ["prog", "$(rm)", "3", "{print}", "{attempt}"]
    assert jobs[2].name == "b[x=1_2]"
    assert jobs[2].spec.command == ["/bin/sh", "-c", "prog '1 2' ${x} '{print}' {attempt} 'b[x=1_2]'"]
    assert jobs[3].spec.command[2].startswith("prog '$(rm)' ")


def test_numbers_are_as_written(load):
    jobs = load(
        '[jobs.a]\ncommand = ["x", "{n}", 1e-9, 3.0]\nmatrix.n = [1e-5, 2.0, -0.1]\narray = [1]\nlimit = 1e9\ntimeout = 1e2'
    ).jobs
    assert [job.spec.command[1:] for job in jobs] == [
        ["1e-05", "1e-09", "3.0"],
        ["2.0", "1e-09", "3.0"],
        ["-0.1", "1e-09", "3.0"],
    ]
    assert (jobs[0].spec.limit, jobs[0].spec.timeout, jobs[0].spec.asked["limit"]) == (10**9, 100.0, "1000000000")


def test_matrix_array_and_foreach_multiply(load):
    text = """
[jobs.a]
command = ["{n}{b}", "{index}", "{item}", "{name}", "{stem}"]
matrix = { n = [1, 2.5], b = [true, false], exclude = [{ n = 1, b = false }, { n = 2.5, b = true }] }
array = "1-5:4,7"
foreach = "d/*.fa"
"""
    batch = load(text, more={"d/y.fa": "", "d/x z.fa": "", "d/no": ""})
    assert len(batch.jobs) == 2 * 3 * 2
    assert names(batch)[:3] == ["a[n=1,b=true,1,x_z.fa]", "a[n=1,b=true,1,y.fa]", "a[n=1,b=true,5,x_z.fa]"]
    assert names(batch)[-1] == "a[n=2.5,b=false,7,y.fa]"
    assert batch.jobs[0].spec.command == ["1true", "1", "d/x z.fa", "x z.fa", "x z"]


def test_lines_of_a_file(load):
    text = '[jobs.a]\ncommand = ["{item}"]\nforeach = { lines = "l.txt" }'
    batch = load(text, more={"l.txt": "one\r\n\ntwo words\n  \nthree/x.y"})
    assert names(batch) == ["a[one]", "a[two_words]", "a[three_x.y]"]
    assert batch.jobs[2].variables == {"item": "three/x.y", "name": "x.y", "stem": "x"}


def test_names_are_harmless_distinct_and_bounded(load):
    batch = load('[jobs.a]\ncommand = "x"\nmatrix.x = ["a b", "a/b", "a,b]", "", "é", "../..", "%s", "\\n"]' % ("y" * 300))
    assert len(set(names(batch))) == 8
    for name in names(batch):
        assert len(name.encode()) <= 128
        assert not set(name) & set("/\0\n ")
    assert names(batch)[4] == "a[x=é]"
    wide = load('[jobs.a]\ncommand = "x"\n' + "\n".join(f'matrix.v{i} = ["{"é" * 40}{i}"]' for i in range(9)))
    assert len(names(wide)[0].encode()) <= 128
    assert names(wide)[0].endswith("]")


def test_files_of_the_same_name_are_told_apart(load):
    text = '[jobs.a]\ncommand = ["{item}"]\nforeach = "*/x"'
    assert names(load(text, more={"p/x": "", "q/x": ""})) == ["a[p_x]", "a[q_x]"]


def test_who_waits_for_whom(load):
    text = """
[jobs.one]
command = "x"
[jobs.m]
command = "x"
matrix = { s = ["a", "b"], n = [1, 2] }
[jobs.r]
command = "x"
array = "1-2"
[jobs.same]
command = "x"
matrix.s = ["a", "b"]
depends_on = ["m[s={s}]", "one"]
[jobs.next]
command = "x"
array = [1, 2]
depends_on = { "r[{index}]" = "finished", "m[s=b,n=2]" = "started" }
[jobs.all]
command = "x"
depends_on = "m"
"""
    needs = {job.name: job.needs for job in load(text).jobs}
    assert needs["same[s=b]"] == (Need("m[s=b,n=1]"), Need("m[s=b,n=2]"), Need("one"))
    assert needs["next[2]"] == (Need("r[2]", "finished"), Need("m[s=b,n=2]", "started"))
    assert len(needs["all"]) == 4
    assert names(load(text, "next[1]", "one")) == ["one", "m[s=b,n=2]", "r[1]", "next[1]"]
    assert len(load(text, "m[s=a]").jobs) == 2
    with pytest.raises(UsageError, match=r"there is no job 'nxt' in .*Did you mean next"):
        load(text, "nxt")


def test_values_with_commas_and_brackets_match(load):
    text = """
[jobs.a]
command = "x"
matrix.v = ["x,y]", "[z"]
[jobs.b]
command = "x"
matrix.v = ["x,y]", "[z"]
depends_on = "a[v={v}]"
"""
    jobs = load(text).jobs
    assert [job.needs[0].job for job in jobs[2:]] == [job.name for job in jobs[:2]]


def test_services(load):
    text = """
[jobs.db]
command = "db"
restart = "always"
[jobs.a]
command = "x"
depends_on = { db = "started" }
"""
    assert [job.service for job in load(text).jobs] == [True, False]


def test_paths_are_those_of_the_file_they_are_written_in(load, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    part = '[defaults]\nreport = "r/{job}.json"\n[jobs.b]\ncommand = "x"\nlog = "b.log"\nlog_size = "1M"\nlog_keep = 0\n[jobs.c]\ncommand = "x"\nlog = "/{n}{attempt}"\nmatrix.n = [7]'
    batch = load(
        '[defaults]\nlog = "top.log"\n[jobs.a]\ncommand = "x"\n',
        more={
            "sub/part.toml": part,
            "jobs2.toml": f'include = "sub/*.toml"\n{FREE}[defaults]\nlog = "top.log"\n[jobs.a]\ncommand = "x"',
        },
    )
    assert names(batch) == ["a"]
    batch = jobfile.load(str(tmp_path / "jobs2.toml"), whole=WHOLE)
    a, b, c = batch.jobs
    assert a.output == Output(log=f"{tmp_path}/top.log")
    assert (b.output, b.spec.report) == (Output(log=f"{tmp_path}/sub/b.log", most=1 << 20, keep=0), f"{tmp_path}/sub/r/b.json")
    assert c.output.log == "/7{attempt}"
    assert c.spec.working_dir == f"{tmp_path}/sub"


def test_surroundings(load, tmp_path):
    text = """
[defaults]
env_file = ["-x.env", "{n}.env"]
environment = { HERE = "{here}", N = "{n}-{attempt}" }
[jobs.a]
command = ["x"]
matrix.n = [1]
working_dir = "~/x{n}"
umask = "022"
nice = -5
oom_score_adj = 3
user = 1000
stdout = "o{n}.{attempt}"
pass_environment = "HOME"
[jobs.b]
command = ["x"]
working_dir = "sub"
matrix.n = [2]
"""
    a, b = (job.spec for job in load(text).jobs)
    assert (a.working_dir, a.umask, a.nice, a.oom_score_adj, a.user) == ("~/x1", 0o022, -5, 3, "1000")
    assert (a.stdout, a.pass_environment) == (f"{tmp_path}/o1.{{attempt}}", ("HOME",))
    assert (a.env_file, b.working_dir) == ((f"-{tmp_path}/x.env", f"{tmp_path}/1.env"), f"{tmp_path}/sub")
    assert dict(b.environment) == {"HERE": str(tmp_path), "N": "2-{attempt}"}


def test_a_log_of_the_job_goes_before_files_of_the_defaults(load, tmp_path):
    text = '[defaults]\nstdout = "o"\nstderr = "e"\n[jobs.a]\ncommand = "x"\nlog = "l"\n[jobs.b]\ncommand = "x"\n'
    a, b = load(text).jobs
    assert a.output == Output(log=f"{tmp_path}/l")
    assert (a.spec.stdout, a.spec.stderr) == ("", "")
    assert b.output == Output(stdout=f"{tmp_path}/o", stderr=f"{tmp_path}/e")
    c = load('[defaults]\nlog = "l"\n[jobs.c]\ncommand = "x"\nstdout = "o"\n').jobs[0]
    assert c.output == Output(stdout=f"{tmp_path}/o")


def test_a_file_that_is_included_twice_is_read_once(load):
    text = 'include = ["x.toml", "y.toml", "x.toml"]\n'
    more = {"x.toml": '[jobs.x]\ncommand = "x"', "y.toml": 'include = ["x.toml"]\n[jobs.y]\ncommand = "x"'}
    more["main.toml"] = text + FREE
    load('[jobs.a]\ncommand = "x"', more=more)
    path = load('[jobs.a]\ncommand = "x"', more=more).path.replace("jobs.toml", "main.toml")
    assert sorted(names(jobfile.load(path))) == ["x", "y"]


def test_the_digest_is_of_what_a_job_does(load):
    def digest(more="", command='["x", "{n}"]'):
        return load(f"[jobs.a]\ncommand = {command}\nmatrix.n = [1]\n{more}").jobs[0].digest

    first = digest()
    assert len(first) == 64
    same = ['limit = "5M"', "timeout = 3", 'log = "x"', "attempts = 9", 'on_oom = "pause"', 'report = "r"']
    assert {digest(line) for line in same} == {first}
    assert first not in {digest('environment = { A = "1" }'), digest(command='["y", "{n}"]'), digest(command='"x {n}"')}
    assert digest('environment = { A = "1" }') == digest("environment = { A = 1 }")


BAD = [
    ("jobs = 3", ["jobs.toml:1: [jobs] wants tables: [jobs.NAME], not 3"]),
    ("", ["jobs.toml: holds no job: [jobs.NAME] is missing"]),
    ("limit = 3\n[jobs.a]\ncommand = 'x'", ["jobs.toml:1: limit: is a key of a job: it belongs below [jobs.NAME] or [defaults]"]),
    ("[job.a]\ncommand = 'x'", ["jobs.toml:1: job: is no key that is known here. Did you mean jobs?"]),
    ("[jobs.a]\ncmd = 'x'", ["jobs.toml:1: [jobs.a] has no 'command'", "jobs.toml:2: [jobs.a] cmd: is no key that is known here. Did you mean command?"]),
    ("[jobs.a]\ncommand = 'x'\nlimt = '1G'", ["jobs.toml:3: [jobs.a] limt: is no key that is known here. Did you mean limit?"]),
    ("[jobs.a]\ncommand = 'x'\nstop-signal = 'INT'", ["jobs.toml:3: [jobs.a] stop-signal: is no key that is known here. Did you mean stop_signal?"]),
    ("[jobs.a]\ncommand = 'x'\nname = 'b'", ["jobs.toml:3: [jobs.a] name: is no key here: a job's name is that of its table"]),
    ("[jobs.a]\ncommand = 'x'\nlimit = '5X'", ["jobs.toml:3: [jobs.a] limit: '5X' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"]),
    ("[jobs.a]\ncommand = 'x'\nlimit = ['1G']", ["jobs.toml:3: [jobs.a] limit: wants text or a number (SIZE), not a list"]),
    ("[jobs.a]\ncommand = 'x'\nlimit = 1979-05-27", ["jobs.toml:3: [jobs.a] limit: wants text or a number (SIZE), not 1979-05-27 (a date or time)"]),
    ("[jobs.a]\ncommand = 'x'\nlimit = nan", ["jobs.toml:3: [jobs.a] limit: 'nan' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"]),
    ("[jobs.a]\ncommand = 'x'\non_oom = 'puase'", ['jobs.toml:3: [jobs.a] on_oom: wants one of "kill", "restart", "pause", not \'puase\'']),
    ("[jobs.a]\ncommand = 'x'\noom_group = 1", ["jobs.toml:3: [jobs.a] oom_group: wants true or false, not 1"]),
    ("[jobs.a]\ncommand = []", ['jobs.toml:2: [jobs.a] command: wants a list of words: ["./prog", "arg"], or text for sh -c, not an empty list']),
    ("[jobs.a]\ncommand = [{}]", ['jobs.toml:2: [jobs.a] command: wants a list of words: ["./prog", "arg"], or text for sh -c, not a list']),
    ("[jobs.a]\ncommand = 'x {smaple}'\nmatrix.sample = ['a']", ["jobs.toml:2: [jobs.a] command: {smaple} is no variable here. Did you mean {sample}?"]),
    ("[jobs.a]\ncommand = 'x'\nmatrix.sample = 'a'", ['jobs.toml:3: [jobs.a] matrix.sample: wants a list of values: ["a", "b"], not \'a\'']),
    ("[jobs.a]\ncommand = 'x'\nmatrix.job = ['a']", ["jobs.toml:3: [jobs.a] matrix.job: has a meaning of its own here"]),
    ("[jobs.a]\ncommand = 'x'\nmatrix.x = [1, '1']", ["jobs.toml:3: [jobs.a] matrix.x: holds '1' twice"]),
    ("[jobs.a]\ncommand = 'x'\nmatrix = { x = [1], exclude = [{ x = 1 }] }", ["jobs.toml:3: [jobs.a] matrix.exclude: leaves no combination"]),
    ("[jobs.a]\ncommand = 'x'\nmatrix = { xs = [1], exclude = [{ x = 1 }] }", ["jobs.toml:3: [jobs.a] matrix.exclude: 'x' is no variable of the matrix. Did you mean xs?"]),
    ("[jobs.a]\ncommand = 'x'\narray = '1-10%4'", ["jobs.toml:3: [jobs.a] array: '1-10%4' is no range of numbers; for how many at a time there is parallel in [batch]. Ranges look like 1-100, 1-9:2 or 1,3,5"]),
    ("[jobs.a]\ncommand = 'x'\narray = '1-999999999'", ["jobs.toml:3: [jobs.a] array: makes more than 10000 jobs"]),
    ("[jobs.a]\ncommand = 'x'\narray = '1-101'\nmatrix.x = " + str(list(range(100))), ["jobs.toml:1: [jobs.a] makes 10100 jobs: there may be 10000 in all"]),
    ("[jobs.a]\ncommand = 'x'\nforeach = '*.none'", ["jobs.toml:3: [jobs.a] foreach: *.none matches no file"]),
    ("[jobs.a]\ncommand = 'x'\nforeach = { lines = 'none' }", ["jobs.toml:3: [jobs.a] foreach: none cannot be read: No such file or directory"]),
    ("[jobs.a]\ncommand = 'x'\ndepends_on = ['b']\n[jobs.bb]\ncommand = 'x'", ["jobs.toml:3: [jobs.a] depends_on: there is no job 'b'. Did you mean bb?"]),
    ("[jobs.a]\ncommand = 'x'\ndepends_on = { b = 'done' }", ['jobs.toml:3: [jobs.a] depends_on: wants a list of jobs, or a table: { extract = "finished" }, not a table']),
    ("[jobs.a]\ncommand = 'x'\ndepends_on = ['a']", ["jobs.toml:3: [jobs.a] depends_on: goes in a circle: a -> a"]),
    ("[jobs.a]\ncommand = 'x'\ndepends_on = 'b'\n[jobs.b]\ncommand = 'x'\ndepends_on = 'c'\n[jobs.c]\ncommand = 'x'\ndepends_on = 'b'", ["jobs.toml:6: [jobs.b] depends_on: goes in a circle: b -> c -> b"]),
    ("[jobs.a]\ncommand = 'x'\ndepends_on = 's'\n[jobs.s]\ncommand = 'x'\nrestart = 'always'", ['jobs.toml:3: [jobs.a] depends_on: s is a service (restart = "always"), which does not end. Write { s = "started" }']),
    ('[jobs."a b"]\ncommand = "x"', ['jobs.toml:1: [jobs."a b"] is not a name: names are up to 64 letters, digits and ._-@:+ and begin with none of .-']),
    ('[jobs."a\\u001b[31m"]\ncommand = "x"', ['jobs.toml:1: [jobs."a?[31m"] is not a name: names are up to 64 letters, digits and ._-@:+ and begin with none of .-']),
    ("[jobs.a]\ncommand = 'x'\npressure = { medum = 'log' }", ["jobs.toml:3: [jobs.a] pressure: 'medum' is not a level of pressure (low, medium, critical). Did you mean medium?"]),
    ("[jobs.a]\ncommand = 'x'\nthresholds = [{ at = '80%' }]", ["jobs.toml:3: [jobs.a] thresholds.0: has no 'do'"]),
    ("[jobs.a]\ncommand = 'x'\nlog_size = 5", ["jobs.toml:3: [jobs.a] log_size: 5 is too small for a log. At least 4K"]),
    ("[jobs.a]\ncommand = 'x'\nlog = 'l'\nstdout = 'o'", ["jobs.toml:4: [jobs.a] stdout: goes to a file of its own, but log takes it, too"]),
    ("[jobs.a]\ncommand = ['x', '\0']".replace("'\0'", '"\\u0000"'), ["jobs.toml:2: [jobs.a] command: holds a NUL byte"]),
    ("[jobs.a]\ncommand = 'x'\numask = 0o022", ['jobs.toml:3: [jobs.a] umask: wants text, in octal: "022", not 18']),
    ("[jobs.a]\ncommand = 'x'\nenvironment = ['A=1', 'B']", ["jobs.toml:3: [jobs.a] environment: 'B' is not KEY=VALUE. To hand on memrun's own: pass_environment B"]),
    ("[defaults]\ncommand = 'x'", ["jobs.toml:2: [defaults] command: is no key of [defaults]: it says what one job is"]),
    ("include = 'none.toml'", ["jobs.toml:1: include: none.toml: cannot be read: No such file or directory"]),
    ("include = 'jobs.toml'\n[jobs.a]\ncommand = 'x'", ["jobs.toml:1: include: goes in a circle: jobs.toml -> jobs.toml"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), BAD)
def test_what_is_said(complaints, text, said):
    assert complaints(text) == said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[jobs.a\n", "jobs.toml:1: this is not TOML: expected ']' at the end of a table declaration, column 8"),
        (b"x = 1\ny = \n", "jobs.toml:2: this is not TOML: invalid value, column 5"),
        (b"x = 1\ny = '\xff'", "jobs.toml:2: is not UTF-8 text: byte 0xff"),
        (b"\x7fELF\0\0", "jobs.toml: is not a text file: it holds NUL bytes"),
        (b"a = " + b"[" * 5000, "jobs.toml: is nested too deeply: that is no job file"),
        (b"a" + b".a" * 5000 + b" = 1", "jobs.toml: is nested too deeply: that is no job file"),
        (b"a = 0x" + b"f" * 5000, "jobs.toml: this is not TOML: an integer has more than 64 bits"),
        (b"a = " + b"1" * 5000, "jobs.toml: this is not TOML: "),
        (b"#" * (9 << 20), "jobs.toml: is larger than 8 MiB: that is no job file"),
        (b"", "jobs.toml: holds no job: [jobs.NAME] is missing"),
    ],
    ids=range(10),
)
def test_what_is_no_job_file(tmp_path, data, said):
    path = tmp_path / "jobs.toml"
    path.write_bytes(data)
    with pytest.raises(JobFileError) as e:
        jobfile.load(str(path))
    assert str(e.value).replace(f"{tmp_path}/", "").startswith(said)


def test_what_cannot_be_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("none", "cannot be read: No such file or directory"),
        ("", "is a directory"),
        ("pipe", "is not a regular file"),
    ):
        with pytest.raises(JobFileError, match=said):
            jobfile.load(f"{tmp_path}/{name}")
    with pytest.raises(JobFileError, match="is not a file name"):
        jobfile.load("a\0b")


def test_too_many_tables_are_not_even_looked_at(complaints):
    assert complaints("".join(f"[jobs.a{number}]\n" for number in range(10001))) == [
        "jobs.toml: holds 10001 jobs: there may be 10000 in all"
    ]


def test_many_mistakes_take_no_longer_than_many_jobs(complaints):
    said = complaints(
        "".join(f"[jobs.a{number}]\ncommand = 'x'\nlimt = 1\ndepends_on = 'aa{number}'\n" for number in range(2000))
    )
    assert len(said) == 4000
    assert said[1] == "jobs.toml:4: [jobs.a0] depends_on: there is no job 'aa0'. Did you mean a0?"
    assert said[-1] == "jobs.toml:8000: [jobs.a1999] depends_on: there is no job 'aa1999'"


def test_a_byte_order_mark_is_no_harm(tmp_path):
    (tmp_path / "jobs.toml").write_bytes(b"\xef\xbb\xbf[jobs.a]\r\ncommand = 'x'\r\nlimit = '1M'\r\n")
    assert names(jobfile.load(str(tmp_path / "jobs.toml"))) == ["a"]


BUDGET = '[batch]\nmemory = "4G"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUDGET + "[jobs.a]\ncommand = 'x'", ['jobs.toml:3: [jobs.a] limit: is needed: jobs share the memory of [batch] by their limits. For jobs without, [batch] memory = "infinity"']),
        (BUDGET + "[jobs.a]\ncommand = 'x'\nlimit = 'max'", ['jobs.toml:5: [jobs.a] limit: infinity never fits into a budget. For jobs without a limit, [batch] memory = "infinity"']),
        (BUDGET + "[jobs.a]\ncommand = 'x'\nlimit = '5G'", ["jobs.toml:5: [jobs.a] limit: 5G is more than the budget of 4G: it could never run"]),
        ("[jobs.a]\ncommand = 'x'\nlimit = '90%'", ["jobs.toml:3: [jobs.a] limit: 9G is more than the budget of 8G (80%): it could never run"]),
        ("[defaults]\nlimit = '9G'\n[jobs.a]\ncommand = 'x'", ["jobs.toml:2: [defaults] limit: 9G is more than the budget of 8G (80%): it could never run (jobs.a)"]),
        ("[jobs.a]\ncommand = 'x'\nlimit = '2G'\nceiling = '1G'", ["jobs.toml:4: [jobs.a] ceiling: 1G is less than the limit of 2G"]),
        ("[jobs.a]\ncommand = 'x'\nlimit = '2X'", ["jobs.toml:3: [jobs.a] limit: '2X' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity"]),
        (BUDGET + "[jobs.s]\ncommand = 'x'\nlimit = '3G'\nrestart = 'always'\n[jobs.a]\ncommand = 'x'\nlimit = '2G'", ["jobs.toml:9: [jobs.a] limit: 2G can never fit: the services hold 3G, which leaves 1G of the budget of 4G"]),
        (BUDGET + "[jobs.s]\ncommand = 'x'\nlimit = '3G'\nrestart = 'always'\narray = '1-2'", ["jobs.toml:5: [jobs.s] limit: the services together hold 6G, which is more than the budget of 4G"]),
        (BUDGET + "parallel = 1\n[jobs.s]\ncommand = 'x'\nlimit = '1G'\nrestart = 'always'\n[jobs.a]\ncommand = 'x'\nlimit = '1G'", ["jobs.toml:3: [batch] parallel: 1 at a time are all taken by the services (1), which do not end"]),
        ("[batch]\nmemory = 0", ["jobs.toml:2: [batch] memory: a budget of 0 holds no job. Write infinity for no budget"]),
        ("[batch]\nparallel = 0", ["jobs.toml:2: [batch] parallel: wants a whole number from 1, not 0"]),
        ("[batch]\nparalel = 0", ["jobs.toml:2: [batch] paralel: is no key that is known here. Did you mean parallel?"]),
    ],
)  # fmt: skip
def test_what_does_not_fit(complaints, text, said):
    assert complaints(text, free=False) == said


def test_a_job_that_a_service_waits_for_runs_before_it(load):
    text = BUDGET + "[jobs.s]\ncommand = 'x'\nlimit = '3G'\nrestart = 'always'\ndepends_on = 'a'\n"
    assert len(load(text + "[jobs.a]\ncommand = 'x'\nlimit = '2G'", free=False).jobs) == 2


def test_without_a_machine_shares_are_not_judged(load):
    assert len(load("[jobs.a]\ncommand = 'x'\nlimit = '90%'", free=False, whole=None).jobs) == 1


def test_a_ceiling_above_the_budget_is_a_note(load):
    path = load(BUDGET + "[jobs.a]\ncommand = 'x'\nlimit = '2G'\nceiling = '5G'", free=False).path
    loaded = jobfile.examine(path, whole=WHOLE)
    assert loaded.budget == 4 << 30
    assert [note.rpartition("/")[2] for note in loaded.notes] == [
        "jobs.toml:6: [jobs.a] ceiling: 5G is more than the budget of 4G, where growing will end"
    ]


def test_all_problems_at_once(complaints):
    more = {"more.toml": "[batch]\nmemory = 1\n[jobs.a]\ncommand = 'x'\nlimt = 1"}
    said = complaints(
        "include = 'more.toml'\n[jobs.a]\ncommand = 1\nlimit = true\n[jobs.b]\ncommand = 'x'\ndepends_on = 'c'", more=more
    )
    assert [line.partition(": ")[0] for line in said] == [
        "jobs.toml:3", "jobs.toml:4", "jobs.toml:7", "more.toml:1", "more.toml:3", "more.toml:5",
    ]  # fmt: skip
    assert re.fullmatch(r"more.toml:3: \[jobs.a\] is there twice: first in .*jobs.toml", said[4])


def test_the_schema_has_every_option():
    from jsonschema import Draft202012Validator

    schema = jobfile.schema()
    Draft202012Validator.check_schema(schema)
    keys = schema["properties"]["jobs"]["additionalProperties"]["properties"]
    assert {option.key for option in OPTIONS} - set(NOT_KEYS) <= set(keys)
    assert not set(NOT_KEYS) & set(keys)
    assert set(schema["properties"]["defaults"]["properties"]) == set(keys) - {
        "command",
        "matrix",
        "array",
        "foreach",
        "depends_on",
    }
    assert keys["on_oom"]["enum"] == ["kill", "restart", "pause"]


@pytest.mark.parametrize("name", ["nightly", "matrix-pause", "service"])
def test_the_examples_are_good(name):
    assert jobfile.examine(str(Path(__file__).parents[2] / f"examples/{name}.toml"), whole=WHOLE).notes == ()


def test_the_example_of_the_documentation_is_good(load):
    text = (Path(__file__).parents[2] / "docs/job-files.md").read_text().partition("```toml\n")[2].partition("```")[0]
    assert names(load(text, free=False)) == ["extract", "align[sample=a]", "align[sample=b]", "align[sample=c]"]


def test_loading_starts_nothing_heavy():
    code = "import sys; import memrun.jobfile; print(*sorted({'jsonschema', 'tomli', 'trio'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.stdout.strip(), done.stderr) == ("", "")
