"""What a source does after the commit: tell the target, follow the drain, release. It never gives anything back.

It ends only when the target needs nothing more. Where that is not to be had a human is called, and the waiting goes
on: a target that comes back hours later finds its source.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from migrator.container import quadlet, removal
from migrator.errors import ExecutionError, LifeboatError, PeerError
from migrator.model import ContainerFacts, Phase
from migrator.peers.client import PeerClient
from migrator.protocol.journal import Decision
from migrator.protocol.messages import InFlight, Opened, Report, Standing
from migrator.protocol.steps import SourceStep, source_step
from migrator.protocol.timeline import Timeline
from migrator.runtime import tombstone
from migrator.source.company import Company, remove_empty
from migrator.source.departure import Departure
from migrator.source.holding import Holding

CONTROL_WAIT_S = 10.0
POLL_S = 0.2
STUCK_S = 600.0  # files that a power cut would take have to be written to slow disks meanwhile

_log = logging.getLogger(__name__)


class Patience:
    """With a target that answers, but whose migration does not get on."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._seen: tuple[str, int | None] | None = None
        self._since = 0.0

    def over(self, report: Report) -> bool:
        """Say whether it has stood so for too long; of a tree that drains, only files may be missing for longer."""
        now, seen = time.monotonic(), (report.standing, report.drained_bytes)
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since > (self._limit_s if report.standing is Standing.RESTORED else STUCK_S)


class Handover:
    """The second half of one migration, at its source."""

    def __init__(
        self,
        shared: Departure,
        *,
        migration: str,
        container: ContainerFacts,
        target: PeerClient,
        holding: Holding,
        timeline: Timeline,
        company: Company,
        epoch: int,
    ) -> None:
        self._company = company
        self._epoch = epoch
        self._shared = shared
        self._id = migration
        self._container = container
        self._target = target
        self._holding = holding
        self._timeline = timeline
        self.opened_at: float | None = None
        self.report: Report | None = None
        self._refused = ""  # why the target did not take the commit

    def run(self) -> None:
        """Bring a migration to its end whose commit was told; raises `LifeboatError` when a human is needed."""
        self._timeline.enter(Phase.DRAIN)
        self.follow(lambda: True)

    def follow(self, going_on: Callable[[], bool]) -> None:
        """Follow the target's word until the container is released here, or `going_on` says no."""
        limit_s = self._shared.settings.reconnect_limit_s
        deadline = time.monotonic() + limit_s
        patience = Patience(limit_s)
        while going_on():
            report = self._ask()
            if report is not None:
                deadline = time.monotonic() + limit_s
            step = source_step(
                Decision.COMMIT, report.standing if report else None, patient=time.monotonic() < deadline
            )
            if step is SourceStep.RELEASE and self._company.may_release(self._id):
                self._release()
                return
            if step is SourceStep.RELEASE:
                self._company.check_trouble()
            if step is SourceStep.TELL:
                self.tell()
            if report is None:
                patience = Patience(limit_s)  # one that comes back has as long as before
            elif step in (SourceStep.TELL, SourceStep.WAIT) and patience.over(report):
                raise self._stuck(report)
            if step is SourceStep.CALL_A_HUMAN:
                raise self._human(report)
            self._holding.look_after()
            if report is not None and report.unwritten:
                raise self._unwritten(report)
            time.sleep(POLL_S)

    def try_to_learn_epoch(self) -> None:
        """Remember whose the container is now; a disk that does not take it now has to before the release."""
        try:
            self._learn_epoch()
        except LifeboatError as error:
            _log.error("the epoch of %s is in no journal yet: %s", self._container.name, error)

    def _learn_epoch(self) -> None:
        self._shared.journal.learn_epoch(self._container.id, self._epoch)

    def tell(self) -> None:
        """Tell the target that it may open its gate; one that does not take it is asked how it stands."""
        began_at = time.time()
        try:
            self._say_commit(self._holding.in_flight())
        except LifeboatError as error:
            if str(error) != self._refused:  # once, for it is asked often
                self._refused = str(error)
                self._timeline.tell(f"{self._target.name} does not take the commit: {error}")
            return
        if self.opened_at is None:
            self.opened_at = time.time()
            self._timeline.enter(Phase.COMMIT, at=began_at)
        late = self._holding.in_flight()  # came before the neighbours knew of the new place
        if late.packets:
            with suppress(LifeboatError):
                self._say_commit(late)

    def _say_commit(self, in_flight: InFlight) -> None:
        path = f"/v1/migrations/{self._id}/commit"
        self._target.call("POST", path, in_flight, Opened, timeout_s=CONTROL_WAIT_S)

    def _ask(self) -> Report | None:
        """Ask the target how it stands; None when it does not answer."""
        try:
            path = f"/v1/migrations/{self._id}"
            self.report = self._target.call("GET", path, None, Report, timeout_s=CONTROL_WAIT_S)
        except PeerError:
            return None
        if self.report.standing is Standing.DRAINING and self.report.drained_bytes:
            self._timeline.progress(self.report, self._container.memory_bytes)
        return self.report

    def _human(self, report: Report | None) -> ExecutionError:
        here = "stands frozen here" if self._holding.memory_is_here else "lost its memory here"
        recover = f"lifeboat recover {self._id}"
        if report is None:
            return ExecutionError(
                f"{self._target.name} is gone after the commit; {self._container.name} {here}, as it was then",
                code="target-lost",
                hint=f"when {self._target.name} is dead for sure: {recover} --resume-here --target-is-dead",
            )
        return ExecutionError(
            f"{self._container.name} is {report.standing} on {self._target.name}: {report.reason or 'no reason'}; "
            f"it {here}, as it was at the switchover",
            code="drain-lost" if report.standing is Standing.LOST else "target-lost",
            hint=f"to let it run here again: {recover} --resume-here",
        )

    def _stuck(self, report: Report) -> ExecutionError:
        why = f": {self._refused}" if report.standing is Standing.RESTORED and self._refused else ""
        return ExecutionError(
            f"{self._container.name} is {report.standing} on {self._target.name} and does not get on{why}",
            code="target-stuck",
            hint=f"look at the disks and the log of lifeboatd there; lifeboat recover {self._id} tells more",
        )

    def _unwritten(self, report: Report) -> ExecutionError:
        return ExecutionError(
            f"{self._container.name} runs on {self._target.name}, but {report.unwritten}; it is kept here as well",
            code="files-not-written",
            hint=f"when its files there are right all the same: lifeboat recover {self._id} --resume-here, there",
        )

    def _release(self) -> None:
        """Kill the frozen tree, remove the container, leave a tombstone."""
        self._timeline.enter(Phase.RELEASE)
        self._learn_epoch()  # it fails before anything is gone, and is tried again
        tombstone.leave(self._shared.state, self._container, self._target.name, self._id)
        self._holding.release()
        removal.remove(self._container.id, self._container.name)
        tombstone.lift(self._shared.state, self._container)
        if self._container.pod is not None:
            remove_empty(self._shared.state, self._container.pod, self._company)
        if self._container.quadlet is not None:
            quadlet.rest(self._container.quadlet)
        try:
            # A target that does not hear it asks by itself: migrator.recovery.incoming.
            path = f"/v1/migrations/{self._id}/complete"
            self._target.call("POST", path, None, Report, timeout_s=CONTROL_WAIT_S)
        except LifeboatError as error:
            self._timeline.tell(f"the target clears away later: {error}")
