"""What the journal of a target has of one incoming migration."""

from __future__ import annotations

import time
from collections.abc import Callable

from migrator.errors import ExecutionError
from migrator.model import MigrationEvent, MigrationOutcome, Phase
from migrator.protocol.journal import Decision, Fate, Side
from migrator.protocol.messages import Proposal, Report
from migrator.target.hall import Hall

DRAINED = "all memory is here"
WRITTEN = "its files are on disk"
UNWRITTEN = "its files are not on disk: "


class Record:
    """The lines, the rows and the end of one incoming migration; everything is on disk when a method returns."""

    def __init__(self, hall: Hall, proposal: Proposal) -> None:
        self._hall = hall
        self._proposal = proposal
        self._id = proposal.migration
        self._unwritten: Callable[[], None] | None = None  # the end, where the journal did not take it yet
        self.ended = False

    def begin(self) -> None:
        """Know the migration; idempotent."""
        container = self._proposal.container
        self._hall.journal.begin(self._id, Side.TARGET, container.name, self._proposal.model_dump_json())
        self._hall.journal.learn_epoch(container.id, self._proposal.epoch - 1)
        self.write(Phase.PREPARE, f"reserved for {container.name} from {self._proposal.source}")

    @property
    def decision(self) -> Decision | None:
        """Return the row, which is this host's promise."""
        return self._hall.journal.decision(self._id)

    @property
    def fate(self) -> Fate | None:
        """Return what became of a commit that did not end well."""
        return self._hall.journal.fate(self._id)

    def commit(self) -> None:
        """Promise to keep the container, and all of its pod; raises `ExecutionError` when it was aborted here."""
        if self._hall.journal.decide_all(self._proposal.together, Decision.COMMIT) is Decision.ABORT:
            raise ExecutionError("this migration was aborted here", code="aborted")

    def opened(self, restored_in_ms: float) -> None:
        """The container may speak here, and belongs to us."""
        self._hall.journal.learn_epoch(self._proposal.container.id, self._proposal.epoch)
        self.write(Phase.RESTORE, f"restored in {restored_in_ms:.0f} ms, silent")
        self.write(Phase.COMMIT, "the gate is open, the address announced")

    def abort(self) -> None:
        """Promise never to open, nor any of its pod; raises `ExecutionError` after the commit."""
        if self._hall.journal.decide_all(self._proposal.together, Decision.ABORT) is Decision.COMMIT:
            raise ExecutionError("this migration is committed", code="committed")

    def seal(self, fate: Fate) -> None:
        """Write what becomes of it, and of its pod; raises `ExecutionError` when something else did already."""
        if (sealed := self._hall.journal.seal_all(self._proposal.together, fate)) is not fate:
            raise ExecutionError(f"too late: {sealed} was decided here", code="sealed")

    def drained(self) -> None:
        """The memory is complete; idempotent."""
        if not self.was_drained:
            self.write(Phase.DRAIN, DRAINED)

    def written(self) -> None:
        """The files would survive a power cut here; idempotent."""
        if not self.was_written:
            self.write(Phase.DRAIN, WRITTEN)

    def unwritten(self, why: str) -> None:
        """Some of the files could not be written, and nobody will hear of it again; idempotent."""
        if not self.unwritten_for:
            self.write(Phase.DRAIN, f"{UNWRITTEN}{why}")

    @property
    def unwritten_for(self) -> str:
        """Return why files could not be written; empty when that was not tried, or nothing failed."""
        lines = [event.message for event in self._hall.journal.events(self._id)]
        return next((line.removeprefix(UNWRITTEN) for line in lines if line.startswith(UNWRITTEN)), "")

    @property
    def was_drained(self) -> bool:
        """Say whether the memory was complete, perhaps before this host was down."""
        return self._has(DRAINED)

    @property
    def was_written(self) -> bool:
        """Say whether the files were written, perhaps before this host was down."""
        return self._has(WRITTEN)

    def _has(self, message: str) -> bool:
        events = self._hall.journal.events(self._id)
        return any(event.phase is Phase.DRAIN and event.message == message for event in events)

    @property
    def ended_as(self) -> Phase | None:
        """Return how it ended; None while it has not, or somebody still has to look after it."""
        entry = self._hall.journal.entry(self._id)
        return entry.outcome.phase if entry is not None and entry.settled and entry.outcome else None

    def write(self, phase: Phase, message: str) -> None:
        """Add a line."""
        event = MigrationEvent(
            migration=self._id,
            container=self._proposal.container.name,
            at=time.time(),
            phase=phase,
            message=message,
        )
        self._hall.journal.write(event)

    def end(self, phase: Phase, reason: str = "", report: Report | None = None) -> None:
        """Write the last line and the outcome, and what came; what a full disk does not take, `finish` writes."""
        error = "" if phase is Phase.DONE else reason
        told = {"drained_bytes": report.drained_bytes, "drain_s": report.drain_s} if report else {}
        outcome = self.outcome(phase, error).model_copy(update=told)

        def write() -> None:
            self.write(phase, reason)
            self._hall.journal.finish(outcome)

        self._unwritten = write
        self.finish()

    def finish(self) -> None:
        """Write the end that the journal did not take before; nothing happens when there is none."""
        if self._unwritten is not None:
            self._unwritten()
            self._unwritten, self.ended = None, True

    def outcome(self, phase: Phase, error: str) -> MigrationOutcome:
        """Return how this migration ended, or would end now."""
        return MigrationOutcome(
            migration=self._id,
            container=self._proposal.container.name,
            source=self._proposal.source,
            target=self._hall.host,
            method=self._proposal.method,
            phase=phase,
            error=error,
        )
