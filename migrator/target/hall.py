"""What all incoming migrations of a host share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from migrator.container.known import KnownContainers
from migrator.protocol.journal import Journal
from migrator.registry.records import NoRecords, Registry
from migrator.settings import MigratorSettings
from migrator.target.checkpoints import Checkpoints
from migrator.target.pods import IncomingPods
from migrator.target.staging import Stagings


@dataclass(frozen=True)
class Hall:
    """Who and where this host is, as every `Reception` needs it."""

    host: str
    settings: MigratorSettings
    state: Path  # /var/lib/lifeboat
    runtime: Path  # /run/lifeboat
    pki: Path
    journal: Journal
    stagings: Stagings
    checkpoints: Checkpoints
    registry: Registry = field(default_factory=NoRecords)
    pods: IncomingPods = field(default_factory=IncomingPods)

    @property
    def known(self) -> KnownContainers:
        """Return what this host knows of its containers."""
        return KnownContainers(self.journal, self.settings)
