"""What is done to a stay when the policy has decided it, and what a spec asks of the policy: for the event loop's hand (supervisor.py) and
for who waits without one (vigil.py)."""

from __future__ import annotations

import os

from memrun import interference, machine, policy, signals

LAST_RESORT = 10.0  # seconds to empty a group when all else has failed, before it is left to the dead man's hand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun import marks
    from memrun.job import Site, Stay
    from memrun.options import Spec


def rule_of(spec: Spec, site: Site) -> policy.Rule:
    """The part of the spec that the policy is about, sizes worked out."""
    return policy.Rule(
        on_oom=spec.on_oom,
        oom_group=spec.oom_group,
        wait_all=spec.wait_all,
        timeout=spec.timeout,
        stop_signal=spec.stop_signal,
        stop_timeout=spec.stop_timeout,
        grow=spec.grow,
        ceiling=site.size(spec.ceiling),
        patience=spec.patience,
        restart=spec.restart,
        attempts=spec.attempts,
        interval=spec.interval,
        delay=spec.delay,
        max_delay=spec.max_delay,
        min_uptime=spec.min_uptime,
        marks=tuple(_action(mark.action, f"use passes {mark.where}") for mark in spec.at),
        pressures=tuple(_action(rule.action, f"memory pressure is {rule.level}") for rule in spec.pressure),
        jitter=int.from_bytes(os.urandom(4), "little") / 2**32,
    )


def _action(action: marks.Action, about: str) -> policy.Action:
    return policy.Action(action.do, str(action.signal or action.command), f"{about}: {action}")


def take_over(stay: Stay) -> None:
    """From now on we watch it, not a guard; it may have come to its limit since the guard's last look."""
    if stay.relieve():
        interference.reflex(stay.group)


def signal(stay: Stay, number: int, *, tree: bool) -> None:
    """To the command, or to every process of the job."""
    if not tree:
        stay.child.signal(number)
        return
    pids = stay.group.pids()
    if not stay.borrowed and stay.child.pid not in pids:
        stay.child.signal(number)  # as root it may have left its group
    for pid in pids:
        signals.send(pid, number)
        signals.send(pid, signals.CONT)  # a stopped process hears nothing but KILL


def kill(stay: Stay, *, reaped: bool) -> bool:
    """Everybody. False where that is done: the command was `reaped`, and nobody is in the group. A kill is repeated, so that an end
    of which the kernel did not tell is found all the same."""
    if reaped and not stay.group.pids():
        return False
    stay.group.kill()
    stay.child.signal(signals.KILL)  # as root it may have left its group: it is ours to end all the same
    return True


def shares_terminal(stay: Stay) -> bool:
    """Whether the command is in our own process group, so that what the terminal sends reaches it as well."""
    try:
        return not stay.borrowed and os.getpgid(0) == os.getpgid(stay.child.pid)
    except ProcessLookupError:
        return False


def see_the_largest(stay: Stay) -> None:
    """The kernel has killed: who is there, where its own log, which has better figures, may not be read."""
    if stay.logged < 0:
        stay.seen = machine.glance(stay.group.pids())
