"""The way back of a drill: a target returns what came to it in a drill, to the host it came from, and nothing else.

A peer may offer and receive, never command. This is no command: the container is the asker's own, was sent as
a drill, and the journal here says so.
"""

from __future__ import annotations

from collections.abc import Callable

from migrator.errors import PrerequisiteError
from migrator.model import MigrationOutcome, Phase, Value
from migrator.protocol.journal import Journal, Side
from migrator.protocol.messages import Proposal

RETURN_LIMIT_S = 900.0

Mover = Callable[[str, str], MigrationOutcome]


class Returned(Value):
    """How the way back ended; `error` is empty when the container runs where it came from."""

    migration: str
    freeze_ms: float = 0.0
    error: str = ""


def give_back(journal: Journal, migration: str, asker: str, move: Mover) -> Returned:
    """Move the container of a drill back to `asker`; raises `PrerequisiteError` for what was no drill of it."""
    entry = journal.entry(migration)
    if entry is None or entry.side is not Side.TARGET:
        raise PrerequisiteError(f"nothing is known here of the migration {migration}", code="unknown-migration")
    proposal = Proposal.model_validate_json(entry.request)
    arrived = entry.outcome is not None and entry.outcome.phase is Phase.DONE
    if not proposal.drill or not arrived or proposal.source != asker:
        raise PrerequisiteError("only what came in a drill is given back, to where it came from", code="no-drill")
    outcome = move(proposal.container.id, proposal.source)
    return Returned(migration=migration, freeze_ms=outcome.freeze_ms or 0.0, error=outcome.error)
