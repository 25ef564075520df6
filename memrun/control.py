"""The socket through which another memrun asks and commands: a unix socket, 0600 in a 0700 directory, same user or root only.

One JSON object a line comes in, one (for `events` many) goes out. There is a fixed list of verbs, and none of them starts a program.
Lines, clients (connections.py) and silence are bounded; garbage is refused with one line, and logged with who sent it. No client can hold up
the supervisor: answers are sent by a task of the client's own, and who reads too slowly is dropped.

`events` answers with what has happened so far and, with `follow`, goes on with what happens then: nothing is between the two.
"""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from memrun.connections import Connections
from memrun.door import SILENCE, open_door, who
from memrun.errors import MemrunError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from memrun.door import Door

Words = dict[str, object]
Said = TypeVar("Said")
VERBS = {"ps", "raise", "pause", "resume", "restart", "stop", "kill", "signal", "show", "set", "reclaim", "wait", "events"}
LONGEST = 1 << 16  # bytes of a request
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
    known = Connections()
    try:
        async with trio.open_nursery() as beside:
            beside.start_soon(known.serve)
            async with trio.open_nursery() as nursery:
                for fd, held in kept.guests if kept is not None else []:
                    nursery.start_soon(_attend, _taken(fd), answerer, known, held)
                nursery.start_soon(_accept, wire, answerer, known, nursery)
                await over.wait()
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS
                wire.close()
            beside.cancel_scope.cancel()
    finally:
        known.close()
        wire.close()
        door.close()


def _taken(fd: int) -> trio.socket.SocketType:
    return trio.socket.from_stdlib_socket(socket.socket(fileno=fd))


async def _accept(wire: trio.socket.SocketType, answerer: Answerer, known: Connections, nursery: trio.Nursery) -> None:
    while True:
        try:
            client, _ = await wire.accept()
        except trio.ClosedResourceError:
            return
        except OSError:  # out of descriptors: not our reason to end
            known.drop()
            await trio.sleep(SILENCE / 100)
            continue
        nursery.start_soon(_attend, client, answerer, known)


async def _attend(client: trio.socket.SocketType, answerer: Answerer, known: Connections, held: bytes = b"") -> None:
    try:
        pid, uid = who(client)
        if uid in {0, os.geteuid()}:
            with trio.CancelScope() as scope:
                known.enter(scope)
                try:
                    await _Conversation(client, answerer, known, scope, pid).hold(held)
                finally:
                    known.leave(scope)
        else:
            answerer.refused(f"user {uid} (pid {pid}) may not ask here")
    except OSError:
        return  # it left
    finally:
        client.close()


class _Conversation:
    """With one client."""

    def __init__(
        self, client: trio.socket.SocketType, answerer: Answerer, known: Connections, scope: trio.CancelScope, pid: int
    ) -> None:
        self._client, self._answerer, self._known, self._scope, self._pid = client, answerer, known, scope, pid

    async def hold(self, held: bytes) -> None:
        """Until the client has nothing more to say. `held`: what it has said already."""
        while True:
            with trio.move_on_after(SILENCE) as patience:
                while b"\n" not in held and len(held) <= LONGEST:
                    more = await self._client.recv(4096)
                    if not more:
                        return
                    held += more
            if patience.cancelled_caught:
                return
            self._known.heard(self._scope)
            line, found, held = held.partition(b"\n")
            words = _parsed(line) if found else None
            if words is None:
                what = f"{line[:40]!r}{'...' if len(line) > 40 or not found else ''}"
                self._answerer.refused(f"pid {self._pid} sent what is no request: {what}")
                await _say(self._client, {"ok": False, "error": "that is not a request", "remedy": "One JSON object a line"})
                return
            if not await self._reply(words):
                return

    async def _reply(self, words: Words) -> bool:
        """Whether more may be asked after that."""
        try:
            if words["verb"] == "events":
                await self._while_it_waits(_tell, self._client, self._answerer, words)
                return False
            await _say(self._client, {"ok": True, **await self._answer(words)})
        except MemrunError as e:
            await _say(self._client, {"ok": False, "error": e.what, "remedy": e.remedy})
        return True

    async def _answer(self, words: Words) -> Words:
        if words["verb"] == "ps":
            return {"jobs": self._answerer.jobs()}
        name, verb = str(words.get("name")), str(words["verb"])
        if verb != "wait":
            return await self._answerer.command(name, verb, words)
        return await self._while_it_waits(self._answerer.command, name, verb, words)

    async def _while_it_waits(self, act: Callable[..., Awaitable[Said]], *args: object) -> Said:
        fd = self._client.fileno()
        self._known.wait(self._scope, fd)
        try:
            return await act(*args)
        finally:
            self._known.go_on(self._scope, fd)


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


async def _say_if(client: trio.socket.SocketType, words: Words, line: Words) -> None:
    if words.get("name") in {None, "", line.get("name")}:
        await _say(client, line)


async def _say(client: trio.socket.SocketType, words: Words) -> None:
    data = json.dumps(words, default=str).encode() + b"\n"
    with trio.move_on_after(SLOW) as patience:
        while data:
            data = data[await client.send(data) :]
    if patience.cancelled_caught:
        raise BrokenPipeError
