"""How well a host suits: the more the better. Weights are shares of a host's memory.

A host with all its memory free has 1; a shared power feed costs as much as a fifth of the memory in use.
They order hosts that can all take the container, so nothing breaks when one is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrator.choice.filters import release
from migrator.choice.need import Need, Room
from migrator.model import HostFacts

LOAD_WEIGHT = 0.5  # per running process and CPU
NEARNESS_WEIGHT = 0.5  # a host that is itself about to be judged suspect
IMAGE_BONUS = 0.25  # no image to send
SHARED_DOMAIN_COST = 0.2  # the same rack, feed or disk batch as the failing host
OLDER_KERNEL_COST = 0.1
FAST_BYTES_PER_S, BANDWIDTH_WEIGHT = 1 << 30, 0.2
SLOW_ROUND_TRIP_MS, ROUND_TRIP_WEIGHT = 10.0, 0.2  # every page fault of the drain waits for one


@dataclass(frozen=True)
class Link:
    """What was measured of the way to a host; zeros where nothing is known."""

    bytes_per_s: float = 0.0
    round_trip_ms: float = 0.0


UNKNOWN = Link()


def fixed_score(need: Need, source: HostFacts, target: HostFacts, link: Link, domains: Sequence[str]) -> float:
    """Return the part of the score that no planned container changes."""
    found = -LOAD_WEIGHT * target.load - NEARNESS_WEIGHT * target.nearness
    if need.images and need.images <= set(target.image_ids):
        found += IMAGE_BONUS
    found -= SHARED_DOMAIN_COST * len(shared_domains(source, target, domains))
    if release(target.kernel) < release(source.kernel):
        found -= OLDER_KERNEL_COST
    found += BANDWIDTH_WEIGHT * min(1.0, link.bytes_per_s / FAST_BYTES_PER_S)
    return found - ROUND_TRIP_WEIGHT * min(1.0, link.round_trip_ms / SLOW_ROUND_TRIP_MS)


def room_score(room: Room) -> float:
    """Return the part of the score that falls with every container planned for the host."""
    return room.memory_bytes / max(1, room.facts.memory_bytes)


def shared_domains(source: HostFacts, target: HostFacts, domains: Sequence[str]) -> list[str]:
    """Return the failure domains that both hosts are known to be in."""
    return [name for name in domains if name in source.labels and source.labels[name] == target.labels.get(name)]
