"""Empty this host: plan, move one container after the other, tell what became of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migrator.engine import Engine
from migrator.errors import LifeboatError
from migrator.model import EvacuationPlan, Method, MigrationOutcome, Phase, PlannedMigration
from watchdog.alerts.model import Event, Kind, Severity
from watchdog.daemon.jobs import Job

ROUNDS = 3  # a container that failed is planned again, perhaps for another target


class Evacuation:
    """One evacuation of one host."""

    def __init__(
        self,
        host: str,
        engine: Engine,
        alert: Callable[[Event], None],
        method: Method | None,
        *,
        again: bool = False,
    ) -> None:
        """`again`: an earlier one left something; say nothing when that is still so."""
        self._again = again
        self._host = host
        self._engine = engine
        self._alert = alert
        self._method = method
        self._done: list[MigrationOutcome] = []
        self._failed: dict[str, str] = {}

    def run(self, job: Job) -> dict[str, Any]:
        """Move everything that can be moved; one container's failure never stops the rest."""
        plan = self._engine.plan(method=self._method)
        if self._again and not any(item.target for item in plan.migrations):
            return {"message": "still nobody can take what is here", "moved": [], "left": {}, "status": 4}
        self._tell_plan(plan, job)
        for number in range(ROUNDS):
            if number:
                again = tuple(item for item in self._engine.containers() if item.name in self._failed)
                plan = self._engine.plan(again, self._method)
            self._move_all(plan, job)
            if not self._failed or job.stopping:
                break
        return self._tell_end()

    def _move_all(self, plan: EvacuationPlan, job: Job) -> None:
        for planned in plan.migrations:
            if job.stopping:
                self._failed.setdefault(planned.container, "the evacuation was stopped")
            elif planned.kept:
                job.say({"container": planned.container, "message": planned.reason})
            elif planned.target is None:
                self._failed[planned.container] = planned.reason
            else:
                self._move(planned, planned.target, job)

    def _move(self, planned: PlannedMigration, target: str, job: Job) -> None:
        try:
            outcome = self._engine.migrate(
                planned.container,
                target,
                planned.method,
                lambda event: job.say(event.model_dump(mode="json", exclude_none=True)),
            )
        except LifeboatError as error:
            self._failed[planned.container] = str(error)
            job.say({"container": planned.container, "message": str(error)})
            return
        self._alert(migration_event(self._host, outcome))
        if outcome.phase is Phase.DONE:
            self._done.append(outcome)
            self._failed.pop(planned.container, None)
        else:
            self._failed[planned.container] = outcome.error

    def _tell_plan(self, plan: EvacuationPlan, job: Job) -> None:
        told = plan.model_dump(mode="json")
        job.say({"plan": told})
        going = [item for item in plan.migrations if item.target]
        text = f"{self._host} is being emptied: {len(going)} of {len(plan.migrations)} containers have a target"
        self._alert(
            Event(
                host=self._host,
                severity=Severity.CRITICAL,
                kind=Kind.EVACUATION_STARTED,
                text=text,
                plan=told,
            )
        )

    def _tell_end(self) -> dict[str, Any]:
        left = "; ".join(f"{name}: {reason}" for name, reason in self._failed.items())
        text = f"{len(self._done)} containers left {self._host}" + (f"; still here: {left}" if left else "")
        outcome = {"moved": [item.model_dump(mode="json") for item in self._done], "left": dict(self._failed)}
        severity = Severity.CRITICAL if self._failed else Severity.INFO
        event = Event(host=self._host, severity=severity, kind=Kind.EVACUATION_ENDED, text=text, outcome=outcome)
        self._alert(event)
        return {"message": text, **outcome, "status": 4 if self._failed else 0}


def migration_event(host: str, outcome: MigrationOutcome) -> Event:
    """Return the alert about how a migration ended."""
    told = outcome.model_dump(mode="json")
    if outcome.phase is Phase.DONE:
        freeze = f", frozen for {outcome.freeze_ms:.0f} ms" if outcome.freeze_ms else ""
        text = f"{outcome.container} moved to {outcome.target}{freeze}"
        return Event(host=host, severity=Severity.INFO, kind=Kind.MIGRATION_ENDED, text=text, outcome=told)
    if outcome.phase is Phase.ABORTED:
        text = f"{outcome.container} stays on {outcome.source}: {outcome.error}"
        return Event(host=host, severity=Severity.WARNING, kind=Kind.MIGRATION_ENDED, text=text, outcome=told)
    text = f"{outcome.container} needs a human: {outcome.error}"
    return Event(host=host, severity=Severity.CRITICAL, kind=Kind.CALL_A_HUMAN, text=text, outcome=told)
