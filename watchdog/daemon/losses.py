"""What is lost with devices of this host: which of its containers, or all of them with the host."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.model import ContainerFacts, PlannedMigration
from migrator.planning.plan import staying
from migrator.runtime import podman
from watchdog.signals.model import Device
from watchdog.signals.places import Affected, StorageFacts, affected, storage_facts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Concerned:
    """The containers that a verdict is about, and those it is not; `devices` are what it rests on."""

    going: tuple[ContainerFacts, ...]
    staying: tuple[ContainerFacts, ...] = ()
    devices: tuple[Device, ...] = ()

    @property
    def lost(self) -> str:
        """Return the names of the devices."""
        return ", ".join(device.name for device in self.devices)

    def lines(self) -> tuple[PlannedMigration, ...]:
        """Return the lines of a plan for what stays."""
        reason = f"it stays: its storage does not lie on {self.lost}"
        return tuple(staying(item, reason, kept=True) for item in sorted(self.staying, key=lambda item: item.name))


class Losses:
    """Looks up what lies where, anew for each question."""

    def __init__(
        self, facts: Callable[[], StorageFacts] = storage_facts, layers: Callable[[], str] | None = None
    ) -> None:
        """`layers` returns the directory of the layers of all containers; podman's own word by default."""
        self._facts = facts
        self._layers = layers or _graph_root

    def concerned(self, devices: Sequence[Device], containers: Sequence[ContainerFacts]) -> Concerned:
        """Divide containers by the loss of all of these devices; of none of them means of the whole host.

        So does what cannot be told: rather too much leaves than too little.
        """
        try:
            lost = self.of(devices, containers) if devices else Affected(host=True)
        except (LifeboatError, OSError) as error:
            _log.error("it cannot be told what lies where, so all containers are to leave: %s", error)
            lost = Affected(host=True)
        if lost.host:
            return Concerned(tuple(containers))
        return Concerned(
            tuple(item for item in containers if item.name in lost.containers),
            tuple(item for item in containers if item.name not in lost.containers),
            tuple(devices),
        )

    def of(self, devices: Iterable[Device], containers: Sequence[ContainerFacts]) -> Affected:
        """Return what the loss of all of these devices takes with it."""
        return affected(devices, self._storage(containers), self._facts())

    def of_each(self, devices: Iterable[Device], containers: Sequence[ContainerFacts]) -> dict[str, Affected]:
        """Return for each device, by identity, what its loss takes with it."""
        storage, facts = self._storage(containers), self._facts()
        return {device.identity: affected((device,), storage, facts) for device in devices}

    def _storage(self, containers: Sequence[ContainerFacts]) -> Mapping[str, Sequence[str]]:
        layers = self._layers() if containers else ""
        return {item.name: [layers, *paths_of(item)] for item in containers}


def paths_of(container: ContainerFacts) -> list[str]:
    """Return the places of this host that a container uses besides its layers, wherever links lead."""
    mounted = [path for volume in container.volumes for path in (volume.source, volume.path)]
    return sorted({str(Path(path).resolve()) for path in (*mounted, *container.devices)})


def _graph_root() -> str:
    return str(podman.places().graph_root.resolve())
