"""The kernel's own ears for memory: descriptors that become readable when use or pressure crosses a line.

Every ear is an object with `fd` (poll it for reading), `take()` (quiet it; what it said is not worth more than "look
again") and `close()`. Nothing in here waits.

v1 has all of it: an eventfd on usage, with one threshold in plain bytes, which fires both ways; and one on the pressure level. Both
fire once more when the group is removed. The kernel looks at thresholds every 128 page events per CPU, so that a job which
crosses a line by less than some 512 KiB times its CPUs, and stops there, is heard when it moves on.

v2 has neither. In place of the levels there is PSI, the share of time that tasks of the group wait for memory:

    low       some 10 %   a tenth of the time somebody waits: the first signs of reclaim (v1: reclaim is going on)
    medium    some 30 %   it costs a third of the speed (v1: 60 % of what is scanned cannot be freed)
    critical  full 60 %   nobody runs for most of the time: thrashing; what systemd-oomd kills for (v1: 95 %, out of memory is near)

over a window of 1 s; of 2 s for those without CAP_SYS_RESOURCE, of whom the kernel wants a multiple of that. `some` and `full` are
the same for a job of one process, so the levels differ by share as well. As on v1, pressure comes from reclaim: a job of
anonymous memory without swap may go from nothing to its limit without any. PSI of a group is that of everything below it, so
that `default` and `hierarchy` are one; `local` cannot be had.

In place of thresholds on use there is nothing; gauges.py says what is done instead. Its part in here is `Stir`, which tells that
an idle job is no longer idle: memory.events (the limit or the trip wire was touched), and the CPU clock of the group, by
perf_event_open(2): one descriptor per CPU, which counts only while a task of the group runs, fires after so many
nanoseconds and then is off (PERF_EVENT_IOC_REFRESH). It takes CAP_PERFMON (or root, or perf_event_paranoid 0), and a kernel with
CONFIG_CGROUP_PERF: any distribution's, but not a User-Mode Linux.

POLLPRI (memory.events, PSI) is not what an event loop calls readable: an epoll of our own is. For PSI and perf the readiness
check itself consumes the event, so the wake is the event, and there is nothing left to read.
"""

from __future__ import annotations

import errno
import os
import select
import sys

from memrun.cgroup.files import Dir, keyed, read_all
from memrun.errors import GroupError, MemrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from mmap import mmap

USAGE, MEMSW, PRESSURE_LEVEL = "memory.usage_in_bytes", "memory.memsw.usage_in_bytes", "memory.pressure_level"
PSI = {"low": ("some", 10), "medium": ("some", 30), "critical": ("full", 60)}  # percent of the time
WINDOWS = (1_000_000, 2_000_000)  # microseconds; the second for those without CAP_SYS_RESOURCE
PSI_OFF = {errno.EOPNOTSUPP, errno.ENOENT}
GONE = {errno.ENODEV, errno.ENOENT, errno.EBADF}  # a removed group, by file or by directory; one that was let go of
NO_NOTICE = {errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL}
PERF_OPEN = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "s390x": 331}
PERF_REFRESH, PERF_PERIOD = 0x2402, 0x40082404  # ioctls, as these machines number them
PERF_CGROUP, PERF_CLOEXEC = 4, 8


class Counter:
    """An eventfd that the kernel adds to."""

    __slots__ = ("fd",)

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def take(self) -> int:
        """How often it fired since the last look."""
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        """The kernel ends the registration with the last descriptor."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Lines:
    """v1: any number of thresholds on one group, behind one descriptor. `lines`: (bytes, whether swap counts)."""

    __slots__ = ("_counters", "_epoll", "fd")

    def __init__(self, path: str, lines: Iterable[tuple[int, bool]]) -> None:
        self._counters: list[Counter] = []
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        try:
            for line, swap in sorted(set(lines)):
                self._counters.append(usage_line(path, line, swap=swap))
                self._epoll.register(self._counters[-1].fd, select.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def take(self) -> int:
        return sum(counter.take() for counter in self._counters)

    def close(self) -> None:
        self._epoll.close()
        for counter in self._counters:
            counter.close()


class Beat:
    """A job whose memory is looked at: rings after each look. A descriptor of our own: the group may be closed before its listener is."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def take(self) -> int:
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0

    def read(self) -> int:
        """As a Pulse: nobody asks how much was done, where each look is told of."""
        return 0

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Psi:
    """v2: a PSI trigger of one group's memory.pressure."""

    __slots__ = ("_epoll", "_file", "fd")

    def __init__(self, file: int) -> None:
        self._file = file
        self._epoll = select.epoll()
        self._epoll.register(file, select.EPOLLPRI)
        self.fd = self._epoll.fileno()

    def take(self) -> int:
        """Nothing can be counted: the wake was the event."""
        self._epoll.poll(0)
        return 1

    def close(self) -> None:
        self._epoll.close()
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


class Stir:
    """v2: tells that a group has touched its limit or trip wire, or is empty, and, while armed, that it uses the CPU again."""

    __slots__ = ("_clocks", "_epoll", "_events", "_path", "_perf", "_states", "empty", "fd")

    def __init__(self, path: str) -> None:
        self._events = self._states = -1
        self._path = path
        self._clocks: list[tuple[int, mmap]] = []
        self._perf: bool | None = None  # None: not tried yet
        self.empty = False  # as of the last `take`
        self._epoll = select.epoll()
        self.fd = self._epoll.fileno()
        try:
            group = Dir(path)
            try:
                self._events = group.open("memory.events")
                self._states = group.open("cgroup.events")
            finally:
                group.close()
        except GroupError:
            self.close()
            raise
        self._epoll.register(self._events, select.EPOLLPRI)
        self._epoll.register(self._states, select.EPOLLPRI)
        self.take()  # a file that was never read is readable

    def take(self) -> int:
        try:
            os.pread(self._events, 4096, 0)  # through these descriptors, or they stay readable
            self.empty = keyed(read_all(self._states)).get("populated") == 0
        except OSError:
            self.empty = True  # removed
        return 1

    def arm(self, seconds: float) -> bool:
        """Fire when the group has used a CPU for so long. False: this kernel, or its owner, does not let us.

        Up to three times on each: an event that comes between here and the wait is consumed by the event loop's epoll_ctl.
        """
        if self._perf is None:
            self._perf = self._open()
        if not self._perf:
            return False
        import fcntl

        period = int(seconds * 1e9).to_bytes(8, sys.byteorder)
        try:
            for fd, _ in self._clocks:
                fcntl.ioctl(fd, PERF_PERIOD, period)
                fcntl.ioctl(fd, PERF_REFRESH, 3)
        except OSError:
            self._perf = False
        return self._perf

    def _open(self) -> bool:
        try:
            for cpu in _online():
                self._clocks.append(_clock(self._path, cpu))
                self._epoll.register(self._clocks[-1][0], select.EPOLLIN)
        except OSError:
            self._drop()
        return bool(self._clocks)

    def _drop(self) -> None:
        for fd, ring in self._clocks:
            ring.close()
            os.close(fd)
        self._clocks = []

    def close(self) -> None:
        self._epoll.close()
        self._drop()
        for file in (self._events, self._states):
            if file >= 0:
                os.close(file)
        self._events = self._states = -1


class Pulse:
    """How much a group has done so far: microseconds of CPU (v2), page events (v1; about a microsecond each)."""

    __slots__ = ("_file",)

    def __init__(self, path: str, version: str) -> None:
        group = Dir(path)
        try:
            self._file = group.open("cpu.stat" if version == "v2" else "memory.stat")
        finally:
            group.close()

    def read(self) -> int:
        """Grows while the group does something; stands still while it does nothing. GroupError where it is gone."""
        try:
            stat = keyed(read_all(self._file))
        except OSError as e:
            raise GroupError("read", "the statistics of a group", e.errno or errno.EIO) from None
        return stat.get("usage_usec", stat.get("total_pgfault", 0) + stat.get("total_pgpgin", 0))

    def close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)


def usage_line(path: str, at: int, *, swap: bool = False) -> Counter:
    """v1: fires when use (`swap`: of memory and swap together) gets to `at` bytes, and when it falls below."""
    control = MEMSW if swap else USAGE
    return _listen(path, control, str(at))


def pressure(path: str, version: str, level: str, mode: str = "default") -> Counter | Psi:
    """Fires at that level of memory pressure: low, medium, critical. MemrunError says why not."""
    if level not in PSI:
        raise UsageError(f"{level!r} is not a level of pressure", f"Levels are {', '.join(PSI)}")
    if version == "v1":
        return _listen(path, PRESSURE_LEVEL, level if mode == "default" else f"{level},{mode}")
    if mode == "local":
        raise MemrunError(
            "this kernel (cgroup v2) tells pressure of a job with all groups below it, never of one group alone",
            "Leave out 'local'",
        )
    return _trigger(path, *PSI[level])


def gone(path: str) -> bool:
    """Whether the group has been removed: every ear fires then, too."""
    return not os.path.isdir(path)


def _listen(path: str, control: str, args: str) -> Counter:
    """An eventfd on a v1 control file."""
    counter = Counter()
    group = None
    try:
        group = Dir(path)
        file = group.open(control)
        try:
            group.write("cgroup.event_control", f"{counter.fd} {file} {args}")
        finally:
            os.close(file)
    except GroupError as e:
        counter.close()
        if e.errno in NO_NOTICE and group is not None and not gone(path):
            raise MemrunError(f"this kernel tells nothing of {control}: {e.what}", _v1_remedy(control)) from None
        raise
    finally:
        if group is not None:
            group.close()
    return counter


def _v1_remedy(control: str) -> str:
    if control == MEMSW:
        return "Boot it with swapaccount=1, so that it counts swap"
    return "It may be a PREEMPT_RT one, which has no such notices; cgroup v2 has them"


def _trigger(path: str, kind: str, percent: int) -> Psi:
    group = Dir(path)
    try:
        for window in WINDOWS:
            file = group.open("memory.pressure", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                os.write(file, f"{kind} {window * percent // 100} {window}\0".encode())
            except OSError as e:
                os.close(file)
                if e.errno == errno.EINVAL and window != WINDOWS[-1]:
                    continue  # no CAP_SYS_RESOURCE
                raise GroupError("write", f"{path}/memory.pressure", e.errno or errno.EIO, f"{kind} {window}") from None
            return Psi(file)
    except GroupError as e:
        if e.errno in PSI_OFF and not gone(path):
            raise MemrunError("this kernel measures no memory pressure (PSI)", _psi_remedy(e.errno)) from None
        raise
    finally:
        group.close()
    raise AssertionError  # the loop returns or raises


def _psi_remedy(number: int) -> str:
    if number == errno.EOPNOTSUPP:
        return "Boot it with psi=1"
    return "It needs CONFIG_PSI (Linux 4.20 or newer; no User-Mode Linux) and psi=1 on its command line"


def _online() -> list[int]:
    """CPUs by number, from a list such as 0-3,8."""
    with open("/sys/devices/system/cpu/online", encoding="ascii") as f:
        parts = [part.partition("-") for part in f.read().strip().split(",")]
    return [cpu for low, _, high in parts for cpu in range(int(low), int(high or low) + 1)]


def _clock(path: str, cpu: int) -> tuple[int, mmap]:
    """perf_event_open: the CPU clock of a group on one CPU, off until refreshed; and the ring without which it cannot be polled."""
    import ctypes
    import mmap
    import struct

    number = PERF_OPEN.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    # type SOFTWARE, size, config CPU_CLOCK, sample_period, sample_type, read_format, flags (disabled), wakeup_events 1
    attributes = struct.pack("=IIQQQQQI", 1, 112, 0, 1_000_000_000, 0, 0, 1, 1).ljust(112, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    group = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = ctypes.c_ulong(PERF_CGROUP | PERF_CLOEXEC)
        fd: int = libc.syscall(number, ctypes.create_string_buffer(attributes, 112), group, cpu, -1, flags)
    finally:
        os.close(group)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        # read-only: the kernel overwrites the oldest record, so that nobody need read any
        return fd, mmap.mmap(fd, 2 * mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    except OSError:
        os.close(fd)
        raise
