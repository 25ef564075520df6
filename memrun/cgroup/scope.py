"""A delegated scope from the systemd that owns the tree: StartTransientUnit over D-Bus, and the wait until we are in it.

systemd makes a group and moves this very process into it; with Delegate=yes what is below is ours, and systemd stays out of it
(its own rule: a single writer for each part of the tree). The scope is gone as soon as nobody is in it: when memrun ends, or
after kill -9 of it when the dead man's hand (which is in the scope too, and so are the jobs) has done its work. So nothing of
ours has to remember it, and it is made before the hand is spread: until there is a job there is nothing to clean up.

Talks first to the systemd itself (its private socket, as systemctl and systemd-run do: one hop, and no message bus needed), else
over the bus. PIDs=[0] means "whoever sent this", which systemd learns from the socket: our own number could be that of somebody
else where it lives in another pid namespace. Blocking, with a deadline; jeepney is loaded only here, and only when there
is a socket to talk to.
"""

from __future__ import annotations

import os
import time

from memrun.errors import NoCgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jeepney import Message

PATIENCE = 10.0  # seconds for everything; a scope takes 10 to 30 ms
SYSTEMD = "org.freedesktop.systemd1"
BUS = "org.freedesktop.DBus"


class NoScopeError(NoCgroupError):
    """systemd gave no scope, or there is none to ask."""


def runtime_directory(uid: int, environ: Mapping[str, str]) -> str:
    """The user's runtime directory, also where cron, su or sudo dropped XDG_RUNTIME_DIR or left somebody else's. It need
    not exist."""
    announced = environ.get("XDG_RUNTIME_DIR", "")
    try:
        if announced.startswith("/") and os.stat(announced).st_uid == uid:
            return announced
    except OSError:
        pass
    return f"/run/user/{uid}"


def doors(uid: int, environ: Mapping[str, str]) -> list[tuple[str, bool]]:
    """(socket, whether a message bus is behind it) of the systemd to ask, best first; those that are not there are left out."""
    if uid == 0:
        known = [("/run/systemd/private", False), ("/run/dbus/system_bus_socket", True)]
    else:
        runtime = runtime_directory(uid, environ)
        known = [(f"{runtime}/systemd/private", False), (f"{runtime}/bus", True)]
    return [(path, bus) for path, bus in known if os.access(path, os.W_OK)]


def left(top: str, uid: int) -> list[str]:
    """The scopes of this user's memruns that are there now: directories. They hold what memrun left behind, if its hand died, too."""
    slices = [f"{top}/memrun.slice"] if uid == 0 else [f"{top}/user.slice/user-{uid}.slice/user@{uid}.service/app.slice"]
    return [entry for slice_ in slices for entry in _scopes_in(slice_)]


def _scopes_in(slice_: str) -> list[str]:
    try:
        names = os.listdir(slice_)
    except OSError:
        return []
    return [f"{slice_}/{name}" for name in names if name.startswith("memrun-") and name.endswith(".scope")]


def properties(slice_: str) -> list[tuple[str, tuple[str, object]]]:
    """Of the scope: (name, (D-Bus type, value))."""
    wanted: list[tuple[str, tuple[str, object]]] = [
        ("Description", ("s", "jobs of memrun")),
        ("PIDs", ("au", [0])),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),  # gone when it is empty, however it ended
    ]
    return [*wanted, ("Slice", ("s", slice_))] if slice_ else wanted


def request(name: str, slice_: str) -> Message:
    """The call that makes the scope and moves its sender there."""
    return _call("StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties(slice_), []))


def obtain(name: str, slice_: str, ways: Sequence[tuple[str, bool]]) -> None:
    """Be in a new scope of this name when this returns; NoScopeError with systemd's own words otherwise."""
    said = "there is no systemd of this user's to ask"
    for path, bus in ways:
        try:
            talk = _Talk(path)
        except (OSError, ValueError) as e:  # ValueError: jeepney's, about a failed authentication
            said = f"{path}: {os.strerror(e.errno) if isinstance(e, OSError) and e.errno else e}"
            continue
        try:
            return _in_a_scope(talk, name, slice_, bus=bus)
        except OSError as e:  # the connection broke, or nobody answered in time
            said = f"systemd did not answer at {path} ({e})"
        finally:
            talk.close()
    raise NoScopeError(said)


def _in_a_scope(talk: _Talk, name: str, slice_: str, *, bus: bool) -> None:
    if bus:
        talk.ask(_call("Hello", "", (), BUS))
        rule = f"type='signal',interface='{SYSTEMD}.Manager',member='JobRemoved'"
        talk.ask(_call("AddMatch", "s", (rule,), BUS))
        talk.ask(_call("Subscribe", "", ()))
    talk.ask(request(name, slice_))
    result = talk.hear_of(name)  # the answer comes before we are there
    if result != "done":
        raise NoScopeError(f"systemd could not move memrun into a scope ({result})")


def _call(method: str, signature: str, body: tuple[object, ...], to: str = SYSTEMD) -> Message:
    from jeepney import DBusAddress, new_method_call

    if to == BUS:
        address = DBusAddress("/org/freedesktop/DBus", BUS, BUS)
    else:
        address = DBusAddress("/org/freedesktop/systemd1", SYSTEMD, f"{SYSTEMD}.Manager")
    return new_method_call(address, method, signature or None, body)


class _Talk:
    """A connection, authenticated. What comes in while an answer is awaited is kept: the news may be faster than the answer."""

    def __init__(self, path: str) -> None:
        from jeepney import Parser
        from jeepney.io.blocking import prep_socket

        self._until = time.monotonic() + PATIENCE
        self._socket = prep_socket(path, timeout=PATIENCE)
        self._parser = Parser()
        self._serial = 0
        self._kept: list[Message] = []

    def close(self) -> None:
        self._socket.close()

    def ask(self, message: Message) -> tuple[object, ...]:
        """The answer's body; NoScopeError where it is an error."""
        from jeepney import HeaderFields, MessageType

        self._serial += 1
        self._socket.settimeout(self._left())
        self._socket.sendall(message.serialise(serial=self._serial))
        while True:
            heard = self._next()
            if heard.header.fields.get(HeaderFields.reply_serial) == self._serial:
                break
            self._kept.append(heard)
        if heard.header.message_type is MessageType.error:
            raise NoScopeError(f"systemd refuses: {heard.body[0] if heard.body else 'it does not say why'}")
        body: tuple[object, ...] = heard.body
        return body

    def hear_of(self, unit: str) -> str:
        """How the job that systemd has for this unit ended: 'done', or another word."""
        from jeepney import HeaderFields

        while True:
            heard = self._kept.pop(0) if self._kept else self._next()
            if heard.header.fields.get(HeaderFields.member) == "JobRemoved" and heard.body[2] == unit:
                return str(heard.body[3])

    def _next(self) -> Message:
        while (message := self._parser.get_next_message()) is None:
            self._socket.settimeout(self._left())
            data = self._socket.recv(4096)
            if not data:
                raise ConnectionResetError("it hung up")
            self._parser.add_data(data)
        return message

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("its time is up")
        return left
