"""memrun check: golden cases, and nothing that is made or started by it."""

from __future__ import annotations

import json
import os
import re

import pytest

FILE = """
[batch]
memory = "200M"
parallel = 8

[defaults]
limit = "50M"

[jobs.extract]
command = ["true"]

[jobs.align]
command = ["sh", "-c", "true {sample} {n}"]
matrix = { sample = ["a", "b", "c"], n = [1, 2], exclude = [{ sample = "c", n = 2 }] }
depends_on = ["extract"]
limit = "100M"

[jobs.web]
command = "sleep 9"
restart = "always"
limit = "10M"
interval = "1h"

[jobs.sum]
command = ["no-such-command"]
depends_on = { align = "finished", web = "started" }
"""
PLAN = """\
jobs.toml: 7 jobs and 1 service; memory 200M, 8 at a time, on failure continue

round  memory  starts
    1     60M  extract 50M, web 10M (service)
    2    110M  align[sample=a,n=1] 100M   (4 more wait for memory)
    3    110M  align[sample=a,n=2] 100M   (3 more wait for memory)
    4    110M  align[sample=b,n=1] 100M   (2 more wait for memory)
    5    110M  align[sample=b,n=2] 100M   (1 more waits for memory)
    6    110M  align[sample=c,n=1] 100M
    7     60M  sum 50M

at once        up to 2, within 110M
longest chain  3 jobs: extract -> align[sample=a,n=1] -> sum
memory         holds jobs back in 4 of 7 rounds; 3 rounds instead of 7 with memory without end

worth knowing:
  jobs.sum: command 'no-such-command' not found: it is nowhere on PATH
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs.toml").write_text(FILE)
    return tmp_path


def test_the_plan_for_people(memrun, here):
    done = memrun("check", "jobs.toml")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", PLAN)
    assert os.listdir(here) == ["jobs.toml"]


def test_the_plan_for_programs(memrun, here):
    done = memrun("check", "jobs.toml", "--json", "align[sample=a]")
    told = json.loads(done.stdout)
    assert told["order"] == ["extract", "align[sample=a,n=1]", "align[sample=a,n=2]"]
    assert (told["memory"], told["parallel"], told["schema"]) == (200 << 20, 8, 1)
    assert told["rounds"][0] == {"jobs": ["extract"], "memory": 50 << 20, "short": 0}
    assert told["longest_chain"] == ["extract", "align[sample=a,n=1]"]
    align = told["jobs"][1]
    assert (align["name"], align["limit"], align["round"]) == ("align[sample=a,n=1]", 100 << 20, 2)
    assert align["depends_on"] == [{"job": "extract", "until": "succeeded"}]
    assert align["working_dir"] == str(here)


def test_every_mistake_at_once(memrun, here):
    (here / "jobs.toml").write_text(
        "[jobs.a]\ncomand = 'x'\nlimit = '5X'\n[jobs.b]\ncommand = 'x'\nlimit = '1M'\ndepends_on = 'c'\n"
    )
    done = memrun("check", "jobs.toml")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        "memrun: jobs.toml:1: [jobs.a] has no 'command'\n"
        "memrun: jobs.toml:2: [jobs.a] comand: is no key that is known here. Did you mean command?\n"
        "memrun: jobs.toml:3: [jobs.a] limit: '5X' is not a size. Sizes look like 5M, 1.5G, 512KiB, 50% or infinity\n"
        "memrun: jobs.toml:7: [jobs.b] depends_on: there is no job 'c'. Known are a, b\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "memrun check wants a job file. Try: memrun check jobs.toml"),
        (["check", "none.toml"], "none.toml: cannot be read: No such file or directory"),
        (["check", "."], ".: is a directory"),
        (["check", "jobs.toml", "alig"], "there is no job 'alig' in jobs.toml. Did you mean align?"),
        (["check", "--jsn", "jobs.toml"], "memrun check has no option --jsn. Did you mean --json?"),
        (["chek", "jobs.toml"], "'chek' is not a memrun command. Did you mean check?"),
    ],
)
def test_bad_words(memrun, here, words, said):
    done = memrun(*words)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", f"memrun: {said}\n")


def test_the_schema_is_json_schema(memrun):
    told = json.loads(memrun("check", "--schema").stdout)
    assert told["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "limit" in told["properties"]["jobs"]["additionalProperties"]["properties"]
    assert "memrun check --schema" in memrun("check", "--help").stdout


def test_into_a_pipe_that_closes(memrun, here):
    (here / "jobs.toml").write_text("[jobs.a]\ncommand = 'x'\nlimit = '1M'\narray = '1-5000'\n")
    import subprocess
    import sys

    done = subprocess.run(f"{sys.executable} -m memrun check --json jobs.toml | true", shell=True, capture_output=True, text=True)
    assert not re.search("Traceback|Error", done.stderr)
