"""Every operation on a control file fails once: no orphan, no group left, no parked task, no traceback, the right status.

What is left behind is looked at after each run, so that a complaint says which operation it was. MEMRUN_TEST_FAULTS=all: each operation with each error
(an hour); a number: so many operations of each scenario, each with one, which by default are few.
"""

from __future__ import annotations

import errno
import re

import pytest
from faults.scenarios import ALL, SCENARIOS, Runs, some

ERRORS = [errno.EBUSY, errno.ENODEV, errno.EACCES, errno.ENOSPC, errno.EIO, errno.EINTR]
SOME = 8  # operations of a scenario
TOLD = re.compile(r": (paused|resumed|restarting|exhausted|threshold|raised): ")  # what a run says on its way
GONE_IN = 5.0  # seconds


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_operation_fails_once(name, tmp_path, hog):
    expected = SCENARIOS[name][1]
    runs = Runs(name, tmp_path, hog)
    count = runs.operations()
    assert count > 10, "nothing is injected"
    wrong = []
    for which in some(count, SOME):
        for number in ERRORS if ALL else [ERRORS[which % len(ERRORS)]]:
            done = runs.run(str(number), which)
            about = (
                f"operation {which} of {count}, {errno.errorcode[number]}: status {done.returncode}: {done.stderr.strip()[-600:]}"
            )
            if done.returncode not in {*expected, 125, 0}:
                wrong.append(f"status: {about}")
            if "Traceback" in done.stderr or "Error" in done.stderr:
                wrong.append(f"traceback: {about}")
            said = [line for line in done.stderr.strip().splitlines() if not TOLD.search(line)]
            if done.returncode == 125 and len(said) != 1 and name != "batch":
                wrong.append(f"not one sentence: {about}")
            if left := runs.left(GONE_IN):
                wrong.append(f"left behind {left}: {about}")
                break
    assert not wrong, "\n".join(wrong)
