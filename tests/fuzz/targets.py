"""What is fuzzed: each target takes bytes and raises only where memrun has a mistake. What it says on purpose (MemrunError) is an answer."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile

import trio

from memrun import connections, control, conversions, environment, jobfile, kin, marks, oomlog, options, signals, units
from memrun.cgroup import dbus, detect
from memrun.cgroup.files import keyed, pids_in
from memrun.errors import JobFileError, MemrunError


def text(data):
    return data.decode(errors="surrogateescape")


def answered(*converters):
    """Each is given the text: a value or a sentence."""

    def target(data):
        for convert in converters:
            try:
                convert(text(data))
            except MemrunError as e:
                assert e.what
                assert "\n" not in e.what or "\n" in text(data)

    return target


def sizes(data):
    answered(units.parse_size, units.parse_bytes, units.parse_duration, conversions.lock, conversions.name)(data)
    try:
        size = units.parse_size(text(data))
    except MemrunError:
        return
    if isinstance(size, int):
        assert size >= 0


def command_line(data):
    words = text(data).split("\n")
    answered(lambda _: options.parse(words))(data)


def counters(data):
    assert all(value >= 0 for value in keyed(text(data)).values())
    assert all(pid > 0 for pid in pids_in(text(data)))


def machine(data):
    mountinfo, _, rest = text(data).partition("\0")
    own, _, controllers = rest.partition("\0")
    assert detect.find(mountinfo, own, controllers).version in {"v1", "v2", ""}


def kernel_log(data):
    said = oomlog.parse(text(data).split("\n"), "g")
    assert all(pid >= 0 and rss >= 0 for pid, _, rss in said.largest)


def process_name(data):
    """A line of /proc/PID/stat is the kernel's but for the name, which is anybody's."""
    line = f"7 ({text(data)[:64]}) S 1 2 3 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1"
    one = kin.Process(line)
    assert (one.pid, one.parent, one.state, one.born, one.name) == (7, 1, "S", 4711, text(data)[:64])


def environment_file(data):
    try:
        found = environment.parse(text(data), "f")
    except MemrunError as e:
        assert e.what.startswith("f, line ")
    else:
        assert all(environment.is_name(name) and "\0" not in value for name, value in found.items())


def bus(data):
    try:
        message, size = dbus.parse(data)
    except ValueError as e:
        assert str(e).startswith("no D-Bus")
    else:
        assert (message is None) == (size == 0)
        assert size <= len(data)


class Deaf:
    """Answers everybody the same."""

    def jobs(self):
        return []

    async def command(self, name, verb, words):
        raise MemrunError(f"{name} {verb} {len(words)}")

    def past(self):
        return []

    def subscribe(self):
        send, receive = trio.open_memory_channel(1)
        send.close()
        return receive

    def refused(self, what):
        assert what.isprintable(), what


def conversation(data):
    """Whatever a client sends, it gets lines of JSON, and its task ends when it has hung up."""

    async def talk():
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs, trio.fail_after(10):
            theirs.sendall(data[: 1 << 15])
            theirs.shutdown(socket.SHUT_WR)
            wire = trio.socket.from_stdlib_socket(ours)
            known = connections.Connections()
            try:
                with trio.CancelScope() as scope:
                    await control._Conversation(wire, Deaf(), known, scope, 1).hold(b"")
            except OSError:
                pass
            finally:
                known.close()
                wire.close()
            theirs.setblocking(False)
            try:
                said = theirs.recv(1 << 20)
            except (BlockingIOError, ConnectionResetError):
                said = b""
        assert not said or said.endswith(b"}\n")

    trio.run(talk)


def job_file(data):
    folder = tempfile.mkdtemp()
    try:
        path = os.path.join(folder, "jobs.toml")
        with open(path, "wb") as file:
            file.write(data)
        try:
            jobfile.load(path)
        except JobFileError as e:
            assert e.problems
        except MemrunError as e:
            assert e.what
    finally:
        shutil.rmtree(folder)


TARGETS = {
    "sizes": (sizes, [b"5M", b"1.5GiB", b"50%", b"infinity", b"1h30m", b"90s"]),
    "signals": (answered(signals.parse), [b"TERM", b"SIGUSR1", b"RTMIN+3"]),
    "marks": (answered(marks.parse_at, marks.parse_pressure, marks.parse_action), [b"80%=log", b"'90% for 30s=restart'", b"medium,hierarchy=exec:x"]),
    "command-line": (command_line, [b"--limit\n5M\n--\ntrue", b"-t\n5s\n--on-oom=pause\nx", b"--env\nA=b\n--umask\n022\nx"]),
    "environment": (environment_file, [b"A=b\n", b"A='b\nc'\n#x\nB=\"\\\"\"\n"]),
    "counters": (counters, [b"oom 3\noom_kill 4\n", b"12\n0\n34\n"]),
    "machine": (machine, [b"31 23 0:28 / /sys/fs/cgroup rw - cgroup2 x rw\x000::/a\x00memory"]),
    "kernel-log": (kernel_log, [b"oom-kill:constraint=C,oom_memcg=/g,task_memcg=/g,task=t,pid=1,uid=0\n", b"[  pid  ]   uid  tgid total_vm rss name\n"]),
    "process-name": (process_name, [b"sh", b") S 0 (", b"a b"]),
    "bus": (bus, [dbus.call(1, ("a.b", "/a", "a.b"), "M", "s", ("x",))]),
    "socket": (conversation, [b'{"verb": "ps"}\n', b'{"verb": "raise", "name": "a", "size": "5M"}\n{"verb": "events"}\n', b'{"verb": "set", "values": {"a": 1}}\n']),
    "job-file": (job_file, [b'[jobs.a]\ncommand = "x"\nlimit = "1M"\n', b'[batch]\nmemory = "1G"\n[jobs.a]\ncommand = ["x", "{y}"]\nmatrix = {y = ["1"]}\nlimit = "1M"\n']),
}  # fmt: skip
