"""The socket through which another memrun asks and commands: a unix socket, 0600 in a 0700 directory, same user or root only.

One JSON object a line comes in, one (for `events` many) goes out. There is a fixed list of verbs, and none of them starts a program.
Lines, clients and silence are bounded; garbage is refused with one line, and logged with who sent it. No client can hold up the
supervisor: answers are sent by a task of the client's own, and who reads too slowly is dropped.

`events` answers with what has happened so far and, with `follow`, goes on with what happens then: nothing is between the two.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Protocol

import trio

from memrun.door import SILENCE, open_door, who
from memrun.errors import MemrunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from memrun.door import Door

Words = dict[str, object]
VERBS = {"ps", "raise", "pause", "resume", "restart", "stop", "kill", "signal", "show", "set", "reclaim", "wait", "events"}
LONGEST = 1 << 16  # bytes of a request
MOST = 64  # clients at a time
LAST_WORDS = 0.3  # seconds for answers that are under way when the last job has ended
SLOW = 5.0  # seconds that it may take to read an answer


class Answerer(Protocol):
    """Who knows the jobs: see desk.py."""

    def jobs(self) -> list[Words]:
        """One row for each job."""

    async def command(self, name: str, verb: str, words: Words) -> Words:
        """Carry it out, or MemrunError."""

    def past(self) -> list[Words]:
        """Events so far, as many as are kept."""

    def subscribe(self) -> trio.MemoryReceiveChannel[Words]:
        """Events from now on."""

    def refused(self, what: str) -> None:
        """Somebody was turned away: to be logged."""


class Kept:
    """What another has kept for the one who serves: an open door, and who is in already, each with what he has said."""

    __slots__ = ("door", "guests")

    def __init__(self, door: Door, guests: list[tuple[int, bytes]]) -> None:
        self.door, self.guests = door, guests


async def serve(
    answerer: Answerer, remark: Callable[[str], None], over: trio.Event, pid: int = 0, kept: Kept | None = None
) -> None:
    """Listen until it is over, under the pid by which we are known (ours). Where there is no place for a socket the job runs all the same; `remark` is told."""
    door, why = (kept.door, "") if kept is not None else open_door(pid)
    if door is None:
        remark(why)
        return
    wire = _taken(door.handed_over())
    gate = trio.CapacityLimiter(MOST)
    try:
        async with trio.open_nursery() as nursery:
            for fd, held in kept.guests if kept is not None else []:
                nursery.start_soon(_attend, _taken(fd), answerer, gate, held)
            nursery.start_soon(_accept, wire, answerer, gate, nursery)
            await over.wait()
            nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
            wire.close()
    finally:
        wire.close()
        door.close()


def _taken(fd: int) -> trio.socket.SocketType:
    return trio.socket.from_stdlib_socket(socket.socket(fileno=fd))


async def _accept(wire: trio.socket.SocketType, answerer: Answerer, gate: trio.CapacityLimiter, nursery: trio.Nursery) -> None:
    while True:
        try:
            client, _ = await wire.accept()
        except trio.ClosedResourceError:
            return
        except OSError:
            await trio.sleep(SILENCE / 100)  # out of descriptors: not our reason to end
            continue
        nursery.start_soon(_attend, client, answerer, gate)


async def _attend(client: trio.socket.SocketType, answerer: Answerer, gate: trio.CapacityLimiter, held: bytes = b"") -> None:
    try:
        gate.acquire_nowait()
    except trio.WouldBlock:
        client.close()
        return
    try:
        pid, uid = who(client)
        if uid in {0, os.geteuid()}:
            await _converse(client, answerer, pid, held)
        else:
            answerer.refused(f"user {uid} (pid {pid}) may not ask here")
    except OSError:
        return  # it left
    finally:
        gate.release()
        client.close()


async def _converse(client: trio.socket.SocketType, answerer: Answerer, pid: int, held: bytes) -> None:
    while True:
        with trio.move_on_after(SILENCE) as patience:
            while b"\n" not in held and len(held) <= LONGEST:
                more = await client.recv(4096)
                if not more:
                    return
                held += more
        if patience.cancelled_caught:
            return
        line, found, held = held.partition(b"\n")
        words = _parsed(line) if found else None
        if words is None:
            answerer.refused(f"pid {pid} sent what is no request: {line[:40]!r}{'...' if len(line) > 40 or not found else ''}")
            await _say(client, {"ok": False, "error": "that is not a request", "remedy": "One JSON object a line"})
            return
        if words["verb"] == "events":
            await _stream(client, answerer, words)
            return
        await _say(client, await _answer(answerer, words))


def _parsed(line: bytes) -> Words | None:
    """A request with a verb that there is and nothing but plain words in it, or None."""
    try:
        words = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, dict):
        return None
    values = words.get("values")
    plain = [value for key, value in words.items() if key != "values"] + (
        list(values.values()) if isinstance(values, dict) else [values]
    )
    if not all(value is None or isinstance(value, (str, int, float)) for value in plain):
        return None
    return words if words.get("verb") in VERBS else None


async def _answer(answerer: Answerer, words: Words) -> Words:
    try:
        if words["verb"] == "ps":
            return {"ok": True, "jobs": answerer.jobs()}
        return {"ok": True, **await answerer.command(str(words.get("name")), str(words["verb"]), words)}
    except MemrunError as e:
        return {"ok": False, "error": e.what, "remedy": e.remedy}


async def _stream(client: trio.socket.SocketType, answerer: Answerer, words: Words) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_it_leaves, client, nursery.cancel_scope)
        nursery.start_soon(_tell, client, answerer, words)


async def _tell(client: trio.socket.SocketType, answerer: Answerer, words: Words) -> None:
    async with answerer.subscribe() as lines:
        try:
            await _say(client, {"ok": True})
            for line in answerer.past():
                await _say_if(client, words, line)
            while words.get("follow"):
                await _say_if(client, words, await lines.receive())
        except (OSError, trio.EndOfChannel):
            return
        finally:
            client.shutdown(socket.SHUT_RDWR)  # ends the other task, too


async def _say_if(client: trio.socket.SocketType, words: Words, line: Words) -> None:
    if words.get("name") in {None, "", line.get("name")}:
        await _say(client, line)


async def _until_it_leaves(client: trio.socket.SocketType, scope: trio.CancelScope) -> None:
    try:
        while await client.recv(4096):
            continue
    except OSError:
        return
    finally:
        scope.cancel()


async def _say(client: trio.socket.SocketType, words: Words) -> None:
    data = json.dumps(words, default=str).encode() + b"\n"
    with trio.move_on_after(SLOW) as patience:
        while data:
            data = data[await client.send(data) :]
    if patience.cancelled_caught:
        raise BrokenPipeError
