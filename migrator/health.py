"""The verdict on a host, as it is told to peers. `watchdog` judges; both packages use the word."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What policy says about a host."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"  # warm up: plan, pre-stage, alert
    FAILING = "failing"  # evacuate now

    @property
    def severity(self) -> int:
        """Order verdicts: 0 healthy, 1 suspect, 2 failing."""
        return list(Verdict).index(self)


class Lead(StrEnum):
    """How long a signal of this kind usually leaves before the host is lost."""

    DAYS = "days"
    MINUTES = "minutes"
    SECONDS = "seconds"
