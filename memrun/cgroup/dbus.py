"""As much of D-Bus as it takes to ask systemd for a scope: one kind of call, and what comes back.

Why not a library: this is on the way to the command's first instruction, and importing one (jeepney, the smallest) takes 11 ms where
memrun's whole start takes 15, and 130 of 350 ms on a User-Mode Linux with systemd: typing, enum, re, selectors. Tests let jeepney
read all that is written here and write all that is read.

The wire format is that of the D-Bus specification ("Message Protocol"): values are aligned to their size, structs to 8 bytes; a message is a
fixed part, an array of (code, variant), padding to 8 bytes, a body. The authentication is sent together with the calls, before its answer is
there, as sd-bus does: the credentials are those of the socket, so nothing depends on what is answered before the first call is.
"""

from __future__ import annotations

import _socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    Order = Literal["little", "big"]

GREETING = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
CALL, ERROR, SIGNAL = 1, 3, 4  # what a message is
PATH, INTERFACE, MEMBER, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 5, 6, 8  # codes of header fields
ALIGNMENTS = {"y": 1, "g": 1, "v": 1, "u": 4, "b": 4, "s": 4, "o": 4, "a": 4, "(": 8}
BODY, FIELDS, FIXED = 4, 12, 16  # where the lengths of both stand, and where the fixed part ends
MOST = 1 << 27  # bytes of a message, by the specification


class Message:
    """What was heard: `body` as far as it consists of strings and numbers."""

    __slots__ = ("body", "fields", "kind")

    def __init__(self, kind: int, fields: dict[int, object], body: list[object]) -> None:
        self.kind, self.fields, self.body = kind, fields, body


def call(serial: int, to: tuple[str, str, str], member: str, signature: str = "", values: Sequence[object] = ()) -> bytes:
    """A method call. `to`: destination, path, interface. A variant is (type, value)."""
    destination, path, interface = to
    fields: list[object] = [
        (PATH, ("o", path)),
        (INTERFACE, ("s", interface)),
        (MEMBER, ("s", member)),
        (DESTINATION, ("s", destination)),
    ]
    if signature:
        fields.append((SIGNATURE, ("g", signature)))
    body, out = bytearray(), bytearray((ord("l" if sys.byteorder == "little" else "B"), CALL, 0, 1))
    _put(body, signature, values)
    _put(out, "uua(yv)", (len(body), serial, fields))
    _pad(out, 8)
    return bytes(out + body)


def _split(signature: str) -> Iterator[str]:
    """Its complete types."""
    begin = depth = 0
    for end, letter in enumerate(signature, 1):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and letter != "a":
            yield signature[begin:end]
            begin = end


def _pad(out: bytearray, size: int) -> None:
    out.extend(bytes(-len(out) % size))


def _number(out: bytearray, number: int) -> None:
    _pad(out, 4)
    out.extend(number.to_bytes(4, sys.byteorder))


def _put(out: bytearray, signature: str, values: Sequence[object]) -> None:
    for kind, value in zip(_split(signature), values, strict=True):
        _put_one(out, kind, value)


def _put_one(out: bytearray, kind: str, value: object) -> None:
    _pad(out, ALIGNMENTS[kind[0]])
    match kind[0], value:
        case "y", int():
            out.append(value)
        case "u" | "b", int():
            _number(out, value)
        case "s" | "o", str():
            text = value.encode()
            _number(out, len(text))
            out.extend(text + b"\0")
        case "g", str():
            out.extend(bytes((len(value),)) + value.encode() + b"\0")
        case "v", (str() as inner, content):
            _put_one(out, "g", inner)
            _put_one(out, inner, content)
        case "a", list():
            _put_array(out, kind[1:], value)
        case "(", tuple():
            _put(out, kind[1:-1], value)
        case _:
            raise TypeError(f"D-Bus: {value!r} is no {kind}")


def _put_array(out: bytearray, kind: str, values: list[object]) -> None:
    """Its length does not count the padding before the first element."""
    where = len(out)
    _number(out, 0)
    _pad(out, ALIGNMENTS[kind[0]])
    begin = len(out)
    for value in values:
        _put_one(out, kind, value)
    out[where : where + 4] = (len(out) - begin).to_bytes(4, sys.byteorder)


def parse(data: bytes) -> tuple[Message | None, int]:
    """(the message at the beginning of `data`, None if there is more to come, its length). ValueError: this is no D-Bus."""
    if len(data) < FIXED:
        return None, 0
    order = _order(data[0])
    body, fields = (int.from_bytes(data[at : at + 4], order) for at in (BODY, FIELDS))
    begin = (FIXED + fields + 7) // 8 * 8
    if begin + body > MOST:
        raise ValueError(f"no D-Bus: a message of {begin + body} bytes")
    if len(data) < begin + body:
        return None, 0
    found = dict(_fields(_Reader(data[: FIXED + fields], FIXED, order)))
    signature = found.get(SIGNATURE, "")
    values = _Reader(data[begin : begin + body], 0, order).known(signature) if isinstance(signature, str) else []
    return Message(data[1], found, values), begin + body


def _order(letter: int) -> Order:
    if letter not in b"lB":
        raise ValueError(f"no D-Bus: a message that begins with {letter}")
    return "little" if letter == ord("l") else "big"


def _fields(read: _Reader) -> Iterator[tuple[int, object]]:
    while read.left():
        read.align(8)
        code = read.byte()
        values = read.known(read.signature())
        if not values:
            return  # a type that no field has: whatever comes after it
        yield code, values[0]


class _Reader:
    """Reads values one after the other; ValueError where they do not fit."""

    def __init__(self, data: bytes, at: int, order: Order) -> None:
        self._data, self._at, self._order = data, at, order

    def left(self) -> bool:
        return self._at < len(self._data)

    def align(self, size: int) -> None:
        self._at += -self._at % size

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise ValueError("no D-Bus: a message that ends in the middle of a value")
        self._at += size
        return found

    def byte(self) -> int:
        return self._take(1)[0]

    def _number(self) -> int:
        self.align(4)
        return int.from_bytes(self._take(4), self._order)

    def signature(self) -> str:
        return self._take(self.byte() + 1)[:-1].decode(errors="replace")

    def known(self, signature: str) -> list[object]:
        """The values of that signature, up to the first that is neither text nor number."""
        values: list[object] = []
        for kind in signature:
            if kind in "so":
                values.append(self._take(self._number() + 1)[:-1].decode(errors="replace"))
            elif kind in "ub":
                values.append(self._number())
            elif kind == "g":
                values.append(self.signature())
            elif kind == "y":
                values.append(self.byte())
            else:
                break
        return values


class Talk:
    """A connection, and all that is said through it. OSError when it breaks, or its time is up; ValueError when it speaks something else."""

    def __init__(self, path: str, patience: float) -> None:
        self._until = time.monotonic() + patience
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._held = b""
        self._greeted = False
        try:
            self._socket.settimeout(patience)
            self._socket.connect(path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def say(self, *calls: bytes) -> None:
        """Everything that there is to say, with the greeting in front: to be called once."""
        self._socket.settimeout(self._left())
        self._socket.sendall(GREETING + b"".join(calls))

    def hear(self) -> Message:
        """The next message."""
        while not self._greeted:
            line, end, rest = self._held.partition(b"\r\n")
            if not end:
                self._more()
                continue
            self._held = rest
            if line.startswith((b"REJECTED", b"ERROR")):
                raise PermissionError(f"it does not know us ({line.decode(errors='replace')})")
            self._greeted = line.startswith(b"OK")
        while True:
            message, size = parse(self._held)
            if message is not None:
                self._held = self._held[size:]
                return message
            self._more()

    def _more(self) -> None:
        self._socket.settimeout(self._left())
        data = self._socket.recv(4096)
        if not data:
            raise ConnectionResetError("it hung up")
        self._held += data

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("its time is up")
        return left
