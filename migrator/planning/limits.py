"""What runs at once: an admin may set it, the plan counts with it, and the source keeps to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How many migrations of one source may be at a stage at once."""

    at_once: int = 3  # begun and not ended
    away: int = 2  # parked, frozen or draining
    away_per_target: int = 2
    freezes: int = 1
