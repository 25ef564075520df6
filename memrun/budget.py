"""How much more, whether again, how soon and how often: of raises and restarts. Pure."""

from __future__ import annotations

from memrun.states import Draining, Running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.states import Rule, State

RESTARTS = {"restart", "restart-asked", "gave-way"}  # causes that end an attempt, but not the run
GOLDEN = 0.6180339887  # spreads the jitter of successive delays evenly, without a source of randomness


def grown(rule: Rule, limit: int | None) -> int | None:
    """The next larger limit, or the same where there is none."""
    if limit is None:
        return None
    larger = int(limit * rule.grow)
    return max(limit, larger if rule.ceiling is None else min(rule.ceiling, larger))


def foreseen(rule: Rule, state: State) -> int | None:
    """What a job that gets to its limit now is to be given, should the machine have it. Said beforehand, so that it can be done before anybody
    is asked again; then Raised is what has happened. None: that is decided when it is there."""
    if rule.on_oom != "pause" or state.stopped or not isinstance(state.phase, Running | Draining):
        return None
    more = grown(rule, state.limit)
    return more if more is not None and state.limit is not None and more > state.limit else None


def wanted_again(rule: Rule, why: str, result: str) -> bool:
    """Whether there is to be another attempt after this one, which `why` has ended."""
    if why not in {"", "oom-kill"}:
        return why in RESTARTS
    if result in {"oom-kill", "host-oom"}:
        return rule.on_oom == "restart" if result == "oom-kill" else rule.restart != "no"
    return not why and (rule.restart == "always" or (rule.restart == "on-failure" and result != "success"))


def delay(rule: Rule, quick: int) -> float:
    """Seconds until the next attempt: exponential, from half to the whole of it."""
    full = min(rule.max_delay, rule.delay * 2.0 ** min(40, max(0, quick - 1)))
    spread = (rule.jitter + quick * GOLDEN) % 1.0
    return full * (0.5 + spread / 2)


def counted(rule: Rule, tries: tuple[float, ...], at: float) -> tuple[float, ...]:
    """Those attempts that the budget still counts."""
    return tries if rule.interval is None else tuple(t for t in tries if t > at - rule.interval)
