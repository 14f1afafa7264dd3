"""The evacuations of this host: begun by a verdict, an admin or a drill, cancelled, taken up after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from migrator.engine import Engine
from migrator.errors import PrerequisiteError
from migrator.model import EvacuationPlan
from migrator.settings import MigratorSettings
from watchdog.alerts.model import Event
from watchdog.daemon.evacuation import Evacuation, planned
from watchdog.daemon.jobs import Job, Jobs
from watchdog.daemon.losses import Losses
from watchdog.daemon.order import Cause, Order, OrderFile
from watchdog.settings import EvacuationSettings
from watchdog.signals.model import Device


class Evacuations:
    """At most one evacuation at a time."""

    def __init__(
        self,
        jobs: Jobs,
        settings: EvacuationSettings,
        migrator: MigratorSettings,
        state: Path,
        alert: Callable[[Event], None],
        *,
        losses: Losses,
    ) -> None:
        self._jobs = jobs
        self._settings = settings
        self._migrator = migrator
        self.order_file = OrderFile(state / "evacuation.json")
        self._alert = alert
        self._losses = losses
        self._job: Job | None = None
        self._order: Order | None = None
        self._again_at = 0.0
        self._lock = threading.Lock()

    @property
    def running(self) -> bool:
        """Say whether an evacuation is under way."""
        return self._job is not None and not self._job.ended

    @property
    def by_signals(self) -> bool:
        """Say whether the evacuation under way rests on signals alone."""
        return self.running and self._order is not None and self._order.cause is not Cause.ADMIN

    def covers(self, devices: tuple[Device, ...]) -> bool:
        """Say whether the latest evacuation was for all that is lost with these devices; none means the host."""
        return self._order is None or self._order.covers(devices)

    def plan(self, engine: Engine, order: Order) -> EvacuationPlan:
        """Return what an evacuation would do now."""
        return planned(engine, order, self._losses.concerned(order.devices, engine.containers()))

    def begin(self, host: str, engine: Engine, order: Order) -> Job:
        """Begin to empty this host, or return the evacuation under way."""
        with self._lock:
            if self._job is not None and not self._job.ended:
                return self._job
            work = Evacuation(
                host,
                engine,
                self._alert,
                order,
                self._losses,
                at_once=self._migrator.at_once,
                retry_s=self._settings.retry_s,
            )
            self.order_file.write(order)
            self._order = order
            self._job = self._jobs.start("evacuation", lambda job: self._run(work, job))
            self._again_at = time.monotonic() + self._settings.again_s
            return self._job

    def _run(self, work: Evacuation, job: Job) -> dict[str, object]:
        try:
            return work.run(job)
        finally:
            self.order_file.clear()

    def take_up(self, host: str, engine: Engine) -> None:
        """After a restart: go on with what an admin ordered; what a verdict caused, the verdict causes again."""
        order = self.order_file.read()
        if order is None:
            return
        if order.cause is Cause.ADMIN:
            self.begin(host, engine, order)
        else:
            self.order_file.clear()

    def stop(self) -> None:
        """Begin no further migration; those under way go on."""
        if self._job is not None:
            self._job.stopping = True

    def cancel(self) -> Job:
        """As `stop`, and what is not committed goes back; raises `PrerequisiteError` when there is none."""
        job = self._job
        if job is None or job.ended:
            raise PrerequisiteError("no evacuation is under way", code="no-evacuation", hint="lifeboat status")
        job.stopping = True
        job.cancelled.set()
        return job

    def due_again(self) -> bool:
        """Say whether it is time to look whether somebody can take the rest by now."""
        return time.monotonic() > self._again_at
