"""When each container goes: what runs at once is limited, and so is what a failing host has left of time.

A migration is a copy ahead, then it is *away* (parked, frozen, draining), then released. Copies, places away
and freezes are limited; the drains share the source's link, so their bytes go one after the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from migrator.model import ContainerFacts, Method
from migrator.planning.limits import Limits
from migrator.planning.rates import Rates


@dataclass(frozen=True)
class Times:
    """One migration in seconds from the start; `ends_s` is when the source is no longer needed."""

    begins_s: float
    freezes_s: float
    freeze_s: float
    ends_s: float


@dataclass
class Schedule:
    """Books one migration after the other, in the order of the plan."""

    limits: Limits
    _begun: list[float] = field(default_factory=list)  # when each place becomes free
    _away: list[float] = field(default_factory=list)
    _freezes: list[float] = field(default_factory=list)
    _targets: dict[str, list[float]] = field(default_factory=dict)
    _link_free_s: float = 0.0
    _ends: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._begun = [0.0] * self.limits.at_once
        self._away = [0.0] * self.limits.away
        self._freezes = [0.0] * self.limits.freezes

    def expect(
        self, container: ContainerFacts, target: str, method: Method, rates: Rates, after: Sequence[str] = ()
    ) -> Times:
        """Return the times of a migration, if it were the next one."""
        waits = max((self._ends.get(name, 0.0) for name in after), default=0.0)
        begins = max(self._begun[0], waits)
        copied = begins + rates.expected_copy_s(container.disk_bytes)
        place = self._targets.get(target, [0.0])[0]
        parked = max(copied, self._away[0], place) + rates.park_s
        freezes = max(parked, self._freezes[0])
        freeze = rates.expected_freeze_s(method, container.memory_bytes)
        drain = rates.expected_drain_s(method, container.memory_bytes)
        drained = max(freezes + freeze, self._link_free_s) + drain if drain else freezes + freeze
        return Times(begins, freezes, freeze, drained + rates.release_s)

    def book(self, container: ContainerFacts, target: str, times: Times) -> None:
        """Count a migration as planned."""
        places = self._targets.setdefault(target, [0.0] * self.limits.away_per_target)
        for heap, until in (
            (self._begun, times.ends_s),
            (self._away, times.ends_s),
            (places, times.ends_s),
            (self._freezes, times.freezes_s + times.freeze_s),
        ):
            heapq.heapreplace(heap, until)
        self._link_free_s = max(self._link_free_s, times.ends_s)
        self._ends[container.name] = times.ends_s
