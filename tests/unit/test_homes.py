"""Where processes that were attached are put back."""

from __future__ import annotations

import errno

import pytest

from memrun.cgroup import homes
from memrun.cgroup.detect import parse_mountinfo

TOP = "/sys/fs/cgroup"
HOME = f"{TOP}/a/b"


@pytest.fixture
def way():
    [mount] = parse_mountinfo(f"30 23 0:26 / {TOP} rw - cgroup2 cgroup2 rw\n")
    return homes.Hierarchy(f"{TOP}/memrun-1-abcd", mount, "")


@pytest.mark.parametrize(
    ("answers", "asked", "put"),
    [
        ([0], [HOME], True),
        ([errno.ESRCH], [HOME], True),
        ([errno.EINTR, 0], [HOME, HOME], True),
        ([errno.ENODEV, errno.ENODEV, 0], [HOME, HOME, f"{TOP}/a"], True),
        ([errno.EBUSY] * 6, [HOME, HOME, f"{TOP}/a", f"{TOP}/a", TOP, TOP], False),
    ],
)
def test_home_or_the_nearest_group_above_it(monkeypatch, way, answers, asked, put):
    """What fails once, and not again, moves nobody elsewhere."""
    seen, left = [], list(answers)

    def write(place, pid):
        assert pid == 42
        seen.append(place)
        return left.pop(0)

    monkeypatch.setattr(homes, "_write", write)
    assert way.put(42, HOME) is put
    assert seen == asked
