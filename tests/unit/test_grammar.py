"""The argparse parser that completions and the man page are made of knows every command and option."""

from __future__ import annotations

from memrun import cli
from memrun.options import OPTIONS
from tools import grammar


def test_every_verb_has_a_meaning_and_every_option_is_in_it():
    parser = grammar.build()
    said = parser.format_help()
    assert all(option.flag in said for option in OPTIONS)
    assert set(grammar.MEANING) == set(cli.VERBS)
