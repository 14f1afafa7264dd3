"""The course of one migration on this host: phases with their times, written to the journal and told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from migrator.errors import LifeboatError
from migrator.model import DrainDetails, Method, MigrationEvent, MigrationOutcome, Phase, PhaseTime
from migrator.protocol.journal import Journal
from migrator.protocol.messages import Report

_log = logging.getLogger(__name__)

Observer = Callable[[MigrationEvent], None]


@contextmanager
def _as_far_as_the_disk_goes() -> Iterator[None]:
    try:
        yield
    except LifeboatError as error:
        _log.error("how a migration ended is in no journal: %s", error)


class Timeline:
    """Journals each phase before the work of it begins, and remembers how long it took."""

    def __init__(self, journal: Journal, migration: str, container: str, observe: Observer) -> None:
        self._journal = journal
        self._migration = migration
        self._container = container
        self._observe = observe
        self._times: list[PhaseTime] = []
        self.phase: Phase | None = None
        self._began_at = 0.0

    def enter(self, phase: Phase, message: str = "", *, at: float | None = None) -> None:
        """Begin a phase, now or at `at` (Unix seconds)."""
        moment = time.time() if at is None else at
        self._close_phase(moment)
        self.phase, self._began_at = phase, moment
        self._write(moment, phase, message)

    def began(self, at: float) -> None:
        """Correct when the current phase really began (Unix seconds); the one before lasted until then."""
        if self._times:
            last = self._times[-1]
            self._times[-1] = last.model_copy(update={"duration_s": at - last.began_at})
        self._began_at = at

    def tell(self, message: str) -> None:
        """Record something worth knowing within the current phase."""
        self._write(time.time(), self.phase or Phase.PREPARE, message)

    def progress(self, report: Report, total_bytes: int) -> None:
        """Tell how far the drain is; not journalled, for only the target knows what is true."""
        self._observe(
            MigrationEvent(
                migration=self._migration,
                container=self._container,
                at=time.time(),
                phase=Phase.DRAIN,
                drained_bytes=report.drained_bytes,
                total_bytes=total_bytes,
                drain=report.drain,
            )
        )

    def end(
        self,
        phase: Phase,
        *,
        source: str,
        target: str,
        method: Method,
        error: LifeboatError | None,
        settled: bool = True,
        freeze_ms: float | None = None,
        drain_s: float | None = None,
        drained_bytes: int | None = None,
        drain: DrainDetails | None = None,
        waited_s: float = 0.0,
        parked_s: float = 0.0,
    ) -> MigrationOutcome:
        """Enter a final phase and return the outcome, journalled; what no disk takes is unsettled, and returned."""
        with _as_far_as_the_disk_goes():
            self.enter(phase, str(error) if error else "")
        outcome = MigrationOutcome(
            migration=self._migration,
            container=self._container,
            source=source,
            target=target,
            method=method,
            phase=phase,
            freeze_ms=freeze_ms,
            drain_s=drain_s,
            drained_bytes=drained_bytes,
            drain=drain,
            waited_s=waited_s,
            parked_s=parked_s,
            phases=tuple(self._times),
            error_code=error.code if error else "",
            error=str(error) if error else "",
        )
        with _as_far_as_the_disk_goes():
            self._journal.finish(outcome, settled=settled)
        return outcome

    def _close_phase(self, moment: float) -> None:
        if self.phase is not None:
            took = PhaseTime(phase=self.phase, began_at=self._began_at, duration_s=moment - self._began_at)
            self._times.append(took)

    def _write(self, at: float, phase: Phase, message: str) -> None:
        event = MigrationEvent(
            migration=self._migration, container=self._container, at=at, phase=phase, message=message
        )
        self._journal.write(event)
        self._observe(event)
