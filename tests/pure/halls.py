"""What a target's receptions share, for tests of one of them."""

from __future__ import annotations

from pathlib import Path

from migrator.protocol.journal import Journal
from migrator.settings import MigratorSettings
from migrator.target.checkpoints import Checkpoints
from migrator.target.hall import Hall
from migrator.target.staging import Stagings


def hall_in(directory: Path, settings: MigratorSettings, journal: Journal | None = None) -> Hall:
    """Return what a target's receptions share."""
    return Hall(
        host="beta",
        settings=settings,
        state=directory,
        runtime=directory,
        pki=directory,
        journal=journal or Journal(directory / "journal.db"),
        stagings=Stagings(directory),
        checkpoints=Checkpoints(directory),
    )
