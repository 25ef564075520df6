"""memrun and all that it needs in one file, for machines without pip: built by shiv.

    python tools/onefile.py WHEEL OUTPUT [3.10 3.11 ...]

A program in a zip cannot load C extensions from it (psutil's and rpds' are such): what shiv makes unpacks itself once, into ~/.shiv or
$SHIV_ROOT, and is imported from there. Extension modules carry their Python's version in their names, so those for several
versions lie side by side, and one file serves all of them; it is for machines with this machine's kind of CPU.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distributions
from pathlib import Path

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OFFERED = ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux1", "manylinux2010")
OLDER = ("exceptiongroup", "typing-extensions")  # what only older Pythons need, which pip decides by the Python that it runs on


def fetch(version: str, place: str, *what: str) -> None:
    """Packages as that Python would get them, into a directory."""
    platforms = [word for kind in OFFERED for word in ("--platform", f"{kind}_{platform.machine()}")]
    pip = [sys.executable, "-m", "pip", "-qq", "install", "--no-compile", "--only-binary=:all:"]
    subprocess.run(
        [*pip, "--python-version", version, "--implementation", "cp", *platforms, "--target", place, *what], check=True
    )


def bound_to_one_version(place: str) -> list[str]:
    """Which of the packages there have C extensions for one Python only, pinned."""
    found = [(each.metadata["Name"], each.version, each.files or []) for each in distributions(path=[place])]
    return [f"{name}=={version}" for name, version, files in found if any(".cpython-" in file.name for file in files)]


def main(wheel: str, output: str, *versions: str) -> None:
    """Fetch all for one version, what differs for the others, lay them over each other, and pack."""
    first, *others = versions or VERSIONS
    with tempfile.TemporaryDirectory() as work:
        base = f"{work}/{first}"
        fetch(first, base, wheel, *OLDER)
        pinned = bound_to_one_version(base)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda version: fetch(version, f"{work}/{version}", "--no-deps", *pinned), others))
        for version in others:
            shutil.copytree(f"{work}/{version}", base, dirs_exist_ok=True)
        for unwanted in ("bin", "share"):  # commands of the dependencies, man pages: nobody finds them in there
            shutil.rmtree(f"{base}/{unwanted}", ignore_errors=True)
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        shiv = [sys.executable, "-m", "shiv.cli", "--compressed", "--reproducible", "--python", "/usr/bin/env python3"]
        subprocess.run(
            [*shiv, "--entry-point", "memrun.__main__:main", "--site-packages", base, "--output-file", output], check=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
