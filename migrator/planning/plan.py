"""The plan of an evacuation: every container, where it goes, by which rung, when, and what comes too late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from migrator.choice.labels import wishes
from migrator.choice.need import Claim, Need, Room
from migrator.choice.score import Link
from migrator.model import ContainerFacts, EvacuationPlan, HostFacts, Method, PlannedMigration
from migrator.planning.limits import Limits
from migrator.planning.order import Unit, ordered_units
from migrator.planning.pack import Packer, Placement
from migrator.planning.rates import DEFAULTS, Rates
from migrator.planning.schedule import Schedule, Times

EXPLAINED_PAIRS = 20_000
"""Up to so many pairs of container and host, a plan also tells of hosts it did not have to look at."""


@dataclass(frozen=True)
class Assumptions:
    """What a plan takes for granted."""

    headroom_percent: float = 10.0
    rates: Mapping[str, Rates] = field(default_factory=dict)  # by target; defaults for others
    links: Mapping[str, Link] = field(default_factory=dict)
    domains: Sequence[str] = ()  # labels of hosts that fail together
    limits: Limits = field(default_factory=Limits)
    time_left_s: float | None = None  # how long the source usually lasts
    staged: Mapping[str, str] = field(default_factory=dict)  # container id -> the host where its files wait already


def plan_evacuation(
    source: HostFacts,
    containers: Sequence[ContainerFacts],
    targets: Sequence[HostFacts],
    method: Method,
    assumptions: Assumptions | None = None,
) -> EvacuationPlan:
    """Plan to empty a host. The same values give the same plan, in whatever order they come."""
    assumed = assumptions or Assumptions()
    ladders = {container.id: ladder(container, method) for container in containers}
    listed = sorted(containers, key=lambda item: (item.name, item.id))
    kept = [item for item in listed if wishes(item.labels).stays]
    leaving = [item for item in listed if not wishes(item.labels).stays]
    going = [item for item in leaving if ladders[item.id]]
    stuck = [item for item in leaving if not ladders[item.id]]
    units, warnings = ordered_units(going)
    hosts = sorted(targets, key=lambda target: target.host)
    packer = Packer(
        source=source,
        rooms={target.host: Room.of(target, source.host, assumed.headroom_percent) for target in hosts},
        links=assumed.links,
        domains=assumed.domains,
        explain=len(going) * len(hosts) <= EXPLAINED_PAIRS,
    )
    migrations = _Planning(assumed, packer, ladders).plan(units)
    migrations += [_stays(item, "its label says that it stays (lifeboat.evacuate)", kept=True) for item in kept]
    migrations += [_stays(item, "; ".join(sorted(set(item.unsupported.values())))) for item in stuck]
    return EvacuationPlan(
        source=source.host,
        migrations=tuple(migrations),
        time_left_s=assumed.time_left_s,
        ends_s=round(max((item.ends_s for item in migrations), default=0.0), 1),
        warnings=warnings,
    )


def ladder(container: ContainerFacts, wanted: Method) -> tuple[Method, ...]:
    """Return the rungs a container can take, from the wanted one (or its label's) downwards."""
    first = wishes(container.labels).method or wanted
    if first is Method.COLD:
        return (Method.COLD,) if Method.COLD not in container.unsupported else ()
    rungs = [Method.LAZY, Method.FULL]
    warm = tuple(rung for rung in rungs[rungs.index(first) :] if rung not in container.unsupported)
    return warm or ladder_below(container)


def ladder_below(container: ContainerFacts) -> tuple[Method, ...]:
    """Return the last rung, which loses what is in memory: only for what cannot be checkpointed at all."""
    return (Method.COLD,) if Method.COLD not in container.unsupported else ()


def supported_method(container: ContainerFacts, wanted: Method) -> Method | None:
    """Return the best rung from the wanted one downwards that the container can take, or None."""
    return next(iter(ladder(container, wanted)), None)


class _Planning:
    """One plan under way."""

    def __init__(self, assumed: Assumptions, packer: Packer, ladders: Mapping[str, tuple[Method, ...]]) -> None:
        self._assumed = assumed
        self._packer = packer
        self._ladders = ladders
        self._schedule = Schedule(assumed.limits)
        self._hosts_of_network: dict[str, list[str]] = {}

    def plan(self, units: Sequence[Unit]) -> list[PlannedMigration]:
        """Plan all units in their order."""
        return [planned for unit in units for planned in self._unit(unit)]

    def _unit(self, unit: Unit) -> list[PlannedMigration]:
        placement, rungs = self._place(unit)
        planned = []
        for container, rung in zip(unit.containers, rungs, strict=True):
            if placement.target is None:
                planned.append(self._nowhere(container, rung, placement))
            else:
                planned.append(self._going(unit, container, placement.target, rung, placement))
        return planned

    def _place(self, unit: Unit) -> tuple[Placement, list[Method]]:
        """Go down the ladder until a host can take the unit."""
        ladders = [self._ladders[container.id] for container in unit.containers]
        claim, beside = Claim.of(unit.containers), self._fellows(unit)
        tried: list[tuple[Placement, list[Method]]] = []
        for depth in range(max(map(len, ladders))):
            rungs = [rungs[min(depth, len(rungs) - 1)] for rungs in ladders]
            placement = self._packer.place(Need.of(unit.containers, rungs), claim, beside)
            if placement.target is not None:
                self._remember(unit, placement.target)
                return placement, rungs
            tried.append((placement, rungs))
        return tried[0]

    def _fellows(self, unit: Unit) -> list[str]:
        """Return the hosts to be tried first: where files wait, and those of containers on the same bridge.

        A bridge does not reach from host to host.
        """
        staged = {self._assumed.staged.get(item.id, "") for item in unit.containers}
        waiting = sorted(host for host in staged if host in self._packer.rooms)
        bridges = sorted(
            {net.network for item in unit.containers for net in item.networks if net.driver == "bridge"}
        )
        return waiting + [host for bridge in bridges for host in self._hosts_of_network.get(bridge, ())]

    def _remember(self, unit: Unit, target: str) -> None:
        for container in unit.containers:
            for network in container.networks:
                hosts = self._hosts_of_network.setdefault(network.network, [])
                if network.network != DEFAULT_NETWORK and target not in hosts:
                    hosts.append(target)

    def _going(
        self, unit: Unit, container: ContainerFacts, target: str, rung: Method, placement: Placement
    ) -> PlannedMigration:
        lowered, times = self._in_time(unit, container, target, rung)
        self._schedule.book(container, target, times)
        warnings = [*placement.warnings, *wishes(container.labels).problems]
        if lowered is not rung:
            warnings.append(f"{lowered} instead of {rung}, which would end too late")
        return PlannedMigration(
            container=container.name,
            target=target,
            method=lowered,
            memory_bytes=container.memory_bytes,
            expected_freeze_ms=round(times.freeze_s * 1000),
            expected_duration_s=round(times.ends_s - times.begins_s, 1),
            begins_s=round(times.begins_s, 1),
            freezes_s=round(times.freezes_s, 1),
            ends_s=round(times.ends_s, 1),
            late=self._late(times),
            rejections=placement.rejections,
            reason=placement.reason,
            after=tuple(sorted(unit.after)),
            warnings=tuple(warnings),
        )

    def _in_time(self, unit: Unit, container: ContainerFacts, target: str, rung: Method) -> tuple[Method, Times]:
        """Return the first rung that ends in time, else the one that ends first.

        The last rung comes after all others, for every container: its memory would be lost with the host.
        """
        rates = self._assumed.rates.get(target, DEFAULTS)
        rungs = self._ladders[container.id]
        lower_ones = [*rungs[rungs.index(rung) :], *(last for last in ladder_below(container) if last not in rungs)]
        found = [
            (lower, self._schedule.expect(container, target, lower, rates, tuple(unit.after)))
            for lower in lower_ones
        ]
        in_time = (pair for pair in found if not self._late(pair[1]))
        warm = [pair for pair in found if pair[0] is not Method.COLD] or found
        return next(in_time, min(warm, key=lambda pair: pair[1].ends_s))

    def _late(self, times: Times) -> bool:
        return self._assumed.time_left_s is not None and times.ends_s > self._assumed.time_left_s

    def _nowhere(self, container: ContainerFacts, rung: Method, placement: Placement) -> PlannedMigration:
        stays = _stays(container, placement.reason)
        return stays.model_copy(update={"method": rung, "rejections": placement.rejections})


DEFAULT_NETWORK = "podman"  # its containers do not know each other by name, so they need not stay together


def _stays(container: ContainerFacts, reason: str, *, kept: bool = False) -> PlannedMigration:
    warnings = wishes(container.labels).problems
    return staying(container, reason, kept=kept).model_copy(update={"warnings": warnings})


def staying(container: ContainerFacts, reason: str, *, kept: bool = False) -> PlannedMigration:
    """Return the line of a plan for a container that is not moved by it; `kept` says that it is not meant to be."""
    return PlannedMigration(
        container=container.name,
        target=None,
        method=Method.LAZY,
        memory_bytes=container.memory_bytes,
        expected_freeze_ms=0,
        expected_duration_s=0.0,
        reason=reason,
        kept=kept,
    )
