"""After the daemon's own death: finish or revert what the journal does not know the end of.

The shims and the page sink lived on in their scopes. A source without a decision gives the container back
(its shim has done so already, for it heard the daemon die); a committed one goes on draining and releases.
A target asks its source for the decision; before a commit it clears away.
"""

from __future__ import annotations

from pathlib import Path

from migrator.control import ControlClient
from migrator.errors import ExecutionError, LifeboatError, PeerError
from migrator.journal import Decision, Entry
from migrator.model import MigrationOutcome
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol import DecisionTold, Proposal
from migrator.shim.order import CONTROL
from migrator.source import Departure, Journey, SourceMigration
from migrator.target import Hall, Reception

SHIM_WAIT_S = 2.0
PEER_WAIT_S = 10.0


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


def recover_target(
    hall: Hall, entry: Entry, peers: PeerDirectory
) -> tuple[Reception | None, MigrationOutcome | None]:
    """Take up one migration to this host again: the reception that goes on, or how it ended."""
    proposal = Proposal.model_validate_json(entry.request)
    reception = Reception(hall, proposal)
    if entry.decision is None and _source_decision(proposal, peers) is not Decision.COMMIT:
        reception.adopt(_shim(reception.directory))
        reception.abort("lifeboatd ended before the commit")
        return None, _outcome(hall, entry)
    if entry.decision is Decision.ABORT:
        reception.adopt(_shim(reception.directory))
        reception.abort("aborted before lifeboatd ended")
        return None, _outcome(hall, entry)
    reception.adopt(_shim(reception.directory))
    return reception, None


def _source_decision(proposal: Proposal, peers: PeerDirectory) -> Decision | None:
    """Ask the source; silence is no decision, and nothing was opened here without one."""
    try:
        client = PeerClient(peers.peer(proposal.source), peers.pki)
        path = f"/v1/migrations/{proposal.migration}/decision"
        told = client.call("GET", path, None, DecisionTold, timeout_s=PEER_WAIT_S)
    except (PeerError, LifeboatError):
        return None
    return Decision(told.decision) if told.decision else None


def _shim(directory: Path) -> ControlClient | None:
    try:
        return ControlClient(directory / CONTROL, timeout_s=SHIM_WAIT_S, what="the parked podman")
    except LifeboatError:
        return None


def _outcome(hall: Hall, entry: Entry) -> MigrationOutcome | None:
    found = hall.journal.entry(entry.migration)
    return found.outcome if found else None
