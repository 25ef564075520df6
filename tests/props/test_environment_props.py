"""Environment files: anything is variables or a complaint, and what is quoted comes back as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memrun.environment import is_name, parse
from memrun.errors import MemrunError

bits = st.sampled_from(["A", "=", "'", '"', "\\", " ", "\t", "\n", "\r\n", "#", ";", "\0", "$", "é", "export "])


@given(st.lists(bits | st.text(max_size=4), max_size=30))
def test_any_text_is_variables_or_a_complaint(pieces):
    try:
        found = parse("".join(pieces), "f")
    except MemrunError as e:
        assert e.what.startswith("f, line ")
    else:
        assert all(is_name(name) and "\0" not in value for name, value in found.items())


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), st.text(st.characters(exclude_characters="\0\r'")))
)
def test_what_is_quoted_comes_back(variables):
    assert parse("".join(f"{name}='{value}'\n" for name, value in variables.items()), "f") == variables


@given(st.text(st.characters(exclude_characters="\0\r")))
def test_double_quotes_too(value):
    escaped = "".join("\\" + c if c in '\\"`$' else c for c in value)
    assert parse(f'A="{escaped}"', "f") == {"A": value}
