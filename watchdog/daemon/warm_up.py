"""While this host is suspect, what would leave it is copied ahead to where it would go, and kept fresh.

When it fails, only the difference is left to copy. When it is well again, nothing of it stays at the targets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum

from migrator.choice.labels import wishes
from migrator.engine import Engine
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import ContainerFacts, EvacuationPlan, Method
from watchdog.state import HostState

ROUND_LIMIT_S = 3600.0  # what waits stays for so long besides two rounds, should nobody renew it

_log = logging.getLogger(__name__)


class Step(StrEnum):
    """What is to be done now."""

    NOTHING = "nothing"
    STAGE = "stage"  # begin a round
    STOP = "stop"  # end the round under way; what waits stays
    WITHDRAW = "withdraw"


def next_step(state: HostState, *, permitted: bool, running: bool, staged: bool, due: bool) -> Step:
    """Decide, for a host in `state`; it is not permitted while an admin or an evacuation has the host to itself."""
    if permitted and state in (HostState.SUSPECT, HostState.FAILING):
        return Step.STAGE if due and not running else Step.NOTHING
    if running:
        return Step.STOP
    return Step.WITHDRAW if staged and state is HostState.HEALTHY else Step.NOTHING


class WarmUp:
    """One round, or one withdrawal, at a time, in a thread."""

    def __init__(self, every_s: float, checkpoint_s: float = 0.0) -> None:
        """`every_s` is 0 for never, and so is `checkpoint_s`, the least age of a checkpoint that is renewed."""
        self._every_s = every_s
        self._checkpoint_s = checkpoint_s
        self._next_at = float("-inf")
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def running(self) -> bool:
        """Say whether something is being copied or withdrawn."""
        return self._thread is not None and self._thread.is_alive()

    def tick(
        self, engine: Engine, state: HostState, plan: Callable[[], EvacuationPlan], *, permitted: bool
    ) -> None:
        """Do what is to be done now, and do not wait for it; `plan` returns what would leave, and where to."""
        due = bool(self._every_s) and time.monotonic() >= self._next_at
        staged = bool(engine.staged)
        step = next_step(state, permitted=permitted, running=self.running, staged=staged, due=due)
        if step is Step.STAGE:
            self._next_at = time.monotonic() + self._every_s
            self._start(lambda: self._round(engine, plan))
        elif step is Step.WITHDRAW:
            self._next_at = float("-inf")
            self._start(lambda: withdraw(engine))
        elif step is Step.STOP:
            self._stopping.set()

    def _start(self, work: Callable[[], None]) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=work, name="warm-up", daemon=True)
        self._thread.start()

    def _round(self, engine: Engine, plan: Callable[[], EvacuationPlan]) -> None:
        """Stage everything that has a target, one after the other, in the order in which they would go."""
        try:
            containers = {item.name: item for item in engine.containers()}
            migrations = plan().migrations
        except (LifeboatError, OSError) as error:
            _log.warning("nothing is copied ahead: %s", error)
            return
        for identifier in set(engine.staged) - {item.id for item in containers.values()}:
            engine.withdraw(identifier)
        for planned in migrations:
            if planned.target is None or planned.container not in containers:
                continue
            try:
                seconds = ROUND_LIMIT_S + 2 * self._every_s
                engine.stage(containers[planned.container], planned.target, seconds, self._go_on)
                self._checkpoint(engine, containers[planned.container], planned.target)
            except (LifeboatError, OSError) as error:
                if self._stopping.is_set():
                    return
                _log.warning("%s is not copied ahead to %s: %s", planned.container, planned.target, error)

    def _checkpoint(self, engine: Engine, container: ContainerFacts, target: str) -> None:
        if not self._checkpoint_s or engine.checkpoint_age_s(container.id) < self._checkpoint_s:
            return
        if container.pod is not None:
            return  # there is none of a pod
        if Method.FULL in container.unsupported or wishes(container.labels).method is Method.COLD:
            return
        outcome = engine.checkpoint(container, target, self._stopping)
        if outcome.error:
            _log.warning("no checkpoint of %s waits at %s: %s", container.name, target, outcome.error)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise ExecutionError("it is not to be copied ahead any more", code="stopped")


def withdraw(engine: Engine) -> None:
    """Let everything go that waits at targets."""
    for identifier in tuple(engine.staged):
        engine.withdraw(identifier)
