"""Sizes and durations: what people write, and what they get to read."""

from __future__ import annotations

import pytest

from memrun.errors import UsageError
from memrun.units import LARGEST, Share, format_duration, format_size, parse_bytes, parse_duration, parse_size

K, M, G = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("5242880", 5 * M),
        ("5M", 5 * M),
        ("5m", 5 * M),
        ("5MB", 5 * M),
        ("5MiB", 5 * M),
        ("5mib", 5 * M),
        (" 5 M ", 5 * M),
        ("512KiB", 512 * K),
        ("1.5G", 3 * G // 2),
        (".5G", G // 2),
        ("5.M", 5 * M),
        ("0.1k", 102),
        ("1.9", 1),
        ("12b", 12),
        ("1E", LARGEST),
        ("3T", 3 << 40),
        ("2P", 2 << 50),
        ("9007199254740993", 9007199254740993),  # what a float cannot hold
        ("00005M", 5 * M),
        ("infinity", None),
        ("Infinity", None),
        ("max", None),
        ("-1", None),
        ("50%", Share(5000)),
        ("0.01%", Share(1)),
        ("33.33 %", Share(3333)),
        ("100%", Share(10000)),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", ".", "M", "b", "-5M", "+5M", "5X", "5MM", "5ib", "5i", "5bi", "5Mi B", "1.2.3M", "0x10", "1e9", "1_000", "inf",
     "nan", "\u0663M", "5 M M", "0%", "100.01%", "101%", "%", "-5%", "5%%", "2E", "1" * 41, "5M\0", "\uff15M"],
)  # fmt: skip
def test_what_is_no_size_is_said_to_be_none(text):
    with pytest.raises(UsageError) as e:
        parse_size(text)
    assert repr(text) in e.value.what
    assert e.value.remedy
    assert e.value.status == 125


@pytest.mark.parametrize("text", ["infinity", "50%"])
def test_a_number_of_bytes_is_neither_infinite_nor_a_share(text):
    assert parse_bytes("5M") == 5 * M
    with pytest.raises(UsageError, match="not a number of bytes"):
        parse_bytes(text)


def test_a_share_is_rounded_down():
    assert Share(5000).of(101) == 50
    assert Share(1).of(9999) == 0
    assert Share(10000).of(LARGEST) == LARGEST
    assert repr(Share(3333)) == "33.33%"
    assert {Share(1), Share(1), Share(2)} == {Share(1), Share(2)}
    assert Share(5) != 5


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "infinity"),
        (0, "0B"),
        (1023, "1023B"),
        (K, "1K"),
        (5 * M, "5M"),
        (5000 * K, "4.88M"),
        (50000 * K, "48.8M"),
        (500000 * K, "488M"),
        (G, "1G"),
        (LARGEST, "1E"),
        (3 * G // 2, "1.50G"),
    ],
)
def test_sizes_as_people_read_them(size, text):
    assert format_size(size) == text


def test_a_size_just_below_a_unit_is_still_readable():
    assert format_size(M - 1) in {"1024K", "1M", "1.00M"}
    assert format_size(10 * M - 1) in {"10.00M", "10.0M"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("1.5h", 5400), ("1h30m", 5400), ("1h 30m", 5400), ("250ms", 0.25), ("2 min", 120),
     ("1d", 86400), ("1w", 604800), ("infinity", None), ("1M", 60), ("0.5", 0.5), (" 7 sec ", 7)],
)  # fmt: skip
def test_durations_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "1x", "1h30", "30 1h", "-1", "1..5s", ".", "1e3", "nan", "inf", "1y", "99999999999", "9" * 400]
)
def test_what_is_no_duration_is_said_to_be_none(text):
    with pytest.raises(UsageError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 s"), (0.034, "0.03 s"), (4.24, "4.2 s"), (60, "1 min"), (200, "3 min 20 s"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_durations_as_people_read_them(seconds, text):
    assert format_duration(seconds) == text


def test_no_duration_has_sixty_of_a_smaller_unit():
    for tenths in range(590, 72100):
        text = format_duration(tenths / 10)
        assert not text.startswith("60"), text
        assert " 60 " not in text, text


def test_parts_of_an_hour_do_not_become_days_of_rounding():
    assert format_duration(59.96) in {"60.0 s", "1 min"}
    assert format_duration(0.0999) in {"0.10 s", "0.1 s"}
