"""Empty this host: plan, move several containers at once, tell what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from migrator.engine import Engine
from migrator.errors import CallAHumanError, CommandError, ExecutionError, failure
from migrator.model import ContainerFacts, EvacuationPlan, MigrationOutcome, Phase
from watchdog.alerts.model import Event, Kind, Severity
from watchdog.daemon.jobs import Job
from watchdog.daemon.losses import Concerned, Losses
from watchdog.daemon.order import Cause, Order
from watchdog.daemon.queue import MoveQueue, Moves

PLAN_ATTEMPTS = 20
PLAN_PAUSE_S = 3.0
"""Podman waits for whoever else works on a container; a host that is to be emptied is not given up for that."""


class Evacuation:
    """One evacuation of one host."""

    def __init__(
        self,
        host: str,
        engine: Engine,
        alert: Callable[[Event], None],
        order: Order,
        losses: Losses,
        *,
        at_once: int,
        retry_s: float,
    ) -> None:
        self._host = host
        self._engine = engine
        self._alert = alert
        self._order = order
        self._losses = losses
        self._at_once = at_once
        self._retry_s = retry_s

    def run(self, job: Job) -> dict[str, Any]:
        """Move everything that can be moved; one container's failure never stops the rest.

        What ends all of it is raised, and told before: a failing host that is not emptied must not be silent.
        """
        try:
            return self._run(job)
        except Exception as raised:  # noqa: BLE001  whatever it is, somebody has to hear of it
            error = failure(raised)
            if not self._order.again:
                text = f"{self._host} could not be emptied: {error}"
                severity = Severity.INFO if self._order.cause is Cause.DRILL else Severity.CRITICAL
                self._alert(Event(host=self._host, severity=severity, kind=Kind.EVACUATION_ENDED, text=text))
            raise error from None

    def _run(self, job: Job) -> dict[str, Any]:
        began_at = time.monotonic()
        concerned = self._losses.concerned(self._order.devices, self._containers(job))
        containers = concerned.going
        if concerned.devices and not containers:
            return self._tell_nothing(concerned)
        plan = self._planned(concerned)
        if self._order.again and not any(item.target for item in plan.migrations):
            status = exit_status(left=True, lost=any(item.lost for item in plan.migrations))
            return {"message": "still nobody can take what is here", "moved": [], "left": {}, "status": status}
        self._tell_plan(plan, job, concerned.lost)
        queue = MoveQueue(
            self._engine,
            self._order.method,
            containers,
            self._tell_move,
            at_once=self._at_once,
            retry_s=self._retry_s,
            drill=self._order.cause is Cause.DRILL,
        )
        moves = queue.run(plan, job)
        return self._tell_end(plan, moves, time.monotonic() - began_at)

    def _containers(self, job: Job) -> tuple[ContainerFacts, ...]:
        """Return what is to leave, also what a migration before this evacuation still moves."""
        for attempt in range(PLAN_ATTEMPTS):
            try:
                found = self._engine.containers()
                break
            except CommandError as error:
                if attempt == PLAN_ATTEMPTS - 1 or job.cancelled.wait(PLAN_PAUSE_S):
                    raise
                job.say({"message": f"podman does not answer yet: {error.message}"})
        only = self._order.only
        return found if only is None else tuple(item for item in found if item.name in only)

    def _planned(self, concerned: Concerned) -> EvacuationPlan:
        """Plan, and let the targets hold the memory; when one refuses, somebody else was quicker: plan again."""
        plan = planned(self._engine, self._order, concerned)
        if self._engine.hold(held_memory(plan)):
            plan = planned(self._engine, self._order, concerned)
            self._engine.hold(held_memory(plan))
        return plan

    def _tell_nothing(self, concerned: Concerned) -> dict[str, Any]:
        text = f"no container of {self._host} lies on {concerned.lost}: all stay"
        if not self._order.again:
            severity = Severity.WARNING
            self._alert(Event(host=self._host, severity=severity, kind=Kind.EVACUATION_ENDED, text=text))
        return {"message": text, "moved": [], "left": {}, "status": 0}

    def _tell_plan(self, plan: EvacuationPlan, job: Job, lost: str) -> None:
        told = plan.model_dump(mode="json")
        job.say({"plan": told})
        leaving = [item for item in plan.migrations if not item.kept]
        going = [item for item in leaving if item.target]
        late = ", ".join(item.container for item in plan.late)
        mark = "this is a drill: " if self._order.cause is Cause.DRILL else ""
        what = f"what lies on {lost} leaves {self._host}" if lost else f"{self._host} is being emptied"
        text = f"{mark}{what}: {len(going)} of {len(leaving)} containers have a target"
        text += f", about {plan.ends_s:.0f} s" if going else ""
        text += f"; {len(plan.migrations) - len(leaving)} stay" if len(leaving) < len(plan.migrations) else ""
        text += f"; not in time: {late}" if late else ""
        severity = Severity.INFO if self._order.cause is Cause.DRILL else Severity.CRITICAL
        self._alert(Event(host=self._host, severity=severity, kind=Kind.EVACUATION_STARTED, text=text, plan=told))

    def _tell_move(self, outcome: MigrationOutcome) -> None:
        self._alert(migration_event(self._host, outcome))

    def _tell_end(self, plan: EvacuationPlan, moves: Moves, took_s: float) -> dict[str, Any]:
        left = "; ".join(f"{name}: {reason}" for name, reason in moves.left.items())
        mark = "this was a drill: " if self._order.cause is Cause.DRILL else ""
        text = f"{mark}{len(moves.done)} containers left {self._host} in {took_s:.0f} s"
        text += f"; still here: {left}" if left else ""
        outcome = {"moved": [item.model_dump(mode="json") for item in moves.done], "left": dict(moves.left)}
        severity = Severity.CRITICAL if left and self._order.cause is not Cause.DRILL else Severity.INFO
        event = Event(host=self._host, severity=severity, kind=Kind.EVACUATION_ENDED, text=text, outcome=outcome)
        self._alert(event)
        times = {"planned_s": plan.ends_s, "took_s": round(took_s, 1)}
        return {"message": text, **outcome, **times, "status": exit_status(left=bool(left), lost=bool(moves.lost))}


def planned(engine: Engine, order: Order, concerned: Concerned) -> EvacuationPlan:
    """Return the plan for what an order is about; what stays has a line and a reason too."""
    plan = engine.plan(concerned.going, order.method, time_left_s=order.time_left_s)
    return plan.model_copy(update={"migrations": (*plan.migrations, *concerned.lines())})


def held_memory(plan: EvacuationPlan) -> dict[str, int]:
    """Return how much memory a plan needs at each target."""
    held: dict[str, int] = {}
    for item in plan.migrations:
        if item.target:
            held[item.target] = held.get(item.target, 0) + item.memory_bytes
    return held


def exit_status(*, left: bool, lost: bool) -> int:
    """Return the exit status of moves by whether some did not leave, and whether some of these do not run here."""
    if lost:
        return CallAHumanError.exit_status
    return ExecutionError.exit_status if left else 0


def migration_end(outcome: MigrationOutcome, fellows: Sequence[MigrationOutcome]) -> dict[str, Any]:
    """Return the last line of a migration by hand, of a container or of a pod; its error is the gravest one."""
    unwell = [item for item in (outcome, *fellows) if item.phase is not Phase.DONE]
    lost = [item for item in unwell if item.phase is Phase.LOST]
    gravest = next(iter((*lost, *unwell)), outcome)
    whose = "" if gravest is outcome else f"{gravest.container} of its pod: "
    return {
        "outcome": outcome.model_dump(mode="json"),
        "status": exit_status(left=bool(unwell), lost=bool(lost)),
        "error": f"{whose}{gravest.error}",
        "code": gravest.error_code,
        "hint": _where_to_look(gravest) if lost else "",
    }


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
    look = _where_to_look(outcome)
    text = f"{outcome.container} needs a human: {outcome.error}" + (f"; {look}" if look else "")
    return Event(host=host, severity=Severity.CRITICAL, kind=Kind.CALL_A_HUMAN, text=text, outcome=told)


def _where_to_look(outcome: MigrationOutcome) -> str:
    """Return the command that tells more of what was lost; empty when its error names one."""
    return "" if "lifeboat " in outcome.error else f"see: lifeboat recover {outcome.migration}"
