"""Sizes and durations, on values that nobody would think of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memrun.errors import UsageError
from memrun.units import LARGEST, Share, format_duration, format_size, parse_bytes, parse_duration, parse_size

sizes = st.integers(0, LARGEST) | st.builds(lambda n, e: min(n << e, LARGEST), st.integers(0, 1023), st.integers(0, 60))
almost = st.text("0123456789.kKmMgGiIbB%-+ eE٣", max_size=12) | st.text()


@given(sizes)
def test_bare_bytes_are_exact(size):
    assert parse_bytes(str(size)) == size
    assert parse_bytes(f" {size} b ") == size


@given(st.integers(0, 1023), st.sampled_from("kmgtpe"), st.sampled_from(["", "b", "ib", "B", "iB"]))
def test_suffixes_are_powers_of_two(number, letter, rest):
    exact = number << (10 * ("kmgtpe".index(letter) + 1))
    for text in (f"{number}{letter}{rest}", f"{number}{letter.upper()}{rest}"):
        if exact > LARGEST:
            continue
        assert parse_size(text) == exact


@given(sizes)
def test_what_is_shown_can_be_typed_again(size):
    shown = format_size(size)
    back = parse_bytes(shown)
    if "." not in shown and not shown.endswith("B"):
        assert back == size or abs(back - size) <= size / 200
    assert abs(back - size) <= size / 190 + 1
    assert len(shown) <= 6


@given(st.integers(0, 1023), st.integers(0, 6))
def test_exact_ones_come_back_exactly(number, power):
    size = number << (10 * power)
    if size <= LARGEST:
        assert parse_size(format_size(size)) == size
    assert parse_size(format_size(None)) is None


@given(st.integers(0, 99_999), st.integers(0, 4))
def test_fractions_are_rounded_down(thousandths, power):
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}" + ["", "K", "M", "G", "T"][power]
    assert parse_size(text) == thousandths * (1 << 10 * power) // 1000


@given(st.integers(1, 10000), st.integers(0, LARGEST))
def test_shares(hundredths, whole):
    share = parse_size(f"{hundredths // 100}.{hundredths % 100:02d}%")
    assert share == Share(hundredths)
    assert 0 <= share.of(whole) <= whole
    assert parse_size(repr(share)) == share


@given(almost)
def test_any_text_is_a_size_or_said_not_to_be(text):
    try:
        size = parse_size(text)
    except UsageError as e:
        assert e.remedy
    else:
        assert size is None or isinstance(size, Share) or 0 <= size <= LARGEST


@given(almost | st.text("0123456789.mshdwin ", max_size=12))
def test_any_text_is_a_duration_or_said_not_to_be(text):
    try:
        seconds = parse_duration(text)
    except UsageError as e:
        assert e.remedy
    else:
        assert seconds is None or 0 <= seconds <= 1e10


@given(st.integers(0, 100), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.floats(0, 1e9))
def test_every_duration_can_be_shown(seconds):
    shown = format_duration(seconds)
    assert shown.isascii()
    assert len(shown) < 20
