"""In what order containers go: by priority, what others wait for first, and together what belongs together."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from migrator.choice.labels import Wishes, wishes
from migrator.model import ContainerFacts


@dataclass(frozen=True)
class Unit:
    """Containers that go to one host, one after the other; mostly one."""

    containers: tuple[ContainerFacts, ...]
    after: frozenset[str] = frozenset()  # names of containers of other units that go first

    @property
    def wishes(self) -> tuple[Wishes, ...]:
        """Return the labels of its containers."""
        return tuple(wishes(container.labels) for container in self.containers)

    @property
    def key(self) -> tuple[int, int, str]:
        """Order by priority, then the small ones first: more containers are safe sooner."""
        size = sum(container.memory_bytes for container in self.containers)
        return (-max(wish.priority for wish in self.wishes), size, self.containers[0].name)


def ordered_units(containers: Sequence[ContainerFacts]) -> tuple[tuple[Unit, ...], tuple[str, ...]]:
    """Return units in the order in which they go, and warnings about wishes that contradict each other.

    Every unit comes after those it waits for; these inherit its priority. Of a circle one wish is dropped.
    """
    units = _grouped(containers)
    place = {container.name: number for number, unit in enumerate(units) for container in unit.containers}
    before = {
        number: {place[name] for name in unit.after if name in place and place[name] != number}
        for number, unit in enumerate(units)
    }
    warnings = _break_circles(before, units)
    keys = _inherited(before, [unit.key for unit in units])
    order = _by_key(before, keys)
    return tuple(
        Unit(units[number].containers, frozenset(_names(units, before[number]))) for number in order
    ), tuple(warnings)


def _grouped(containers: Sequence[ContainerFacts]) -> list[Unit]:
    """Join containers that share a pod or a `lifeboat.with`, also through a third one."""
    groups: dict[str, str] = {}

    def root(name: str) -> str:
        while groups.setdefault(name, name) != name:
            name = groups[name]
        return name

    for container in containers:
        own = root(f"container:{container.id}")
        together = wishes(container.labels).together
        for name in ([f"pod:{container.pod.id}"] if container.pod else []) + (
            [f"with:{together}"] if together else []
        ):
            groups[root(name)] = own
    members: dict[str, list[ContainerFacts]] = {}
    for container in sorted(containers, key=lambda item: Unit((item,)).key):
        members.setdefault(root(f"container:{container.id}"), []).append(container)
    return [
        Unit(tuple(found), frozenset(name for item in found for name in wishes(item.labels).after))
        for found in members.values()
    ]


def _break_circles(before: dict[int, set[int]], units: Sequence[Unit]) -> list[str]:
    warnings = []
    while True:
        try:
            TopologicalSorter(before).prepare()
        except CycleError as error:
            circle: list[int] = error.args[1]
            # graphlib lists each node before one that waits for it; the dropped wish is the first by name
            waits = [(second, first) for first, second in pairwise(circle)]
            who, whom = min(waits, key=lambda pair: units[pair[0]].containers[0].name)
            before[who].discard(whom)
            names = " and ".join(units[number].containers[0].name for number in (who, whom))
            warnings.append(f"lifeboat.after goes in a circle at {names}; that wish is dropped")
        else:
            return warnings


def _inherited(before: Mapping[int, set[int]], keys: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Let what others wait for go as early as they would."""
    priorities = [key[0] for key in keys]
    for number in reversed(list(TopologicalSorter(before).static_order())):
        for earlier in before[number]:
            priorities[earlier] = min(priorities[earlier], priorities[number])
    return [(priorities[number], size, name) for number, (_, size, name) in enumerate(keys)]


def _by_key(before: Mapping[int, set[int]], keys: Sequence[tuple[int, int, str]]) -> list[int]:
    sorter = TopologicalSorter(before)
    sorter.prepare()
    ready = [(keys[number], number) for number in sorter.get_ready()]
    heapq.heapify(ready)
    order = []
    while ready:
        _, number = heapq.heappop(ready)
        order.append(number)
        sorter.done(number)
        for fresh in sorter.get_ready():
            heapq.heappush(ready, (keys[fresh], fresh))
    return order


def _names(units: Sequence[Unit], numbers: set[int]) -> list[str]:
    return [container.name for number in numbers for container in units[number].containers]
