"""Our D-Bus against jeepney's: each reads what the other has written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jeepney import DBusAddress, HeaderFields, Parser, new_error, new_method_call, new_method_return, new_signal
from jeepney.low_level import Endianness

from memrun.cgroup import dbus

TO = ("a.b", "/a/b", "a.b.C")
ADDRESS = DBusAddress("/a/b", "a.b", "a.b.C")
TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
NUMBER = st.integers(0, 2**32 - 1)
VARIANT = st.one_of(
    st.tuples(st.just("s"), TEXT),
    st.tuples(st.just("u"), NUMBER),
    st.tuples(st.just("b"), st.booleans()),
    st.tuples(st.just("au"), st.lists(NUMBER, max_size=4)),
)
PAIRS = st.lists(st.tuples(TEXT, VARIANT), max_size=4)
CALLS = st.one_of(
    st.tuples(st.just(""), st.just(())),
    st.tuples(st.just("s"), st.tuples(TEXT)),
    st.tuples(st.just("ssa(sv)a(sa(sv))"), st.tuples(TEXT, TEXT, PAIRS, st.lists(st.tuples(TEXT, PAIRS), max_size=2))),
)


def read(data):
    parser = Parser()
    parser.add_data(data)
    return parser.get_next_message()


@given(CALLS, st.integers(1, 2**32 - 1), st.text("abcXYZ_09", min_size=1, max_size=9).map(lambda name: f"M{name}"))
def test_what_we_write_is_what_jeepney_writes(words, serial, member):
    signature, body = words
    ours = dbus.call(serial, TO, member, signature, body)
    theirs = new_method_call(ADDRESS, member, signature or None, body)
    heard = read(ours)
    assert heard.body == body
    assert heard.header.fields == theirs.header.fields
    assert heard.header.serial == serial
    assert len(ours) == len(theirs.serialise(serial=serial))


@given(NUMBER, TEXT, TEXT, st.sampled_from(Endianness))
def test_what_jeepney_writes_is_read(number, unit, result, order):
    message = new_signal(ADDRESS, "JobRemoved", "uoss", (number, "/job", unit, result))
    message.header.endianness = order
    heard, size = dbus.parse(data := message.serialise(serial=3))
    assert size == len(data)
    assert heard is not None
    assert (heard.kind, heard.body) == (dbus.SIGNAL, [number, "/job", unit, result])
    assert heard.fields[dbus.MEMBER] == "JobRemoved"


def test_answers_are_told_from_errors():
    asked = read(dbus.call(7, TO, "Start"))
    heard, _ = dbus.parse(new_error(asked, "a.b.Error", "s", ("no",)).serialise(serial=1))
    assert heard is not None
    assert (heard.kind, heard.body, heard.fields[dbus.REPLY_SERIAL]) == (dbus.ERROR, ["no"], 7)
    heard, _ = dbus.parse(new_method_return(asked, "a{sv}", ({"x": ("s", "y")},)).serialise(serial=1))
    assert heard is not None
    assert (heard.kind, heard.body) == (2, [])  # what nobody asks for is not read
    assert HeaderFields.reply_serial == dbus.REPLY_SERIAL


@given(st.data())
def test_a_part_of_a_message_is_waited_for(data):
    whole = new_signal(ADDRESS, "JobRemoved", "uoss", (1, "/job", "a", "done")).serialise(serial=3)
    assert dbus.parse(whole[: data.draw(st.integers(0, len(whole) - 1))]) == (None, 0)
    heard, size = dbus.parse(whole + b"more")
    assert heard is not None
    assert size == len(whole)


@given(st.binary(max_size=80), st.integers(0, 79), st.integers(0, 255))
def test_nonsense_is_refused_or_waited_for(noise, at, byte):
    whole = bytearray(new_signal(ADDRESS, "JobRemoved", "uoss", (1, "/job", "a", "done")).serialise(serial=3))
    whole[at % len(whole)] = byte
    for data in (noise, bytes(whole)):
        try:
            message, size = dbus.parse(data)
        except ValueError:
            continue
        assert (message is None) == (size == 0)


def test_what_does_not_fit_its_type_is_not_sent():
    with pytest.raises(TypeError, match="is no"):
        dbus.call(1, TO, "Start", "u", ("text",))
