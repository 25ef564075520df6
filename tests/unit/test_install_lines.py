"""What README, docs and examples tell people to install is this project, and no stranger's: on PyPI `memrun` is another one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAPERS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("*")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PAPERS if path.is_file() and path.name != "mem-allocate"}
TEXTS |= {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "memrun").rglob("*.py"))}
INSTALLS = re.compile(
    r"\b(?:pipx|pip3?|uv(?: tool| pip)?) (?:install|run|add|inject|upgrade)\b([^`\n#;|)&]*)|\b(?:uvx)\b([^`\n#;|)&]*)"
)
OURS = re.compile(r"(?:\.|\S*\.whl|'?\.\[\w+\]'?)")  # a checkout, or a wheel file


def installed(text: str) -> list[str]:
    """What each line that installs something installs."""
    found = []
    for match in INSTALLS.finditer(text):
        words = [word for word in shlex.split(match[1] or match[2] or "") if not word.startswith("-")]
        found += words or ["(nothing)"]
    return found


def test_what_is_to_be_installed_is_ours():
    found = {(name, what) for name, text in TEXTS.items() for what in installed(text)}
    assert not {(name, what) for name, what in found if not OURS.fullmatch(what)}, "neither this checkout, nor a wheel file"


def test_the_test_finds_them():
    assert len(installed(TEXTS["README.md"])) >= 4
    assert installed("sudo pipx install --global memrun   # x; or: uv tool install memrun") == ["memrun", "memrun"]
    assert installed("`pip install memrun`, `python3 -m pip install -q memrun-cgroup==1`, uvx memrun") == [
        "memrun",
        "memrun-cgroup==1",
        "memrun",
    ]
    assert installed("pip install .  # or: pip install dist/x.whl") == [".", "dist/x.whl"]


def test_the_distribution_has_a_name_of_its_own_and_the_command_has_not_changed():
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^name = "memrun-cgroup"', project, re.MULTILINE)
    assert 'packages = ["memrun"]' in project
