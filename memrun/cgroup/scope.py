"""A delegated scope from the systemd that owns the tree: StartTransientUnit over D-Bus, and the wait until we are in it.

systemd makes a group and moves this very process into it; with Delegate=yes what is below is ours, and systemd stays out of it
(its own rule: a single writer for each part of the tree). The scope is gone as soon as nobody is in it: when memrun ends, or
after kill -9 of it when the dead man's hand (which is in the scope too, and so are the jobs) has done its work. So nothing of
ours has to remember it, and it is made before the hand is spread: until there is a job there is nothing to clean up.

Talks first to the systemd itself (its private socket, as systemctl and systemd-run do: one hop, and no message bus needed), else
over the bus. PIDs=[0] means "whoever sent this", which systemd learns from the socket: our own number could be that of somebody
else where it lives in another pid namespace. Blocking, with a deadline. All calls are sent at once: each is carried out in its turn.
"""

from __future__ import annotations

import os

from memrun.cgroup import dbus
from memrun.errors import NoCgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATIENCE = 10.0  # seconds for everything; a scope takes 10 to 30 ms
SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


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


def requests(name: str, slice_: str, *, bus: bool) -> list[bytes]:
    """The call that makes the scope and moves its sender there, and before it what a message bus wants to hear; their serials count from 1."""
    said = f"type='signal',interface='{SYSTEMD[2]}',member='JobRemoved'"
    calls: list[tuple[tuple[str, str, str], str, str, tuple[object, ...]]] = [
        (BUS, "Hello", "", ()),
        (BUS, "AddMatch", "s", (said,)),
        (SYSTEMD, "Subscribe", "", ()),
        (SYSTEMD, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties(slice_), [])),
    ]
    return [dbus.call(serial, *words) for serial, words in enumerate(calls if bus else calls[-1:], 1)]


def obtain(name: str, slice_: str, ways: Sequence[tuple[str, bool]]) -> None:
    """Be in a new scope of this name when this returns; NoScopeError with systemd's own words otherwise."""
    said = "there is no systemd of this user's to ask"
    for path, bus in ways:
        try:
            talk = dbus.Talk(path, PATIENCE)
        except OSError as e:
            said = f"{path}: {os.strerror(e.errno) if e.errno else e}"
            continue
        try:
            return _in_a_scope(talk, name, requests(name, slice_, bus=bus))
        except (OSError, ValueError) as e:  # the connection broke, nobody answered in time, or somebody else is there
            said = f"systemd did not answer at {path} ({e})"
        finally:
            talk.close()
    raise NoScopeError(said)


def _in_a_scope(talk: dbus.Talk, name: str, calls: list[bytes]) -> None:
    """The answer comes before we are there, so what is waited for is the news that systemd's job is done."""
    talk.say(*calls)
    while True:
        heard = talk.hear()
        if heard.kind == dbus.ERROR:
            raise NoScopeError(f"systemd refuses: {heard.body[0] if heard.body else 'it does not say why'}")
        if heard.kind == dbus.SIGNAL and heard.fields.get(dbus.MEMBER) == "JobRemoved" and heard.body[2:3] == [name]:
            break
    result = heard.body[3] if len(heard.body) > 3 else ""
    if result != "done":
        raise NoScopeError(f"systemd could not move memrun into a scope ({result})")
