"""SIGKILL to memrun at every step, a step being an operation on a control file: two seconds later nothing of it is parked, runs or is left.

MEMRUN_TEST_FAULTS=all: at every one; a number: at so many of each scenario, which by default are few.
"""

from __future__ import annotations

import pytest
from faults.scenarios import SCENARIOS, Runs, some

SOME = 3  # operations of a scenario
GONE_IN = 2.0  # seconds
KILLED = [*((name, "kill") for name in SCENARIOS), ("batch", "kill-first")]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "what"), KILLED)
def test_killed_at_every_operation(name, what, tmp_path, hog):
    runs = Runs(name, tmp_path, hog)
    count = runs.operations()
    wrong = []
    for which in some(count, SOME):
        done = runs.run(what, which)
        if "Traceback" in done.stderr:
            wrong.append(f"operation {which} of {count}: {done.stderr}")
        if left := runs.left(GONE_IN):
            wrong.append(f"operation {which} of {count}: status {done.returncode}: left behind {left}")
            break
    assert not wrong, "\n".join(wrong)
