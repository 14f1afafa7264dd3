"""The storm guard: when many hosts turn bad at once, a sensor, a heat wave or a bad update is likelier than as
many dying machines, and emptying them all onto the few that are left would do the harm. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrator.health import Verdict
from migrator.peers.neighbours import HealthTold


@dataclass(frozen=True)
class StormLimits:
    """A storm is more than `share_percent` of the cluster and at least `hosts` hosts within `window_s`."""

    share_percent: float = 30.0
    hosts: int = 3
    window_s: float = 600.0


def storm(
    own_since_s: float, told: Sequence[HealthTold], known_hosts: int, limits: StormLimits, calm_s: float
) -> str:
    """Return why this is a storm, or an empty text.

    `own_since_s` is for how long this host has been failing, `told` what the others say; a host that is silent
    counts as known and not as bad. What turned bad more than `calm_s` seconds ago, before an admin reset the
    guard, does not count.
    """
    window_s = min(limits.window_s, calm_s)
    ages = [health.since_s for health in told if health.verdict is not Verdict.HEALTHY]
    bad = sum(age <= window_s for age in [own_since_s, *ages])
    if bad < limits.hosts or bad * 100 <= limits.share_percent * known_hosts:
        return ""
    return f"{bad} of {known_hosts} hosts turned bad within {window_s:.0f} s"
