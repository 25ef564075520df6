"""How much more, how soon again, how often: the figures of a raise and of a restart. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from memrun.states import Rule

GOLDEN = 0.6180339887  # spreads the jitter of successive delays evenly, without a source of randomness


def grown(rule: Rule, limit: int | None) -> int | None:
    """The next larger limit, or the same where there is none."""
    if limit is None:
        return None
    larger = int(limit * rule.grow)
    return max(limit, larger if rule.ceiling is None else min(rule.ceiling, larger))


def delay(rule: Rule, quick: int) -> float:
    """Seconds until the next attempt: exponential, from half to the whole of it."""
    full = min(rule.max_delay, rule.delay * 2.0 ** min(40, max(0, quick - 1)))
    spread = (rule.jitter + quick * GOLDEN) % 1.0
    return full * (0.5 + spread / 2)


def counted(rule: Rule, tries: tuple[float, ...], at: float) -> tuple[float, ...]:
    """Those attempts that the budget still counts."""
    return tries if rule.interval is None else tuple(t for t in tries if t > at - rule.interval)
