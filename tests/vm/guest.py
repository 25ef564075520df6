"""Run a command in a throw-away guest with a real, pure cgroup v2 kernel.

    python tests/vm/guest.py [OPTIONS] -- COMMAND...

The guest's / is a tmpfs laid over this machine's /, so the command finds the checkout and the
virtual environments at their own paths and can write anywhere without leaving a trace. Two kinds:
`uml` (User-Mode Linux: starts in seconds, one CPU) and `qemu` (software emulation, two CPUs,
slower). Neither needs KVM, and neither needs root. With --systemd the first process is systemd, and there
are cron and the users alice (whose user manager runs) and bob (who has none).

The exit status is the command's; 124 if its time was up; 125 if there was no guest to run it in.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vm_packages import UnavailableError, obtain_emulator, obtain_guest, obtain_systemd

if TYPE_CHECKING:
    import types
    from collections.abc import Iterator, Sequence

HERE = Path(__file__).resolve().parent
TIMED_OUT = 124
NO_GUEST = 125
NOBODY_READS = 128 + signal.SIGPIPE
CONSOLE_LINES = 30
#: Directories that are the guest's own, so that no command can be run where the caller stands in them.
FRESH_DIRECTORIES = ("/dev", "/proc", "/sys")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}
#: Both kinds: errors only on the console; and a panic ends the guest rather than hanging it.
KERNEL_ARGUMENTS = ("quiet", "loglevel=4", "panic=-1")
QEMU_KERNEL_ARGUMENTS = (
    "console=ttyS0 nokaslr mitigations=off random.trust_cpu=on tsc=reliable no_timer_check "
    "rcupdate.rcu_expedited=1 cryptomgr.notests"
)
#: Clears up if this program is killed without a chance to: it then stops holding the pipe that
#: is this script's standard input. $1 is the guest's process group, $2 the working directory.
WATCHDOG = 'read -r done || { kill -s KILL -- "-$1"; rm -rf -- "$2"; }'


@dataclass(frozen=True)
class Request:
    """What to run, and in what kind of guest."""

    kind: str
    memory: str
    timeout: float
    zram: str
    environment: tuple[str, ...]
    kernel_arguments: tuple[str, ...]
    command: tuple[str, ...]
    systemd: bool = False
    legacy: bool = False


@dataclass(frozen=True)
class Workplace:
    """The directory of one running guest; everything in it goes when the guest does."""

    path: Path

    @property
    def shared(self) -> Path:
        """The directory that the guest mounts, and where it leaves the exit status."""
        return self.path / "shared"

    @property
    def console(self) -> Path:
        """What the guest's kernel, and the program that runs it, have to say."""
        return self.path / "console"

    def exit_status(self) -> int | None:
        """Return the command's exit status, or None if the guest did not live to tell it."""
        try:
            return int((self.shared / "status").read_text())
        except (OSError, ValueError):
            return None

    def prepare(self, request: Request, parts: Path) -> None:
        """Write what the guest needs in order to boot and to run the command."""
        self.shared.mkdir()
        shutil.copy(parts / "busybox", self.shared)
        shutil.copy(HERE / "main.sh", self.shared)
        (self.shared / "command").write_text(_command_script(request))
        settings = {"kind": request.kind, "shared": str(self.shared), "zram": request.zram}
        settings["here"] = os.getcwd()  # laid over the guest's own /tmp or /run where it is in there
        settings["systemd"] = str(obtain_systemd()) if request.systemd else ""
        settings["legacy"] = "yes" if request.legacy else ""
        settings["opened"] = "\n".join(closed_directories(os.getcwd(), sys.executable)) if request.systemd else ""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        files = {
            "init.sh": (HERE / "init.sh").read_bytes(),
            "init": b"",  # only so that switch_root believes to be in an initramfs
            "settings": "".join(lines).encode(),
            "systemd.sh": (HERE / "systemd.sh").read_bytes(),
            "busybox": (parts / "busybox").read_bytes(),
        }
        for folder in ("modules", "swap-modules"):
            for module in (parts / folder).iterdir():
                files[f"{folder}/{module.name}"] = module.read_bytes()
        (self.path / "initramfs").write_bytes(initramfs(files))


def _command_script(request: Request) -> str:
    """Return the shell script that runs the command where the caller stands.

    The path of env matters: by its bare name, busybox would be its own env, and a command's
    `sh` or `cat` would then be busybox too.
    """
    # A guest that is run by an ordinary user has that user's rights on the host's files.
    home = "/root" if os.geteuid() == 0 else "/tmp"
    settings = [f"{name}={value}" for name, value in {**ENVIRONMENT, "HOME": home}.items()]
    words = ["/usr/bin/env", "-i", *settings, *request.environment, *request.command]
    return f"cd {shlex.quote(os.getcwd())} || exit {NO_GUEST}\nexec {shlex.join(words)}\n"


def closed_directories(*paths: str) -> list[str]:
    """Return the directories on the way to these paths that only their owners may pass: the guest's users are to see them."""
    found = set()
    for path in paths:
        for way in (Path(path).absolute(), Path(path).resolve()):
            found |= {str(parent) for parent in (way, *way.parents) if parent.is_dir() and not parent.stat().st_mode & 0o001}
    return sorted(found)


def initramfs(files: dict[str, bytes]) -> bytes:
    """Return a cpio archive (the kernel's "newc" format) of files and their directories."""
    entries: dict[str, tuple[int, bytes]] = {}
    for name, data in files.items():
        for parent in reversed(Path(name).parents[:-1]):
            entries[str(parent)] = (stat.S_IFDIR | 0o755, b"")
        entries[name] = (stat.S_IFREG | 0o755, data)
    entries["TRAILER!!!"] = (0, b"")
    archive = bytearray()
    for inode, (name, (mode, data)) in enumerate(entries.items(), start=1):
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields)
        archive += name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def _uml_command(request: Request, parts: Path, output: int) -> tuple[list[str], dict[str, str]]:
    """Return how to start User-Mode Linux, which writes terminal 1 to the output descriptor."""
    command = [
        str(parts / "kernel"),
        f"mem={request.memory}",
        "initrd=initramfs",
        "umid=guest",
        "uml_dir=uml/",
        "con=null",
        "con0=null,fd:2",
        f"con1=null,fd:{output}",
        "ssl=null",
        "seccomp=auto",
    ]
    return command, {"TMPDIR": _directory_for_memory(request.memory)}


def _directory_for_memory(memory: str) -> str:
    """Return where User-Mode Linux is to keep the (unlinked) file that is its memory.

    It goes by TMPDIR, else takes /dev/shm: in a container that may be smaller than the guest's
    memory, and the guest would die of SIGBUS. The working directory is slower, but large.
    """
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    size = int(memory[:-1]) * units[memory[-1].upper()]
    with suppress(OSError):
        free = os.statvfs("/dev/shm")
        if free.f_bavail * free.f_frsize > size and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    return "."


def _qemu_command(request: Request, parts: Path, output: int) -> tuple[list[str], dict[str, str]]:
    """Return how to start QEMU, whose guest writes its output to a virtio port."""
    program, environment = obtain_emulator()
    command = [program, "-nodefaults", "-no-user-config", "-no-reboot"]
    command += ["-display", "none", "-monitor", "none", "-machine", "q35", "-cpu", "max"]
    command += ["-accel", "tcg,thread=multi", "-smp", "2", "-m", request.memory]
    command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    command += ["-chardev", f"file,id=output,path=/dev/fd/{output}", "-device", "virtio-serial-pci"]
    command += ["-device", "virtserialport,chardev=output,name=output"]
    for tag, path, access in (("root", "/", "on"), ("shared", "shared", "off")):
        share = f"local,id={tag},path={path},security_model=none,multidevs=remap"
        command += ["-fsdev", f"{share},readonly={access}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    command += ["-kernel", str(parts / "kernel"), "-initrd", "initramfs"]
    return command, environment


def _start(request: Request, parts: Path, place: Workplace, output: int) -> subprocess.Popen[bytes]:
    """Start the guest in a session of its own, so that all its processes can be killed at once."""
    arguments = [*KERNEL_ARGUMENTS, *request.kernel_arguments, "rdinit=/busybox"]
    if request.kind == "uml":
        command, environment = _uml_command(request, parts, output)
        command += [*arguments, "--", "sh", "/init.sh"]
    else:
        command, environment = _qemu_command(request, parts, output)
        line = " ".join([QEMU_KERNEL_ARGUMENTS, *arguments, "--", "sh", "/init.sh"])
        command += ["-append", line]
    with place.console.open("ab") as console:
        return subprocess.Popen(
            command,
            cwd=place.path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            pass_fds=[output],
            start_new_session=True,
        )


def _start_watchdog(group: int, place: Workplace) -> subprocess.Popen[bytes]:
    """Start the script that clears up after us if we are killed."""
    return subprocess.Popen(
        ["sh", "-c", WATCHDOG, "watchdog", str(group), str(place.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@contextmanager
def _workplace() -> Iterator[Workplace]:
    """Provide a directory for one guest."""
    with tempfile.TemporaryDirectory(prefix="memrun-vm-", ignore_cleanup_errors=True) as path:
        yield Workplace(Path(path))


@contextmanager
def _running(request: Request, parts: Path, place: Workplace) -> Iterator[subprocess.Popen[bytes]]:
    """Run a guest and copy its output to ours; on leaving, nothing of it is left running."""
    reading, writing = os.pipe()
    try:
        process = _start(request, parts, place, writing)
    finally:
        os.close(writing)
    pump = threading.Thread(target=_copy_output, args=(reading, place, process.pid), daemon=True)
    watchdog: subprocess.Popen[bytes] | None = None
    try:
        watchdog = _start_watchdog(process.pid, place)
        pump.start()
        yield process
    finally:
        _ignore_signals()
        _kill_group(process.pid)
        process.wait()
        if watchdog is not None:
            watchdog.communicate(b"done\n")
    # After a timeout nobody may be reading our output; without one, all of it is to be seen.
    pump.join(None if process.returncode == 0 else 5)


def _kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _copy_output(source: int, place: Workplace, group: int) -> None:
    """Copy the guest's output to ours as it comes; stop the guest when nobody wants it."""
    try:
        while chunk := os.read(source, 65536):
            while chunk:
                chunk = chunk[os.write(sys.stdout.fileno(), chunk) :]
    except OSError:
        with suppress(OSError):
            (place.shared / "status").write_text(str(NOBODY_READS))
        _kill_group(group)
    finally:
        os.close(source)


def _wait(process: subprocess.Popen[bytes], request: Request, place: Workplace) -> int:
    """Wait for the guest to end and return the exit status to end with."""
    try:
        process.wait(request.timeout)
    except subprocess.TimeoutExpired:
        _say(f"the command was still running after {request.timeout:g} seconds.")
        return TIMED_OUT
    status = place.exit_status()
    if status is not None:
        return status
    lines = place.console.read_text(errors="replace").splitlines()[-CONSOLE_LINES:]
    said = "Its console said:" if lines else "Its console said nothing."
    _say(f"the guest died (status {process.returncode}) before the command had ended. {said}")
    for line in lines:
        print(f"  {line}", file=sys.stderr)
    return NO_GUEST


def run(request: Request) -> int:
    """Run a command in a guest and return the exit status to end with."""
    here = os.getcwd()
    for fresh in FRESH_DIRECTORIES:
        if here == fresh or here.startswith(f"{fresh}/"):
            raise UnavailableError(f"{here} is not seen in the guest, whose {fresh} is its own.")
    parts = obtain_guest(request.kind)
    with _workplace() as place:
        place.prepare(request, parts)
        with _running(request, parts, place) as process:
            return _wait(process, request, place)


def _say(message: str) -> None:
    print(f"guest.py: {message}", file=sys.stderr)


def _stop(number: int, _frame: types.FrameType | None) -> None:
    """End by way of the cleaning up."""
    raise SystemExit(128 + number)


def _ignore_signals() -> None:
    """Let nothing interrupt the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _memory(text: str) -> str:
    """Accept a size that both kinds of guest understand."""
    if not (text[:-1].isdecimal() and text[-1:].upper() in ("K", "M", "G")):
        raise argparse.ArgumentTypeError(f"{text!r} is no size like 512M or 1G")
    return text


def _assignment(text: str) -> str:
    """Accept K=V."""
    if not text.partition("=")[0].isidentifier() or "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="guest.py",
        description=(__doc__ or "").split("\n")[0],
        usage="%(prog)s [OPTIONS] -- COMMAND...",
    )
    add = parser.add_argument
    add("--kind", choices=("uml", "qemu"), default="uml", help="the kind of guest (uml)")
    add("--memory", type=_memory, default="1G", help="the guest's memory (1G)")
    add("--timeout", type=float, default=600, metavar="SECONDS", help="limit of time (600)")
    add("--zram", type=_memory, metavar="SIZE", help="compressed swap (none)")
    add("--env", type=_assignment, action="append", default=[], metavar="K=V")
    add("--kernel-arg", action="append", default=[], metavar="ARG")
    add("--systemd", action="store_true", help="systemd is the first process; users alice and bob")
    add("--legacy", action="store_true", help="with --systemd: cgroup v1, its hierarchies mounted beforehand")
    add("--fetch-only", action="store_true", help="fill the cache, run nothing")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    command = tuple(words[end + 1 :])
    parser = _parser()
    options = parser.parse_args(words[:end])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    if not command and not options.fetch_only:
        parser.error("a COMMAND is required, after `--`")
    try:
        if options.fetch_only:
            obtain_guest(options.kind)
            if options.systemd:
                obtain_systemd()
            if options.kind == "qemu":
                obtain_emulator()
            return 0
        return run(
            Request(
                kind=options.kind,
                memory=options.memory,
                timeout=options.timeout,
                zram=options.zram or "",
                environment=tuple(options.env),
                kernel_arguments=tuple(options.kernel_arg),
                command=command,
                systemd=options.systemd,
                legacy=options.legacy,
            )
        )
    except UnavailableError as error:
        _say(str(error))
        return NO_GUEST


if __name__ == "__main__":
    sys.exit(main())
