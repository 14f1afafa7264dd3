"""After the daemon's own death: finish or revert the migrations away from this host that have no end yet.

The shims and the pagers lived on in their scopes. Without a decision the container is given back (its shim has
done so already, for it heard the daemon die); a committed one goes on draining and releases. What
comes in from others is taken up by migrator.caretaker.
"""

from __future__ import annotations

from pathlib import Path

from migrator.control import ControlClient
from migrator.departure import Departure
from migrator.errors import ExecutionError, LifeboatError
from migrator.journal import Decision, Entry
from migrator.model import MigrationOutcome
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.shim.order import CONTROL
from migrator.source import Journey, SourceMigration

SHIM_WAIT_S = 2.0


def recover_source(shared: Departure, entry: Entry, peers: PeerDirectory) -> MigrationOutcome:
    """Bring one migration away from this host to its end."""
    journey = Journey.model_validate_json(entry.request)
    client = PeerClient(peers.peer(journey.target), peers.pki)
    migration = SourceMigration(
        shared,
        migration=entry.migration,
        container=journey.container,
        target=client,
        method=journey.method,
        observe=lambda _: None,
    )
    word = shared.journal.decide(entry.migration, Decision.ABORT)
    shim = _shim(shared.runtime / "migrations" / entry.migration)
    if word is Decision.COMMIT:
        return migration.resume(shim)
    error = ExecutionError("lifeboatd ended before the commit; the container stays here", code="daemon-ended")
    return migration.revert(shim, error)


def _shim(directory: Path) -> ControlClient | None:
    try:
        return ControlClient(directory / CONTROL, timeout_s=SHIM_WAIT_S, what="the parked podman")
    except LifeboatError:
        return None
