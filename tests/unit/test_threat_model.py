"""Each promise of docs/threat-model.md names the test that tries to break it; each of those is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_every_test_that_is_named_is_there():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs/threat-model.md").read_text()))
    there = set(
        re.findall(r"^ *def (test_\w+)", "\n".join(path.read_text() for path in ROOT.glob("tests/**/test_*.py")), re.MULTILINE)
    )
    assert len(named) > 20
    assert not named - there
