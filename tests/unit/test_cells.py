"""Text in the cells of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrun.views import cells

printable = st.text().map(cells.plain)


@pytest.mark.parametrize(
    ("text", "most", "fitted"),
    [
        ("align[sample=a]", 15, "align[sample=a]"),
        ("align[sample=a]", 10, "alig…le=a]"),
        ("align[sample=a]", 3, "a…]"),
        ("align[sample=a]", 2, "al"),
        ("align", 0, ""),
        ("漢字漢字漢字", 7, "漢字…字"),
        ("größe", 4, "g…ße"),
    ],
)
def test_the_middle_goes(text, most, fitted):
    assert cells.fit(text, most) == fitted


@given(printable, st.integers(0, 40))
def test_nothing_is_wider_than_it_may_be(text, most):
    assert cells.width(cells.fit(text, most)) <= most
    assert cells.width(cells.cut(text, most)) <= most
    assert cells.width(cells.pad(text, most)) == max(most, cells.width(text))


@given(st.text())
def test_what_is_plain_is_obeyed_by_no_terminal(text):
    assert cells.plain(text).isprintable()
    assert cells.plain("a\tb") == "a       b"


@given(st.lists(st.tuples(printable, printable, st.text()), max_size=5), st.integers(0, 60))
def test_a_table_stays_within_its_width(rows, most):
    lines = cells.table(("NAME", "STATE", "WHY"), rows, most)
    assert len(lines) == len(rows) + 1
    assert all(cells.width(line) <= most for line in lines)


def test_columns_stand_below_each_other():
    rows = [("größe漢字", "3", "x"), ("a", "12", "")]
    assert cells.table(("JOB", "N", ""), rows, right=(1,)) == ["JOB         N", "größe漢字   3  x", "a          12"]
