"""The moves of one evacuation: several at once, in the order of the plan, each failure by itself.

A container that one target would not or could not take goes to the next best. What waits for another one
(`lifeboat.after`) is begun when that has ended, however it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from migrator.engine import Engine
from migrator.errors import LifeboatError, failure
from migrator.model import ContainerFacts, EvacuationPlan, Method, MigrationOutcome, Phase, PlannedMigration
from migrator.planning.progress import remaining_s
from migrator.source.departure import Place
from watchdog.daemon.jobs import Job

ATTEMPTS = 3  # for one container, each at another host while there is one
BUSY_ATTEMPTS = 60  # a target, or the recovery of an earlier migration, that is only busy is waited for
LOOK_S = 1.0
RENEW_S = 30.0  # promises last for HOLD_S of migrator.engine
BUSY = ("target-busy", "already-moving")
GONE = ("no-such-container", "not-running")  # somebody ended it meanwhile, or an earlier migration took it away


@dataclass
class Moves:
    """What became of the containers: those that left, and why others are still here."""

    done: list[MigrationOutcome] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # of those still here: they do not run as before, a human must look


@dataclass
class _Container:
    """One container on its way through attempts."""

    planned: PlannedMigration
    order: int
    fellows: list[str] = field(default_factory=list)  # the others of its pod, which go with it
    attempts: int = 0
    busy: int = 0
    avoided: set[str] = field(default_factory=set)
    not_before: float = 0.0
    beside: list[MigrationOutcome] = field(default_factory=list)  # how its fellows ended


@dataclass(frozen=True)
class _Refused:
    reason: str
    code: str


class MoveQueue:
    """Runs a plan."""

    def __init__(
        self,
        engine: Engine,
        method: Method | None,
        containers: Sequence[ContainerFacts],
        tell: Callable[[MigrationOutcome], None],
        *,
        at_once: int,
        retry_s: float,
        drill: bool = False,
    ) -> None:
        self._engine = engine
        self._method = method
        self._facts = {item.name: item for item in containers}
        self._tell = tell
        self._at_once = at_once
        self._retry_s = retry_s
        self._drill = drill
        self._waiting: list[_Container] = []
        self._running: dict[Future[MigrationOutcome | _Refused], _Container] = {}
        self._moves = Moves()
        self._renewed_at = time.monotonic()

    def run(self, plan: EvacuationPlan, job: Job) -> Moves:
        """Move what has a target; returns when nothing is under way any more."""
        began_at = time.monotonic()
        for number, item in enumerate(plan.migrations):
            if item.kept:
                job.say({"container": item.container, "message": item.reason})
            elif item.target is None:
                self._moves.left[item.container] = item.reason
                self._moves.lost |= {item.container} if item.lost else set()
            else:
                self._line_up(item, number)
        with ThreadPoolExecutor(self._at_once, "move") as workers:
            while self._waiting or self._running:
                self._stop_if_told(job)
                self._begin(workers, job)
                if self._settle(job):
                    self._tell_progress(plan, job, time.monotonic() - began_at)
                self._renew()
        self._engine.hold(dict.fromkeys({item.target for item in plan.migrations if item.target}, 0))
        return self._moves

    def _line_up(self, item: PlannedMigration, number: int) -> None:
        """Put a container in line; what is of one pod has one place, the first one's."""
        pod = self._facts[item.container].pod if item.container in self._facts else None
        for known in self._waiting if pod is not None else ():
            if self._facts[known.planned.container].pod == pod:
                known.fellows.append(item.container)
                return
        self._waiting.append(_Container(item, number))

    def _stop_if_told(self, job: Job) -> None:
        if job.stopping:
            for container in self._waiting:
                self._leave(container, "the evacuation was stopped")
            self._waiting.clear()

    def _leave(self, container: _Container, reason: str) -> None:
        for name in (container.planned.container, *container.fellows):
            self._moves.left[name] = reason

    def _begin(self, workers: ThreadPoolExecutor, job: Job) -> None:
        """Begin what may run: the first in the plan whose predecessors have ended."""
        unfinished = [*self._waiting, *self._running.values()]
        under_way = {name for item in unfinished for name in (item.planned.container, *item.fellows)}
        now = time.monotonic()
        for container in list(self._waiting):
            if len(self._running) >= self._at_once:
                return
            own = {container.planned.container, *container.fellows}
            if container.not_before <= now and not (under_way - own) & set(container.planned.after):
                self._waiting.remove(container)
                self._running[workers.submit(self._move, container, job)] = container

    def _move(self, container: _Container, job: Job) -> MigrationOutcome | _Refused:
        planned = container.planned
        try:
            return self._engine.migrate(
                planned.container,
                planned.target or "",
                planned.method,
                lambda event: job.say(event.model_dump(mode="json", exclude_none=True)),
                place=Place(container.order, self._drill, job.cancelled),
                planned=True,
                beside=container.beside.append,
            )
        except Exception as raised:  # noqa: BLE001  whatever it is, the other containers shall leave
            error = failure(raised)
            return _Refused(str(error), error.code)

    def _settle(self, job: Job) -> bool:
        """Wait for an end; return whether a container came to its last one."""
        if not self._running:
            time.sleep(min(self._retry_s, LOOK_S))  # all that wait are to be tried again a little later
            return False
        ended, _ = wait(self._running, timeout=LOOK_S, return_when=FIRST_COMPLETED)
        ends = [self._end(self._running.pop(move), move.result(), job) for move in ended]
        return any(ends)

    def _end(self, container: _Container, result: MigrationOutcome | _Refused, job: Job) -> bool:
        name = container.planned.container
        for fellow in container.beside:
            self._tell(fellow)
        fellows, container.beside = container.beside, []
        outcomes = [*fellows, *([result] if isinstance(result, MigrationOutcome) else [])]
        self._moves.lost |= {item.container for item in outcomes if item.phase is Phase.LOST}
        if isinstance(result, _Refused):
            reason, code = result.reason, result.code
            job.say({"container": name, "message": reason})
        else:
            self._tell(result)
            reason, code = result.error, result.error_code
            if result.phase is Phase.DONE:
                self._moves.done += [result, *(fellow for fellow in fellows if fellow.phase is Phase.DONE)]
                self._moves.left |= {item.container: item.error for item in fellows if item.phase is not Phase.DONE}
                return True
        if code in GONE:
            return True
        if name not in self._moves.lost and not job.stopping and self._try_again(container, code):
            return False
        self._leave(container, reason)
        return True

    def _try_again(self, container: _Container, code: str) -> bool:
        """Put a container back in line, for another target if there is one; False when it has had its chances."""
        container.not_before = time.monotonic() + self._retry_s
        if code in BUSY:
            container.busy += 1
            again = container.busy < BUSY_ATTEMPTS
        else:
            container.attempts += 1
            again = container.attempts < ATTEMPTS and self._choose_anew(container)
        if again:
            self._waiting.append(container)
            self._waiting.sort(key=lambda item: item.order)
        return again

    def _choose_anew(self, container: _Container) -> bool:
        """Choose the next best target, or the same one again when there is no other."""
        container.avoided.add(container.planned.target or "")
        together = tuple(self._facts[name] for name in (container.planned.container, *container.fellows))
        for avoided in (frozenset(container.avoided), frozenset[str]()):
            try:
                plan = self._engine.plan(together, self._method, avoid=avoided)
            except LifeboatError:
                continue
            found = next(item for item in plan.migrations if item.container == container.planned.container)
            if found.target is not None:
                container.planned = found.model_copy(update={"after": container.planned.after})
                return True
        return False

    def _renew(self) -> None:
        """Let the targets hold what is still to come; what is under way has reservations of its own."""
        if time.monotonic() - self._renewed_at < RENEW_S:
            return
        self._renewed_at = time.monotonic()
        held: dict[str, int] = {}
        for container in self._waiting:
            target = container.planned.target or ""
            fellows = sum(self._facts[name].memory_bytes for name in container.fellows)
            held[target] = held.get(target, 0) + container.planned.memory_bytes + fellows
        self._engine.hold(held)

    def _tell_progress(self, plan: EvacuationPlan, job: Job, elapsed_s: float) -> None:
        ended = {item.container for item in self._moves.done} | set(self._moves.left)
        going = sum(item.target is not None for item in plan.migrations)
        told = {
            "moved": len(self._moves.done),
            "of": going,
            "failed": len(ended) - len(self._moves.done),
            "elapsed_s": round(elapsed_s, 1),
            "eta_s": round(remaining_s(plan, ended, elapsed_s), 1),
        }
        job.say({"progress": told})
