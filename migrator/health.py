"""The verdict on a host, as it is told to peers. `watchdog` judges; both packages use the word."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Health:
    """How this host is, as its peers are told."""

    verdict: Verdict = Verdict.HEALTHY
    since_s: float = 0.0  # for how long it has had this verdict
    cordoned: bool = False
    evacuating: bool = False
    nearness: float = 0.0  # how near it is to a worse verdict: 0 far, 1 there

    @property
    def refusal(self) -> str:
        """Say why this host takes no container now; empty when it does."""
        if self.verdict is not Verdict.HEALTHY:
            return f"its own verdict is {self.verdict}"
        if self.evacuating:
            return "it is being emptied itself"
        return "it is cordoned" if self.cordoned else ""
