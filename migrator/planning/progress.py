"""How far an evacuation is, and when it will end by what it has shown so far."""

from __future__ import annotations

from collections.abc import Collection

from migrator.model import EvacuationPlan

SLOWEST, FASTEST = 10.0, 0.1  # how far what was seen may correct the plan


def remaining_s(plan: EvacuationPlan, ended: Collection[str], elapsed_s: float) -> float:
    """Return the expected seconds to the end, when the containers in `ended` have come to theirs.

    The plan's remaining time, stretched by how much longer the first part took than planned.
    """
    going = [item for item in plan.migrations if item.target]
    left = [item for item in going if item.container not in ended]
    if not left:
        return 0.0
    finishes = sorted(item.ends_s for item in going)
    planned_s = finishes[len(going) - len(left) - 1] if len(left) < len(going) else 0.0
    if planned_s <= 0:
        return max(0.0, finishes[-1] - elapsed_s)
    stretch = min(SLOWEST, max(FASTEST, elapsed_s / planned_s))
    return (finishes[-1] - planned_s) * stretch
