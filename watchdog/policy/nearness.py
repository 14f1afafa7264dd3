"""How near a host is to a worse verdict: what its peers weigh when they look for a target. Pure."""

from __future__ import annotations

from watchdog.policy.evaluate import Assessment, RuleState
from watchdog.policy.model import Mode


def nearness(assessment: Assessment) -> float:
    """Return the largest share of its limit that any acting rule has reached: 0 far, 1 at it."""
    return max((_share(state) for state in assessment.states if state.rule.mode is Mode.ACT), default=0.0)


def _share(state: RuleState) -> float:
    if state.fired or state.holds:
        return 1.0
    if state.value is None or state.value <= 0:
        return 0.0  # a flag that is not set, a counter that did not grow, or nothing readable
    if state.rule.at_most is not None or state.rule.will_reach is not None:
        return max(0.0, min(1.0, state.limit / state.value))
    return max(0.0, min(1.0, state.value / state.limit)) if state.limit > 0 else 1.0
