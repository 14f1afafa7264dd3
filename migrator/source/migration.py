"""The source's side of one migration up to the commit: prepare, freeze, restore, commit.

Undo steps are pushed as the work goes and dropped at `POINT_OF_NO_RETURN`, the journalled commit. Before
it every failure gives the container back; after it nothing ever does, and migrator.source.handover goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from typing import TypeVar

from migrator.container.ipc import check_shared_objects
from migrator.errors import ExecutionError, LifeboatError, failure
from migrator.model import ContainerFacts, Method, MigrationOutcome, Phase, Treatment, Value
from migrator.peers.client import PeerClient
from migrator.protocol import evidence
from migrator.protocol.journal import Decision, Side
from migrator.protocol.messages import Accepted, Proposal, Report
from migrator.protocol.timeline import Observer, Timeline
from migrator.registry.records import Commit
from migrator.runtime import podman, tombstone
from migrator.runtime.runc import first_pid
from migrator.shim.order import real_runc
from migrator.source.company import Stage
from migrator.source.departure import Departure, Place
from migrator.source.handover import Handover
from migrator.source.holding import holding
from migrator.source.taking_back import TakingBack
from migrator.source.trees import memory_trees
from migrator.storage import image
from migrator.storage.sync import (
    LAYER,
    Destination,
    Tree,
    copy_ahead,
    copy_difference,
)
from migrator.storage.tree import Snapshot
from migrator.storage.volumes import trees

CONTROL_WAIT_S = 10.0
REQUEST_WAIT_S = 60.0
LOOK_S = 0.1  # how soon it is noticed that what holds a frozen container has died
ROW_WAIT_S = 2.0  # after the restore; a disk that takes longer would hold up the commit, which nobody can take back
STALE_S = 5.0  # files copied longer ago than this are compared once more before the freeze has to

Result = TypeVar("Result")


class Journey(Value):
    """What the journal keeps of a migration away from this host."""

    container: ContainerFacts
    target: str
    method: Method
    epoch: int
    leaves: bool = True  # False for a checkpoint
    company: tuple[str, ...] = ()  # the migrations of all members of its pod, this one among them; none when alone


class SourceMigration:
    """One container on its way out."""

    leaves = True

    def __init__(
        self,
        shared: Departure,
        *,
        migration: str,
        container: ContainerFacts,
        target: PeerClient,
        method: Method,
        observe: Observer,
        place: Place | None = None,
        asked_at: float | None = None,
        company: Sequence[str] = (),
        epoch: int | None = None,
    ) -> None:
        """`asked_at` (Unix seconds) is when somebody asked for it: to look at the container is preparation, too.

        `company` are the migrations of all members of its pod; `epoch` is that of one that was begun before.
        """
        self._shared = shared
        self._asked_at = asked_at
        self._place = place or Place()
        self._turn = ExitStack()  # places in line, given back when the migration ends, however it does
        self._freeze_turn = ExitStack()
        self._reach = target.reach()
        self._waited_s = 0.0
        self._parked_s = 0.0
        self.id = migration
        self.company = shared.companies.of(shared.journal, company or (migration,))
        self._container = container
        self._target = target
        self._method = method
        self._epoch = epoch if epoch is not None else shared.journal.epoch(container.id) + 1
        self._timeline = Timeline(shared.journal, migration, container.name, observe)
        self._undo = ExitStack()
        self._copied: dict[str, Snapshot] = {}
        self._trees: list[Tree] = []
        self.holding = holding(shared, migration, container, method, captain=self.company.leads(migration))
        self.handover = Handover(
            shared,
            migration=migration,
            container=container,
            target=target,
            holding=self.holding,
            timeline=self._timeline,
            company=self.company,
            epoch=self._epoch,
        )
        self._frozen_at = 0.0
        self._taking_back = TakingBack(shared, migration, container, self.company, self.holding)
        self._runs_again_at: float | None = None  # here, after a checkpoint

    def run(self) -> MigrationOutcome:
        """Move the container; the outcome tells how it ended, an exception never does."""
        with self._turn:
            try:
                with self._undo, self.company.marching(self._container.name):
                    self._begin()
                    self._prepare()
                    self._wait_for_freeze()
                    self._freeze_and_restore()
                    self._commit()
            except Exception as raised:  # noqa: BLE001  it must end in the journal whatever it was
                error = failure(raised)
                try:
                    if self.company.give_up() is Decision.ABORT:
                        return self._end_early(error)
                except LifeboatError as unknown:  # it stands still until the journal can be read
                    return self.end(Phase.LOST, unknown, settled=False)
                with suppress(LifeboatError):
                    self._timeline.tell(f"the commit came first: {error}")
            return self._after_commit()

    def _end_early(self, error: LifeboatError) -> MigrationOutcome:
        """It was not committed: it runs here, or has still to be taken back."""
        if self._taking_back.runs:
            settled = self._taking_back.complete and not self.company.unwritten  # its target may ask for the row
            return self.end(Phase.ABORTED, error, settled=settled)
        why = f"{error}; it does not run here yet: {self._taking_back.held_by}"
        return self.end(Phase.LOST, ExecutionError(why, code="not-taken-back"), settled=False)

    def _begin(self) -> None:
        """Journal it, so that whatever dies the container is given back."""
        journey = Journey(
            container=self._container,
            target=self._target.name,
            method=self._method,
            epoch=self._epoch,
            leaves=self.leaves,
            company=self._together,
        )
        name = self._container.name
        self._shared.journal.begin(self.id, Side.SOURCE, name, journey.model_dump_json())

    @property
    def _together(self) -> tuple[str, ...]:
        return self.company.migrations if self._container.pod is not None else ()

    def _after_commit(self) -> MigrationOutcome:
        try:
            self.handover.tell()  # before all else: it runs nowhere until then
            self.handover.try_to_learn_epoch()
            self._freeze_turn.close()
            self.handover.run()
        except Exception as error:  # noqa: BLE001  it goes on when it is looked after further
            self.company.trouble(failed := failure(error))
            return self.end(Phase.LOST, failed, settled=False)
        return self.end(Phase.DONE, None)

    def revert(self, error: LifeboatError) -> MigrationOutcome:
        """After a restart of the daemon: give the container back; the journal says that it is ours."""
        self.take_back()
        self._withdraw()
        return self.end(Phase.ABORTED, error)

    def conclude(self, error: LifeboatError) -> MigrationOutcome:
        """It runs here, and by now the journal says so: let the target forget it."""
        self._withdraw()
        return self.end(Phase.ABORTED, error)

    def take_back(self) -> None:
        """After its end: do what was not done of giving the container back; raises what keeps it here."""
        self.holding.adopt()
        self._taking_back.owe()
        self._taking_back.do()

    def _prepare(self) -> None:
        """Everything that can be done, or found impossible, while the container runs undisturbed."""
        self._timeline.enter(Phase.PREPARE, f"{self._container.name} -> {self._target.name} ({self._method})")
        if self._asked_at is not None:
            self._timeline.began(self._asked_at)
        tombstone.check_hook()
        proposal = Proposal(
            migration=self.id,
            source=self._shared.host,
            container=self._container,
            method=self._method,
            copy_image=self._shared.settings.copy_images,
            epoch=self._epoch,
            pager=self._shared.settings.pager,
            transport=self._shared.settings.pager_transport,
            drill=self._place.drill,
            company=self._together,
        )
        self._undo.callback(self._withdraw)
        accepted = self._target.call("POST", "/v1/migrations", proposal, Accepted, timeout_s=REQUEST_WAIT_S)
        if accepted.needs_image:
            with self._shared.turns.image(self._target.name, self._container.image_id) as sent:
                if not sent:
                    self._send_image()
        self._copy_ahead()
        self._wait_for_place()
        began_at = time.monotonic()
        self._park(accepted)
        self._parked_s = time.monotonic() - began_at

    def _send_image(self) -> None:
        self._go_on()
        self._timeline.tell(f"copying the image {self._container.image}")
        image.send_image(self._container.image_id, self._destination, self._shared.settings.copy_limit_s)

    def _go_on(self) -> None:
        """Raise when somebody stopped this migration or removed its target; not asked after the commit."""
        self._target.check_listed()
        self.company.check()
        if self._place.stopped.is_set():
            raise ExecutionError("it was stopped before its commit", code="stopped")

    def _wait_for_place(self) -> None:
        """Wait until few enough are away; what is copied by then is made fresh again. A pod is as one."""
        waited_s = 0.0
        if self.company.leads(self.id):
            line = self._shared.turns.away(self._target.name, self._place.order, self._go_on)
            waited_s = self._turn.enter_context(line)
        waited_s += self.company.meet(Stage.PLACED, self.id, self._go_on)
        self._waited_s += waited_s
        if waited_s > STALE_S:
            self._copy_ahead()

    def _wait_for_freeze(self) -> None:
        self._turn.push(self._freeze_turn)
        if self.company.leads(self.id):
            line = self._shared.turns.freeze(self._target.name, self._place.order, self._go_on)
            self._waited_s += self._freeze_turn.enter_context(line)
        self.company.meet(Stage.TURN, self.id, self._go_on)
        self._go_on()

    def _copy_ahead(self) -> None:
        self._trees = trees(self._container, Treatment.COPY)
        places = podman.directories(self._container.id)
        self._trees.append(Tree(LAYER, places.upper))
        for tree in self._trees:
            self._timeline.tell(f"copying {tree.name} ahead")
            limit_s = self._shared.settings.copy_limit_s
            known = self._copied.get(tree.name)
            since_ns = self._place.waiting_since_ns(tree.name) if known is None else known.at_ns
            self._copied[tree.name] = copy_ahead(tree, self._destination, limit_s, since_ns)
        if self._method is not Method.COLD:
            self._trees += memory_trees(self._container, captain=self.company.leads(self.id))
            self._trees += trees(self._container, Treatment.COPY_LATE)

    @property
    def _destination(self) -> Destination:
        return Destination(self._shared.directory, self._target.name, self.id, self._go_on)

    def _park(self, accepted: Accepted) -> None:
        """Stop on both sides one step before the deed."""
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        request = self.holding.park(self._target, accepted)
        path = f"/v1/migrations/{self.id}/park"
        self._target.call("POST", path, request, Report, timeout_s=self._shared.settings.park_limit_s)
        tombstone.ban(self._shared.state, self._container)
        if self._container.pod is not None:
            tombstone.ban_infra(self._shared.state, self._container.pod.infra)
        self._timeline.tell("parked on both sides")
        self.company.meet(Stage.PARKED, self.id, self._go_on)

    def _freeze_and_restore(self) -> None:
        """From the last instruction on the source to a silent tree on the target.

        Nothing waits here that need not: files, images and the journal go side by side.
        """
        with self._reach:
            workers, copies = self._freeze()
            body = self._wait_for(workers.submit(self.holding.images(self._destination)))
            journalled = workers.submit(self._timeline.enter, Phase.RESTORE)
            self._finish(copies)
            self.company.meet(Stage.COPIED, self.id, self._look)  # what is shared must be there before any runs
            path = f"/v1/migrations/{self.id}/restore"
            self._wait_for(workers.submit(self._target.call, "POST", path, body, Report, timeout_s=REQUEST_WAIT_S))
            self._wait_for(journalled, ROW_WAIT_S)
            self.holding.check_silent()
            self.company.meet(Stage.RESTORED, self.id, self._look)
        workers.shutdown()

    def _freeze(self) -> tuple[ThreadPoolExecutor, list[Future[bool]]]:
        """Freeze it, and begin the last copies of its files: `_finish` waits for them."""
        self._timeline.enter(Phase.FREEZE)
        workers = ThreadPoolExecutor(max_workers=len(self._trees) + 2)  # what else goes is not to wait for a copy
        # What fails must not wait for a copy.
        self._undo.callback(workers.shutdown, wait=False, cancel_futures=True)
        self._frozen_at = self._stop()
        self._timeline.began(self._frozen_at)
        last = [workers.submit(self._copy_last, tree) for tree in self._trees]
        if self.company.leads(self.id) and self._container.pod is not None:
            last.append(workers.submit(self._check_shared_objects, self._container.pod.name))
        return workers, last

    def _stop(self) -> float:
        """Let it stand still, and its pod with it before anything of that is dumped; return since when."""
        if self._container.pod is None:
            return self.holding.freeze()
        since = self.holding.stand_still()
        self.company.meet(Stage.STILL, self.id, self._look)
        self.holding.freeze()
        return since

    def _check_shared_objects(self, pod: str) -> bool:
        """What appeared since the last look would be lost; nothing can any more."""
        check_shared_objects(first_pid(real_runc(), self._container.id), pod)
        return True

    def _look(self) -> None:
        """Raise while it stands still, for a peer out of reach, or when what holds it here has died."""
        if self.holding.gone:
            raise ExecutionError("what holds the container here has died", code="shim-gone")
        self._reach.check()
        self.company.check()

    def _wait_for(self, work: Future[Result], limit_s: float = float("inf")) -> Result:
        """Wait while it stands still, but not for a peer out of reach, nor when what holds it here has died.

        Then it has to be given back at once; what still works for it ends by itself. `limit_s` is for a row.
        """
        deadline = time.monotonic() + limit_s
        while wait([work], timeout=LOOK_S).not_done:
            self._look()
            if time.monotonic() > deadline:
                raise ExecutionError(f"the disk took no row for {limit_s:g} s", code="journal", temporary=True)
        return work.result()

    def _finish(self, copies: list[Future[bool]]) -> None:
        for copy in copies:
            self._wait_for(copy)

    def _copy_last(self, tree: Tree) -> bool:
        limit_s = self._shared.settings.freeze_limit_s
        return copy_difference(tree, self._destination, self._copied.get(tree.name), limit_s)

    def _commit(self) -> None:
        """POINT_OF_NO_RETURN: once the word is on disk, the container is the target's."""
        if self.company.decide(Decision.COMMIT) is Decision.ABORT:
            raise ExecutionError(
                "the container was given back before the commit", code="given-back", temporary=True
            )
        self._undo.pop_all()
        commit = Commit(migration=self.id, source=self._shared.host, target=self._target.name, at=time.time())
        self._shared.registry.record(commit)

    def _withdraw(self) -> None:
        """Undo: the target forgets this migration, which another member of its pod may have committed."""
        with suppress(LifeboatError):
            if self.company.give_up() is Decision.COMMIT:
                return
            self._target.call("DELETE", f"/v1/migrations/{self.id}", None, Report, timeout_s=CONTROL_WAIT_S)

    def end(self, phase: Phase, error: LifeboatError | None, *, settled: bool = True) -> MigrationOutcome:
        """Journal how it ended; what is not settled is looked after further (migrator.recovery.outgoing)."""
        if phase is not Phase.KEPT:  # there are many, and they would push out what somebody may look for
            evidence.keep(self.holding.directory, self._shared.state, self.id)
        if settled:
            self.holding.close()
            shutil.rmtree(self.holding.directory, ignore_errors=True)
        opened_at, report = self.handover.opened_at or self._runs_again_at, self.handover.report
        return self._timeline.end(
            phase,
            source=self._shared.host,
            target=self._target.name,
            method=self._method,
            error=error,
            settled=settled,
            freeze_ms=(opened_at - self._frozen_at) * 1000 if opened_at and self._frozen_at else None,
            waited_s=self._waited_s,
            parked_s=self._parked_s,
            drain_s=report.drain_s if report else None,
            drained_bytes=report.drained_bytes if report else None,
            drain=report.drain if report else None,
        )
