"""Whether what `make dist` and `make zipapp` built is what a user wants to install.

    python tools/check_dist.py DIRECTORY        DIRECTORY holds one wheel, one sdist, one memrun.pyz

The wheel is installed into an empty environment of each Python from 3.10 on that is here (on PATH or under ~/.pyenv). Where
memory groups can be made, the example must die at its limit; elsewhere memrun must say what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = str(ROOT / "examples/mem-allocate")
PAPERS = (
    "man/man1/memrun.1",
    "man/man5/memrun-jobs.5",
    "bash-completion/completions/memrun",
    "zsh/site-functions/_memrun",
    "fish/vendor_completions.d/memrun.fish",
)
NEWEST = 20  # minor versions that are looked for
TYPED = """
import memrun
async def work() -> int:
    record: memrun.Record = await memrun.run(["true"], limit="50M")
    return record.status
"""
WRONG = TYPED + "\n_: str = memrun.__version__.nonsense\n"
TRY = """
source {}
COMP_WORDS=(memrun rai) COMP_CWORD=1 COMP_LINE='memrun rai' COMP_POINT=10
_memrun memrun rai memrun
echo ${{COMPREPLY[*]}}
"""


def pythons() -> dict[str, str]:
    """'3.12' -> an interpreter of that version, each version once."""
    places = [*os.environ.get("PATH", "").split(":"), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found = {}
    for minor in range(10, NEWEST):
        for place in places:
            candidate = f"{place}/python3.{minor}"
            if os.access(candidate, os.X_OK) and _runs(candidate):
                found[f"3.{minor}"] = candidate
                break
    return found or {f"3.{sys.version_info.minor}": sys.executable}


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0


def expect(words: list[str], *, status: int = 0, said: str = "", **options: object) -> None:
    """Run; anything else than expected ends the check."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode != status or said not in done.stdout:
        sys.exit(
            f"$ {' '.join(words)}\n{done.stdout}\n(exit status {done.returncode}, expected {status}{said and f' and {said!r}'})"
        )


def the_example(*memrun: str, **options: object) -> None:
    """It dies at its limit, and memrun says so; where no group can be made, memrun says that."""
    command = [*memrun, "--limit", "5M", "--", EXAMPLE]
    if subprocess.run([*memrun, "doctor"], capture_output=True, check=False, **options).returncode == 0:  # type: ignore[call-overload]
        expect(command, status=137, said="oom-kill: killed at the limit of 5M", **options)
    else:
        expect(command, status=125, said="memory group", **options)


def the_wheel(wheel: str, python: str, *, typed: bool) -> None:
    """Into an empty environment."""
    with tempfile.TemporaryDirectory() as place:
        expect([python, "-m", "venv", place])
        inside = f"{place}/bin/python"
        expect([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel])
        expect([inside, "-m", "pip", "--disable-pip-version-check", "check"])
        expect([inside, "-m", "pip", "--disable-pip-version-check", "show", "memrun-cgroup"], said="Name: memrun-cgroup")
        expect([f"{place}/bin/memrun", "--version"], said="memrun ")
        the_example(f"{place}/bin/memrun", cwd=place)
        for paper in PAPERS:
            assert Path(place, "share", paper).stat().st_size > 1000, paper
        if typed:
            typing(inside, place)


def typing(python: str, place: str) -> None:
    """Programs that use memrun are checked against its annotations (PEP 561)."""
    for name, text, status in (("right", TYPED, 0), ("wrong", WRONG, 1)):
        Path(place, f"{name}.py").write_text(text)
        mypy = [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            f"{place}/cache",
            "--python-executable",
            python,
            f"{name}.py",
        ]
        expect(mypy, status=status, cwd=place)


def the_papers(wheel: str) -> None:
    """Shells can read their completions, where they are here, and man its page, without a warning."""
    with tempfile.TemporaryDirectory() as place:
        expect([sys.executable, "-m", "zipfile", "-e", wheel, place])
        share = next(Path(place).glob("*.data/data/share"))
        for shell, file in zip(("bash", "zsh", "fish"), PAPERS[2:], strict=True):
            if subprocess.run(["sh", "-c", f"command -v {shell}"], capture_output=True, check=False).returncode == 0:
                expect([shell, "-n", str(share / file)])
        expect(["bash", "-c", TRY.format(share / PAPERS[2])], said="raise")


def the_zipapp(app: str, python: str) -> None:
    """On an interpreter that has nothing but itself, with no environment at all."""
    with tempfile.TemporaryDirectory() as place:
        bare: dict[str, object] = {"env": {"SHIV_ROOT": place}, "cwd": place}
        expect([python, "-I", app, "--version"], said="memrun ", **bare)
        the_example(python, "-I", app, **bare)
        Path(place, "jobs.toml").write_text('[jobs.a]\ncommand = "true"\nlimit = "50M"\n')
        expect([python, "-I", app, "check", "jobs.toml"], **bare)


def main(folder: str) -> None:
    """All of it."""
    began = time.monotonic()
    wheel, sdist, app = (str(next(Path(folder).resolve().glob(kind))) for kind in ("*.whl", "*.tar.gz", "*.pyz"))
    expect([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist])
    the_papers(wheel)
    found = pythons()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        newest = [*found.values()][-1]
        tasks = [pool.submit(the_wheel, wheel, python, typed=python == newest) for python in found.values()]
        ends = {next(iter(found.values())), newest}  # those between differ in nothing
        tasks += [pool.submit(the_zipapp, app, python) for python in ends]
        for task in tasks:
            task.result()
    print(f"wheel and zipapp are well on Python {', '.join(found)}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
