"""What completions and the man pages are made of: an argparse parser that knows every command and option, a page that knows every key."""

from __future__ import annotations

import re

from memrun import cli
from memrun.jobfile.schema import schema
from memrun.options import OPTIONS
from tools import grammar, jobpage


def test_every_verb_has_a_meaning_and_every_option_is_in_it():
    parser = grammar.build()
    said = parser.format_help()
    assert all(option.flag in said for option in OPTIONS)
    assert set(grammar.MEANING) == set(cli.VERBS)


def test_the_page_of_job_files_names_every_key_once():
    described = schema()
    tables = described["properties"]
    job = tables["jobs"]["additionalProperties"]["properties"]
    keys = {*job, *tables["batch"]["properties"], "include"}
    said = re.findall(r"^\*\*(\w+)\*\*$", jobpage.source(described).replace("\\_", "_"), re.MULTILINE)
    assert sorted(said) == sorted(keys)
