"""memrun's own lines where people look for them (`--log-target`): the journal, syslog, stderr, or a file.

Nothing here waits. A socket whose reader does not keep up drops the line, and so does the rate limit (a bucket of tokens: a job that is held and
raised a thousand times a minute must not fill a disk); how many are missing is said with the next line that gets through. What a run came
to is never dropped by the rate. Where the journal or syslog is not to be had, lines go to stderr, and once it is said why.

The journal is spoken to in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): fields that can be asked for, as in
`journalctl MEMRUN_RESULT=oom-kill`. What is too large for a datagram goes as a sealed memory file.
"""

from __future__ import annotations

import os
import time

from memrun.errors import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from memrun.identity import Identity

    Send = Callable[[str, int, Mapping[str, str]], bool]

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6  # syslog's
JOURNAL, SYSLOG = "/run/systemd/journal/socket", "/dev/log"
DAEMON = 3 << 3  # syslog's facility
BURST, PER_SECOND = 50, 5.0
LONGEST = 8000  # bytes of a line for syslog
UNBOUNDED = 1 << 62  # bytes of a file: logrotate may bound it


class Log:
    """One target. `say` never raises and never waits."""

    def __init__(self, target: str, who: Identity | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`target`: journal, syslog, stderr or a file's name; of a file MemrunError where it cannot be opened. `who`: whose it is to be."""
        self._close: Callable[[], object] = lambda: None
        self._clock, self._tokens, self._at = clock, float(BURST), clock()
        self._missing = 0
        self._apologized = False
        self._send: Send = _stderr
        if target in {"journal", "syslog"}:
            self._send = self._datagrams(_journal_message if target == "journal" else _syslog_message, target)
        elif target != "stderr":
            self._send = self._file(target, who)

    def say(self, text: str, priority: int = NOTICE, fields: Mapping[str, str] | None = None, *, always: bool = False) -> None:
        """One line, or more. `always`: however much has been said."""
        if not self._may() and not always:
            self._missing += 1
            return
        if self._missing and self._send(f"{self._missing} lines are missing here: there were too many", WARNING, {}):
            self._missing = 0
        if not self._send(printable(text), priority, fields or {}):
            self._missing += 1

    def close(self) -> None:
        """No more of it; what is missing at the end is said."""
        if self._missing:
            self._send(f"{self._missing} lines are missing here: there were too many", WARNING, {})
        self._close()

    def _may(self) -> bool:
        now = self._clock()
        self._tokens = min(float(BURST), self._tokens + (now - self._at) * PER_SECOND)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _file(self, path: str, who: Identity | None) -> Send:
        from memrun.logfile import Rotated

        file = Rotated(path, UNBOUNDED, 0, who)
        self._close = file.close

        def send(text: str, _priority: int, _fields: Mapping[str, str]) -> bool:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            file.take("".join(f"{stamp} memrun[{os.getpid()}]: {line}\n" for line in text.split("\n")).encode(errors="replace"))
            return True

        return send

    def _datagrams(self, message: Callable[[str, int, Mapping[str, str]], bytes], target: str) -> Send:
        import socket

        wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._close = wire.close
        path = JOURNAL if target == "journal" else SYSLOG

        def send(text: str, priority: int, fields: Mapping[str, str]) -> bool:
            try:
                _post(wire, path, message(text, priority, fields))
            except BlockingIOError:
                return False
            except OSError as e:
                if not self._apologized:
                    self._apologized = True
                    _stderr(f"no line gets to {path} ({e.strerror}): they are said here", WARNING, {})
                return _stderr(text, priority, fields)
            return True

        return send


def _stderr(text: str, _priority: int, _fields: Mapping[str, str]) -> bool:
    try:
        os.write(2, "".join(f"memrun: {line}\n" for line in text.split("\n")).encode(errors="replace"))
    except OSError:
        return True  # nobody to tell
    return True


def _journal_message(text: str, priority: int, fields: Mapping[str, str]) -> bytes:
    every = {"MESSAGE": text, "PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "memrun", "SYSLOG_PID": str(os.getpid()), **fields}
    return b"".join(_field(key.encode(), value.encode(errors="replace")) for key, value in every.items())


def _field(key: bytes, value: bytes) -> bytes:
    """KEY=value; a value of several lines with its length before it."""
    if b"\n" not in value:
        return key + b"=" + value + b"\n"
    return key + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def _syslog_message(text: str, priority: int, _fields: Mapping[str, str]) -> bytes:
    line = text.replace("\n", " | ").encode(errors="replace")[:LONGEST]
    return b"<%d>%s memrun[%d]: %s" % (DAEMON | priority, time.strftime("%b %e %H:%M:%S").encode(), os.getpid(), line)


def _post(wire: socket.socket, path: str, message: bytes) -> None:
    import errno

    try:
        wire.sendto(message, path)
    except OSError as e:
        if e.errno not in {errno.EMSGSIZE, errno.ENOBUFS}:
            raise
        _post_large(wire, path, message)


def _post_large(wire: socket.socket, path: str, message: bytes) -> None:
    """As a memory file that nobody can change any more: journald takes no other."""
    import fcntl
    import socket

    fd = os.memfd_create("memrun", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(fd), "wb") as f:
            f.write(message)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        wire.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, "little"))], 0, path)
    finally:
        os.close(fd)
