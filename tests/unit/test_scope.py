"""The message to systemd, and the talk with it: a socket pair stands in for systemd."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

import pytest
from jeepney import DBusAddress, HeaderFields, Parser, new_error, new_method_return, new_signal

from memrun.cgroup import scope

SYSTEMD = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")


@pytest.mark.parametrize("bus", [False, True])
def test_the_request_says_what_it_has_to(bus):
    parser = Parser()
    parser.add_data(b"".join(scope.requests("memrun-1-ab12.scope", "memrun.slice", bus=bus)))
    messages = list(iter(parser.get_next_message, None))
    members = [message.header.fields[HeaderFields.member] for message in messages]
    assert members == [*(["Hello", "AddMatch", "Subscribe"] if bus else []), "StartTransientUnit"]
    assert [message.header.serial for message in messages] == list(range(1, len(messages) + 1))
    if bus:
        rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'"
        assert messages[1].body == (rule,)
        assert messages[1].header.fields[HeaderFields.destination] == "org.freedesktop.DBus"
    message = messages[-1]
    fields = message.header.fields
    assert fields[HeaderFields.destination] == "org.freedesktop.systemd1"
    assert fields[HeaderFields.member] == "StartTransientUnit"
    name, mode, properties, auxiliary = message.body
    assert (name, mode, auxiliary) == ("memrun-1-ab12.scope", "fail", [])
    asked = dict(properties)
    assert asked["Delegate"] == ("b", True)
    assert asked["PIDs"] == ("au", [0])  # whoever sent this, as systemd sees it: our own number may be another's there
    assert asked["CollectMode"] == ("s", "inactive-or-failed")
    assert asked["Slice"] == ("s", "memrun.slice")
    assert "Slice" not in dict(scope.properties(""))


def served(path, answer, greeting=b"OK 0123456789abcdef0123456789abcdef"):
    """A systemd at this socket that says what `answer` makes of each message."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)

    def serve():
        line, _ = listener.accept()
        with listener, line, suppress(ConnectionError):  # who has heard enough leaves, whatever is still to be said
            said = b""
            while b"BEGIN\r\n" not in said:
                said += line.recv(4096)
            line.sendall(b"DATA\r\n" + greeting + b"\r\n")
            parser = Parser()
            parser.add_data(said.partition(b"BEGIN\r\n")[2])
            while True:
                message = parser.get_next_message()
                if message is None:
                    data = line.recv(4096)
                    if not data:
                        return
                    parser.add_data(data)
                    continue
                replies = [reply.serialise(serial=number) for number, reply in enumerate(answer(message), 100)]
                line.sendall(b"".join(replies))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def removed(unit, result):
    return new_signal(SYSTEMD, "JobRemoved", "uoss", (7, "/org/freedesktop/systemd1/job/7", unit, result))


@pytest.mark.parametrize("bus", [False, True])
def test_it_waits_until_we_are_there(tmp_path, bus):
    asked = []

    def answer(message):
        member = message.header.fields[HeaderFields.member]
        asked.append(member)
        if member == "StartTransientUnit":  # the news may be faster than the answer, and others' news is not ours
            return [removed("other.scope", "failed"), removed("a.scope", "done"), new_method_return(message, "o", ("/job/7",))]
        return [new_method_return(message)]

    thread = served(str(tmp_path / "s"), answer)
    scope.obtain("a.scope", "", [(str(tmp_path / "s"), bus)])
    thread.join()
    assert asked == [*(["Hello", "AddMatch", "Subscribe"] if bus else []), "StartTransientUnit"]


def test_systemd_s_own_words_are_passed_on(tmp_path):
    def answer(message):
        return [new_error(message, "org.freedesktop.DBus.Error.AccessDenied", "s", ("Not today.",))]

    thread = served(str(tmp_path / "s"), answer)
    with pytest.raises(scope.NoScopeError, match=r"systemd refuses: Not today\."):
        scope.obtain("a.scope", "", [(str(tmp_path / "s"), False)])
    thread.join()


def test_a_move_that_failed(tmp_path):
    def answer(message):
        return [new_method_return(message, "o", ("/job/7",)), removed("a.scope", "failed")]

    thread = served(str(tmp_path / "s"), answer)
    with pytest.raises(scope.NoScopeError, match=r"could not move memrun into a scope \(failed\)"):
        scope.obtain("a.scope", "", [(str(tmp_path / "s"), False)])
    thread.join()


def test_who_does_not_know_us(tmp_path):
    thread = served(str(tmp_path / "s"), lambda message: [], b"REJECTED EXTERNAL")
    with pytest.raises(scope.NoScopeError, match="does not know us"):
        scope.obtain("a.scope", "", [(str(tmp_path / "s"), False)])
    thread.join()


def test_somebody_else_is_there(tmp_path):
    thread = served(str(tmp_path / "s"), lambda message: [], b"OK 01\r\nHTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(scope.NoScopeError, match="no D-Bus"):
        scope.obtain("a.scope", "", [(str(tmp_path / "s"), False)])
    thread.join()


def test_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setattr(scope, "PATIENCE", 0.05)
    thread = served(str(tmp_path / "s"), lambda message: [])
    with pytest.raises(scope.NoScopeError, match="did not answer"):
        scope.obtain("a.scope", "", [(str(tmp_path / "s"), False)])
    thread.join()


def test_nobody_to_ask(tmp_path):
    with pytest.raises(scope.NoScopeError, match="no systemd of this user's to ask"):
        scope.obtain("a.scope", "", [])
    with pytest.raises(scope.NoScopeError, match="No such file"):
        scope.obtain("a.scope", "", [(str(tmp_path / "nowhere"), False)])


def test_the_runtime_directory_is_found_where_its_name_was_dropped(tmp_path):
    me = os.getuid()
    assert scope.runtime_directory(me, {"XDG_RUNTIME_DIR": str(tmp_path)}) == str(tmp_path)
    assert scope.runtime_directory(me, {}) == f"/run/user/{me}"
    assert scope.runtime_directory(me + 1, {"XDG_RUNTIME_DIR": str(tmp_path)}) == f"/run/user/{me + 1}"  # sudo left another's


def test_doors_that_are_not_there_are_left_out(tmp_path):
    me = os.getuid() or 1000
    around = {"XDG_RUNTIME_DIR": str(tmp_path)}
    os.chown(tmp_path, me, -1) if os.getuid() == 0 else None
    assert scope.doors(me, around) == []
    (tmp_path / "bus").touch()
    assert scope.doors(me, around) == [(str(tmp_path / "bus"), True)]
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd/private").touch()
    assert scope.doors(me, around) == [(str(tmp_path / "systemd/private"), False), (str(tmp_path / "bus"), True)]
