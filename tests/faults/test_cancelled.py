"""`memrun.run` is cancelled at every step that trio takes in it: the job is gone, its group too, and nothing is left open.

A step is one task's way from one checkpoint to the next: after the k-th of them all that is in there is cancelled, for every k.
"""

from __future__ import annotations

import pytest
import trio
from conftest import leftovers
from faults.scenarios import some, soon

import memrun

SOME = 6  # steps of a scenario
GONE_IN = 2.0  # seconds
SMALL = {"limit": "20M"}
SCENARIOS = {
    "one-shot": (["sleep", "0.01"], SMALL),
    "oom": (["HOG", "touch", "30"], SMALL),
    "pause": (["HOG", "touch", "30"], {**SMALL, "on_oom": "pause", "grow": 2}),
    "held": (["HOG", "touch", "30"], {**SMALL, "on_oom": "pause", "patience": "50ms"}),
    "restart": (["HOG", "touch", "30"], {**SMALL, "on_oom": "restart", "grow": 2, "delay": "10ms"}),
    "timeout": (["sleep", "100"], {**SMALL, "timeout": "20ms", "stop_timeout": "20ms"}),
    "ignores": (["sh", "-c", "trap '' TERM; sleep 100 & sleep 100"], {**SMALL, "timeout": "20ms", "stop_timeout": "20ms"}),
    "thresholds": (["HOG", "touch", "15"], {**SMALL, "at": "50%=exec:sleep 0.05", "wait_all": True}),
}


class Steps(trio.abc.Instrument):
    """Counts them, and cancels after one of them."""

    def __init__(self, which):
        self.count, self.which, self.scope = 0, which, trio.CancelScope()

    def after_task_step(self, task):
        if not task.name.startswith(("trio.", "<")):  # its own
            self.count += 1
            if self.count == self.which:
                self.scope.cancel()


def once(words, options, which):
    steps = Steps(which)
    ended = []

    async def main():
        with steps.scope:
            ended.append(await memrun.run(words, **options))

    trio.run(main, instruments=[steps])
    return steps.count, steps.scope.cancelled_caught, ended


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_step(name, hog):
    words, options = SCENARIOS[name]
    words = [hog if word == "HOG" else word for word in words]
    count, _, ended = once(words, options, 0)
    assert count > 5, "no steps were counted"
    before = {one[:2] for one in leftovers()}
    cancelled = 0
    for which in some(count, SOME):
        _, caught, ended = once(words, options, which)
        assert caught or ended, f"neither cancelled nor over at step {which}"
        cancelled += caught
        left = soon(lambda: [one for one in leftovers() if one[:2] not in before], GONE_IN)
        assert not left, f"cancelled at step {which} of {count}: left behind {left}"
    assert cancelled
