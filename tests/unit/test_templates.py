"""Variables in braces: what is ours is filled in, what is the shell's or awk's stays."""

from __future__ import annotations

import shlex

import pytest

from memrun.templates import LATER, fill, mistyped, words

KNOWN = {"sample": "a b", "job": "align[sample=a]", "n": "3"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("x {sample} y", "x a b y"),
        ("{sample}{n}", "a b3"),
        ("awk '{print}' {n}", "awk '{print}' 3"),
        ("${sample} ${HOME} {HOME}", "${sample} ${HOME} {HOME}"),
        ("{{sample}} {{print}}", "{sample} {{print}}"),
        ("{} {a,b} {1} {n:3} { n }", "{} {a,b} {1} {n:3} { n }"),
        ("{{{n}}}", "{{n}}"),
        ("{attempt} {{attempt}} {limit}", "{attempt} {{attempt}} {limit}"),
        ("", ""),
    ],
)
def test_only_what_is_known_is_filled_in(text, filled):
    assert fill(text, KNOWN) == filled


def test_values_are_quoted_for_a_shell():
    assert fill("wc {sample}", {"sample": "a; rm -rf $HOME"}, quote=shlex.quote) == "wc 'a; rm -rf $HOME'"


def test_values_are_not_filled_in_themselves():
    assert fill("{a} {b}", {"a": "{b}", "b": "{a}"}) == "{b} {a}"
    first = fill("{a} {attempt}", {"a": "x{attempt}{{limit}}${attempt}"}, later=LATER)
    assert fill(first, {"attempt": "2", "limit": "9"}) == "x{attempt}{{limit}}${attempt} 2"


def test_nearly_known_names_are_found():
    assert mistyped(["{smaple} {print} {atempt} ${samples}", "{smaple}"], [*KNOWN, *LATER]) == [
        ("smaple", "sample"),
        ("atempt", "attempt"),
    ]
    assert words("{a} {{b}} ${c} {d}") == ["a", "d"]
