"""What every test may count on: kernels that were promised are there, and nothing is left behind.

`memrun(...)` runs the command line as a user would. `unchanged` (by itself in REAL) compares the world before and after a
test. Other memruns may run on the same machine meanwhile: what belongs to a living one that this session did not start is
none of our business.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memrun import history
from memrun.cgroup import detect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
REAL = {"kernel", "cli", "contract", "faults"}  # folders of tests/ that touch the machine
PATIENCE = 2.0  # seconds for what ends by itself, a moment after the test
OWNER = re.compile(r"memrun-(?:self-)?(\d+)")  # whose directory it is: memrun's pid
MARK = f"MEMRUN_TEST_SESSION={os.getpid()}"

Leftover = tuple[str, str, str]  # what, where, and words that explain it: only the first two are compared


def pytest_addoption(parser: pytest.Parser) -> None:
    said = "this machine has that memory controller (v1, v2): where it has not, tests fail that would be skipped"
    parser.addoption("--promise", action="append", default=[], metavar="v1|v2", help=said)


def pytest_configure(config: pytest.Config) -> None:
    unknown = promised(config) - {"v1", "v2"}
    if unknown:
        raise pytest.UsageError(f"--promise wants v1 or v2, not {', '.join(sorted(unknown))}")
    name, _, value = MARK.partition("=")
    os.environ[name] = value
    _hear_signals()
    os.environ["MEMRUN_HISTORY"] = ""  # the user's own is none of our business
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def _hear_signals() -> None:
    """A run of the tests in the background (`&` of a script, nohup) ignores these, and so would every memrun that it starts."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _no_history_of_tests() -> Iterator[None]:
    """Where a test gives memrun a bare environment, as cron does, that does not know that no history is wanted."""
    del os.environ["MEMRUN_HISTORY"]
    place = Path(history.place() or "/nonexistent")
    os.environ["MEMRUN_HISTORY"] = ""
    was_there = place.exists()
    yield
    if not was_there:
        place.unlink(missing_ok=True)


def promised(config: pytest.Config) -> set[str]:
    return {word.strip() for given in config.getoption("--promise") for word in given.split(",") if word.strip()}


def lacking(version: str) -> str:
    """Why tests marked with this version cannot run here; '' where they can."""
    setup = detect.look()
    if setup.version != version:
        return f"the memory controller here is on cgroup {setup.version}" if setup.version else detect.missing(setup)[0]
    place = setup.memory or ""
    return "" if os.access(place, os.W_OK) else f"no groups can be made in {place}: try it as root"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for version in ("v1", "v2"):
        if item.get_closest_marker(version) is None:
            continue
        why = lacking(version)
        if why and version in promised(item.config):
            pytest.fail(f"{version} was promised, but {why}", pytrace=False)
        if why:
            pytest.skip(f"needs memory on cgroup {version}; {why}")


@pytest.fixture
def memrun() -> Callable[..., subprocess.CompletedProcess[str]]:
    """memrun("--limit", "5M", "--", "true") -> CompletedProcess, in text. Keywords are subprocess.run's; stdin is empty."""

    def run(*args: str, **options: object) -> subprocess.CompletedProcess[str]:
        known: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60}
        if "input" not in options:
            known["stdin"] = subprocess.DEVNULL
        return subprocess.run([sys.executable, "-m", "memrun", *args], **{**known, **options})  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture
def unchanged() -> Iterator[None]:
    """No open file, process or group is there after the test that was not there before it."""
    before = {one[:2] for one in leftovers()}
    yield
    deadline = time.monotonic() + PATIENCE
    while left := sorted(one for one in leftovers() if one[:2] not in before):
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join("  " + " ".join(one) for one in left), pytrace=False)
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _unchanged_where_it_is_real(request: pytest.FixtureRequest) -> None:
    if REAL & set(request.path.relative_to(ROOT / "tests").parts):
        request.getfixturevalue("unchanged")


def leftovers() -> Iterator[Leftover]:
    """What could be left behind, as it stands now."""
    yield from _open_files()
    processes = _processes()
    family = _family(processes)
    for pid, (parent, what) in processes.items():
        if parent == os.getpid():
            yield "child", str(pid), what
    for kind, where, what in [*_members(processes), *_groups()]:
        owner = int(OWNER.search(where).group(1)) if OWNER.search(where) else 0  # type: ignore[union-attr]
        if owner not in processes or owner in family or _is_marked(owner):
            yield kind, where, what


def _open_files() -> Iterator[Leftover]:
    for fd in os.listdir("/proc/self/fd"):
        try:
            yield f"open file {fd}", os.readlink(f"/proc/self/fd/{fd}"), ""
        except FileNotFoundError:
            continue  # the listing's own


def _processes() -> dict[int, tuple[int, str]]:
    """pid -> (its parent, its command line or state)."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            name, _, rest = Path("/proc", pid, "stat").read_text(errors="replace").rpartition(")")
            words = Path("/proc", pid, "cmdline").read_text(errors="replace").replace("\0", " ").strip()
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if state == "Z" and int(parent) != os.getpid():
            continue  # dead; whoever adopted it (init) has yet to reap it
        found[int(pid)] = int(parent), words or f"{name}) {state}"
    return found


def _family(processes: dict[int, tuple[int, str]]) -> set[int]:
    """This process and all that descend from it."""
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in processes.items() if parent in family} - family:
        family |= more
    return family


def _is_marked(pid: int) -> bool:
    """Started by this session, though perhaps orphaned since."""
    try:
        return MARK.encode() in Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _members(processes: dict[int, tuple[int, str]]) -> Iterator[Leftover]:
    """Processes in a memrun's groups, and the dead man's hands over them."""
    for pid, (_, what) in processes.items():
        where = next((path for path in detect.own(pid).values() if OWNER.search(path)), "")
        if where:
            yield f"process {pid}", where, what
        elif " memrun-hand " in what:
            yield f"hand {pid}", what.rpartition(" memrun-hand ")[2], ""


def _groups() -> Iterator[Leftover]:
    """Directories named memrun* below our own group in every hierarchy."""
    own = detect.own()
    for mount in detect.parse_mountinfo(Path(detect.MOUNTINFO).read_text(errors="replace")):
        names = [""] if mount.kind == "cgroup2" else [name for name in own if name.removeprefix("name=") in mount.options]
        names += [name for name in own if name in mount.options]
        here = next((place for name in names if (place := mount.place(own.get(name, "/")))), None)
        for folder, below, _ in os.walk(here) if here else ():
            for name in below:
                if name.startswith("memrun"):
                    yield "group", f"{folder}/{name}", ""


@pytest.fixture(scope="session")
def hog() -> str:
    """tests/hog.c, built where it lies: every way of using memory."""
    source, built = ROOT / "tests/hog.c", ROOT / "tests/hog"
    if not built.exists() or built.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O1", "-pthread", "-o", f"{built}.{os.getpid()}", str(source)], check=True)
        os.replace(f"{built}.{os.getpid()}", built)
    return str(built)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files are page cache, not memory: a tmpfs (or an overlay on one) is charged like anonymous memory."""
    mounts = [line.split(" - ") for line in Path(detect.MOUNTINFO).read_text().splitlines()]
    kinds = {left.split()[4]: right.split()[0] for left, right in mounts}
    for place in (tmp_path, ROOT, Path("/run/memrun-vm")):
        point = next((str(p) for p in (place, *place.parents) if str(p) in kinds), "/")
        if kinds[point] not in {"tmpfs", "overlay", "9p"} and os.access(place, os.W_OK):
            mine = place / f".disk-{os.getpid()}"
            mine.mkdir()
            yield mine
            shutil.rmtree(mine)
            return
    pytest.skip("every file system here keeps its files in memory")
