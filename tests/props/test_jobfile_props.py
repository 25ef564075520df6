"""Whatever stands in a job file: it is a batch, or a list of problems with their places. Never a traceback, never anything started.

A thousand files in a long run: MEMRUN_FUZZ_FILES=1000.
"""

from __future__ import annotations

import copy
import os
import random
import re
import subprocess

import pytest
import tomli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memrun import checking, forecast, jobfile
from memrun.errors import JobFileError
from memrun.jobfile.lines import line_of, scan
from memrun.options import OPTIONS
from memrun.templates import LATER, fill

FILES = int(os.environ.get("MEMRUN_FUZZ_FILES", "100"))
WHOLE = 8 << 30
PLACE = re.compile(r".*\.toml(:\d+)?: \S.*")
SEEDS = [
    """
include = ["part.toml"]
[batch]
memory = "80%"
parallel = 8
on_failure = "stop"
[defaults]
limit = "500M"
on_oom = "restart"
grow = 2.0
ceiling = "8G"
environment = { A = "x", B = 3 }
log = "logs/{job}.{attempt}.log"
[jobs.extract]
command = ["python", "extract.py"]
[jobs.align]
command = ["./align", "{sample}", "{n}"]
matrix = { sample = ["a", "b", "c"], n = [1, 2], exclude = [{ sample = "a", n = 2 }] }
depends_on = ["extract"]
limit = "1G"
on_oom = "pause"
thresholds = [{ at = "80%", do = "log", for = "30s" }]
[jobs.each]
command = "wc {item} | awk '{print $1}'"
foreach = "*.fa"
depends_on = { "align[sample=a]" = "finished", db = "started" }
pressure = { medium = "log" }
[jobs."r.1"]
command = 'render {index}'
array = "1-9:2"
depends_on = "align[n=1]"
timeout = 1979-05-27
[jobs.db]
command = '''
db --serve
'''
restart = "always"
working_dir = "~/db"
""",
    "[jobs.a]\ncommand = 'x'\nlimit = '1M'\n[jobs.b]\ncommand = 'y'\nlimit = 0x100000\ndepends_on = ['a']\n",
]
PIECES = [
    *"[]{}=\"'\n,.#:-0\\\t\0\x1b\x7fé\U0001f600\ud800",
    '"""', "'''", "[jobs.a]\n", "[[jobs]]\n", "[batch]\n", "matrix = {}\n", "array = '1-99999'\n", "depends_on = 'align'\n", "limit = -1\n",
    "= 1e400", "= nan", "= -inf", "= 0xffffffffffffffffffff", "= true", "= 07:32:00", "= []", "= [[]]", "= {}", "= ''", '= "\\u0000"',
    "{job}", "{smaple}", "{{sample}}", "include = '*'\n", "include = 'jobs.toml'\n", "99999999999999999999", "[" * 50, "a." * 50, "*", "..",
    *(f"{option.key} = " for option in OPTIONS),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("jobs")
    (place / "part.toml").write_text("[jobs.part]\ncommand = 'x'\nlimit = '5M'\n")
    for name in ("x.fa", "y z.fa", "a\n\x1b.fa", os.fsdecode(b"\xff.fa")):
        (place / name).touch()
    return place


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch):
    def refused(*_args, **_how):
        raise AssertionError("something was started")

    for owner, name in ((os, "fork"), (os, "posix_spawn"), (os, "execve"), (subprocess, "Popen")):
        monkeypatch.setattr(owner, name, refused)


def judge(folder, data):
    """Load it; whatever comes of it must be in order."""
    path = folder / "jobs.toml"
    path.write_bytes(data)
    try:
        loaded = jobfile.examine(str(path), whole=WHOLE)
    except JobFileError as e:
        assert e.status == 125
        assert e.problems
        for said in e.problems:
            assert PLACE.fullmatch(said), said
            assert said.isprintable()
        return None
    in_order(loaded)
    return loaded


def in_order(loaded):
    batch = loaded.batch
    names = [job.name for job in batch.jobs]
    assert names
    assert len(set(names)) == len(names)
    for job in batch.jobs:
        assert job.spec.command
        assert not any("\0" in word for word in job.spec.command)
        assert len(job.name.encode()) <= 128
        assert not set(job.name) & set("/\0\n ")
        assert {need.job for need in job.needs} <= set(names) - {job.name}
        for path in (job.output.log, job.output.stdout, job.output.stderr):
            assert not path or os.path.isabs(path)
    found = checking.Findings(loaded)
    assert sorted(found.as_object()["order"]) == sorted(names)
    assert all(this.memory <= (loaded.budget or 1 << 70) for this in found.rounds)
    assert all(len(this.jobs) <= (batch.parallel or len(names)) for this in found.rounds)
    assert found.as_text("x").rstrip("\n").replace("\n", "").isprintable()
    before = set()
    for job in forecast.ordered(batch.jobs):
        assert {need.job for need in job.needs} <= before
        before.add(job.name)


def mutated(chance, text):
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at = chance.randrange(len(text) + 1)
        until = min(len(text), at + chance.choice([0, 1, 1, 5, 40]))
        kind = chance.randrange(5)
        if kind == 0:  # a line twice, somewhere else, or gone
            lines = text.split("\n")
            line = lines[chance.randrange(len(lines))]
            lines.insert(chance.randrange(len(lines)), line)
            del lines[chance.randrange(len(lines))]
            text = "\n".join(lines)
        elif kind == 1:  # another value
            line = [*re.finditer(r"= (.*)", text)]
            one = chance.choice(line) if line else None
            text = text[: one.start(1)] + chance.choice(PIECES).removeprefix("= ") + text[one.end(1) :] if one else text
        else:
            text = text[:at] + ("" if kind == 2 else chance.choice(PIECES)) + text[until:]
    return text


def bent(chance, value):
    """A parsed file with one thing in it changed: still TOML."""
    places = list(tables_in(value))
    table = chance.choice(places)
    key = chance.choice(list(table)) if table else "x"
    kind = chance.randrange(5)
    if kind == 0:
        table.pop(key, None)
    elif kind == 1:
        table[chance.choice([*KEYS, key + "s", key[1:], chance.choice(PIECES)])] = table.pop(key, 1)
    elif kind == 2:
        table[key] = copy.deepcopy(chance.choice(list(chance.choice(places).values()) or [1]))
    elif kind == 3:
        table[key] = chance.choice(
            [0, -1, 1.5, float("nan"), True, "", [], {}, [[]], ["a", "a"], {"a": 1}, "{n}", "50%", "\0", "\x1b[1m"]
        )
    else:
        table[chance.choice(KEYS)] = chance.choice(
            ["1M", "a", "always", ["a"], {"lines": "part.toml"}, "*", 3, "1-3", {"a": "started"}]
        )
    return value


def tables_in(value):
    if isinstance(value, dict):
        yield value
        for below in value.values():
            yield from tables_in(below)


@pytest.mark.parametrize("start", range(0, FILES, 25))
def test_mutated_files(folder, start):
    for number in range(start, min(start + 25, FILES)):
        chance = random.Random(number)
        seed = chance.choice(SEEDS)
        data = bytearray(mutated(chance, seed).encode(errors="surrogatepass"))
        if number % 2:
            document = tomli.loads(seed)
            document["jobs"].get("r.1", {}).pop("timeout", None)
            for _ in range(chance.choice([1, 1, 2, 4])):
                document = bent(chance, document)
            judge(folder, dumped(document))
            continue
        if chance.random() < 0.1 and data:
            data[chance.randrange(len(data))] = chance.randrange(256)
        judge(folder, bytes(data))


def test_the_seeds_are_good_but_for_one_date(folder):
    assert judge(folder, SEEDS[1].encode()) is not None
    assert judge(folder, SEEDS[0].replace("timeout = 1979-05-27\n", "").encode()) is not None


values = st.recursive(
    st.none().map(lambda _: "x") | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.floats() | st.text(max_size=6) | st.dates()
    | st.sampled_from(["1M", "80%", "infinity", "a", "b", "{x}", "1-3", "*.fa", "always", "a[x=1]", "true"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abx") | st.text(max_size=3), below, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = [
    option.key for option in OPTIONS
] + "command matrix array foreach depends_on thresholds log log_size log_keep exclude".split()
keys = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), values, max_size=5)
jobs = st.dictionaries(
    st.sampled_from("abc") | st.text(max_size=3), keys.map(lambda k: {"command": "x", "limit": "1M"} | k), max_size=3
)
documents = st.fixed_dictionaries(
    {}, optional={"jobs": jobs | values, "defaults": keys | values, "batch": keys | values, "include": values, "x": values}
)


def toml(value):
    """Any value as TOML, inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(below)}" for key, below in value.items()) + "}"
    return value.isoformat() if hasattr(value, "isoformat") else repr(value)


def dumped(document):
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in document.items()).encode(errors="replace")


@settings(max_examples=FILES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(document=documents)
def test_any_values_at_any_keys(folder, document):
    judge(folder, dumped(document))


@given(st.text(), st.dictionaries(st.sampled_from(["a", "b", "job"]), st.text(max_size=5)))
def test_filling_in_leaves_the_rest(text, variables):
    filled = fill(text, variables)
    assert variables or filled == text
    assert "{" in text or filled == text


@given(
    st.lists(st.sampled_from(["{a}", " ", "x", "{attempt}", "{{limit}}", "{limit}"]), max_size=6),
    st.text(alphabet="x{}a temp$limit", max_size=12),
)
def test_a_value_is_never_filled_in_later(parts, value):
    if value.startswith("}") or value.endswith(("{", "$")) or "{" in value[-9:].replace("{attempt}", "").replace("{limit}", ""):
        return  # it would make a template together with what is beside it
    late = {"attempt": "1", "limit": "9"}
    text = "|".join(parts)
    assert fill(fill(text, {"a": value}, later=LATER), late) == fill(text, {"a": value} | late)


@given(st.dictionaries(st.sampled_from(["k", "a.b", "'", "x y", "é"]), values, max_size=4), st.booleans())
def test_every_key_is_found_on_its_line(table, spread):
    lines = ["", "# [x] = 1", "[jobs.a]"] if spread else ["[jobs.a]"]
    expected = {}
    for key, value in table.items():
        expected[key] = len(lines) + 1
        lines += [f"{toml(key).replace('U0000', 'u')} = {toml(value)}", *([" ", "# = ]"] if spread else [])]
    text = "\n".join(lines)
    tomli.loads(text)
    found = scan(text)
    assert {key: line_of(found, ("jobs", "a", key, "more")) for key in table} == expected
