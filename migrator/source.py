"""The source's side of one migration, step by step: prepare, freeze, restore, commit, drain, release.

Undo steps are pushed as the work goes and dropped at `POINT_OF_NO_RETURN`, the journalled commit. Before
it every failure gives the container back; after it nothing ever does.
"""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from migrator import evidence
from migrator.control import ControlClient, Message
from migrator.departure import Departure, Place
from migrator.errors import ExecutionError, LifeboatError, PeerError
from migrator.journal import Decision, Side
from migrator.model import ContainerFacts, Method, MigrationOutcome, Phase, Value
from migrator.peers.client import PeerClient
from migrator.protocol import Accepted, Opened, ParkRequest, Proposal, Report, Standing
from migrator.runtime import podman, tombstone
from migrator.runtime.scope import Scope
from migrator.shim import order as shim_order
from migrator.storage import image
from migrator.storage.sync import (
    LAYER,
    SHARED_MEMORY,
    VOLUME,
    Destination,
    Tree,
    copy_ahead,
    copy_difference,
)
from migrator.storage.tree import Snapshot
from migrator.timeline import Observer, Timeline

CONTROL_WAIT_S = 10.0
REQUEST_WAIT_S = 60.0
POLL_S = 0.2
PODMAN_END_WAIT_S = 60.0
STALE_S = 5.0  # files copied longer ago than this are compared once more before the freeze has to


class Journey(Value):
    """What the journal keeps of a migration away from this host."""

    container: ContainerFacts
    target: str
    method: Method


class SourceMigration:
    """One container on its way out."""

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
    ) -> None:
        self._shared = shared
        self._place = place or Place()
        self._turn = ExitStack()  # places in line, given back when the migration ends, however it does
        self._freeze_turn = ExitStack()
        self._waited_s = 0.0
        self._id = migration
        self._container = container
        self._target = target
        self._method = method
        self._timeline = Timeline(shared.journal, migration, container.name, observe)
        self._undo = ExitStack()
        self._directory = shared.runtime / "migrations" / migration
        self._copied: dict[str, Snapshot] = {}
        self._trees: list[Tree] = []
        self._shim: ControlClient | None = None
        self._podman: Scope | None = None
        self._frozen_at = 0.0
        self._opened_at: float | None = None
        self._report: Report | None = None

    def run(self) -> MigrationOutcome:
        """Move the container; the outcome tells how it ended, an exception never does."""
        journey = Journey(container=self._container, target=self._target.name, method=self._method)
        name = self._container.name
        self._shared.journal.begin(self._id, Side.SOURCE, name, journey.model_dump_json())
        with self._turn:
            try:
                with self._undo:
                    self._prepare()
                    self._wait_for_freeze()
                    self._freeze_and_restore()
                    self._commit()
            except LifeboatError as error:
                self._shared.journal.decide(self._id, Decision.ABORT)  # a target that asks must hear it
                return self._ended(Phase.ABORTED, error)
            return self._after_commit()

    def resume(self, shim: ControlClient | None) -> MigrationOutcome:
        """Go on after a restart of the daemon; the journal says that it is committed."""
        self._shim = shim
        return self._after_commit()

    def revert(self, shim: ControlClient | None, error: LifeboatError) -> MigrationOutcome:
        """After a restart of the daemon: give the container back; the journal says that it is ours."""
        self._shim = shim
        self._unpark()
        self._withdraw()
        return self._ended(Phase.ABORTED, error)

    def _after_commit(self) -> MigrationOutcome:
        try:
            self._hand_over()
            self._freeze_turn.close()
            self._drain()
            self._release()
        except LifeboatError as error:
            return self._ended(Phase.LOST, error)
        return self._ended(Phase.DONE, None)

    def _prepare(self) -> None:
        """Everything that can be done, or found impossible, while the container runs undisturbed."""
        self._timeline.enter(Phase.PREPARE, f"{self._container.name} -> {self._target.name} ({self._method})")
        proposal = Proposal(
            migration=self._id,
            source=self._shared.host,
            container=self._container,
            method=self._method,
            copy_image=self._shared.settings.copy_images,
            pager=self._shared.settings.pager,
            drill=self._place.drill,
        )
        self._undo.callback(self._withdraw)
        accepted = self._target.call("POST", "/v1/migrations", proposal, Accepted, timeout_s=REQUEST_WAIT_S)
        if accepted.needs_image:
            with self._shared.turns.image(self._target.name, self._container.image_id) as sent:
                if not sent:
                    self._send_image()
        self._copy_ahead()
        self._wait_for_place()
        self._park(accepted)

    def _send_image(self) -> None:
        self._go_on()
        self._timeline.tell(f"copying the image {self._container.image}")
        image.send_image(self._container.image_id, self._destination, self._shared.settings.copy_limit_s)

    def _go_on(self) -> None:
        """Raise when somebody stopped this migration; not asked after the commit."""
        if self._place.stopped.is_set():
            raise ExecutionError("it was stopped before its commit", code="stopped")

    def _wait_for_place(self) -> None:
        """Wait until few enough are away; what is copied by then is made fresh again."""
        line = self._shared.turns.away(self._target.name, self._place.order, self._go_on)
        waited_s = self._turn.enter_context(line)
        self._waited_s += waited_s
        if waited_s > STALE_S:
            self._copy_ahead()

    def _wait_for_freeze(self) -> None:
        self._turn.push(self._freeze_turn)
        line = self._shared.turns.freeze(self._target.name, self._place.order, self._go_on)
        self._waited_s += self._freeze_turn.enter_context(line)
        self._go_on()

    def _copy_ahead(self) -> None:
        self._trees = [
            Tree(VOLUME + mount.name, Path(mount.source))
            for mount in self._container.volumes
            if mount.kind == "volume"
        ]
        self._trees.append(Tree(LAYER, podman.upper_directory(self._container.id)))
        for tree in self._trees:
            self._timeline.tell(f"copying {tree.name} ahead")
            limit_s = self._shared.settings.copy_limit_s
            self._copied[tree.name] = copy_ahead(tree, self._destination, limit_s)
        self._trees.append(Tree(SHARED_MEMORY, podman.shared_memory_directory(self._container.id)))

    @property
    def _destination(self) -> Destination:
        return Destination(self._shared.directory, self._target.name, self._id, self._go_on)

    def _park(self, accepted: Accepted) -> None:
        """Stop podman on both sides one step before the deed; the source first, for it has the facts."""
        settings = self._shared.settings
        pager = None
        if self._method is Method.LAZY:
            pager = shim_order.PagerAddress(
                host=self._target.name, address=self._target.address, port=accepted.pager_port
            )
        order = shim_order.Order(
            migration=self._id,
            side=Side.SOURCE,
            method=self._method,
            container=self._container.id,
            journal=str(self._shared.state / "journal.db"),
            runc=shim_order.real_runc(),
            pki=str(self._shared.directory / "pki"),
            settings=self._shared.settings,
            pager=pager,
        )
        configuration = shim_order.write_order(self._directory, order)
        status = podman.network_status(self._container)
        self._podman = Scope.start(
            f"lifeboat-source-{self._id}",
            podman.checkpoint_argv(self._container.id, self._directory / "export.tar"),
            log=self._directory / "podman.log",
            env={"CONTAINERS_CONF_OVERRIDE": str(configuration)},
        )
        self._undo.callback(self._unpark)
        self._shim = self._podman.control(self._directory / shim_order.CONTROL, "the parked checkpoint")
        self._ask({"do": "call"})
        bundle = Path(self._ask({"do": "state"})["bundle"])
        request = ParkRequest(
            configuration=(bundle / "config.dump").read_text(),
            specification=(bundle / "spec.dump").read_text(),
            network_status=json.dumps(status),
        )
        path = f"/v1/migrations/{self._id}/park"
        self._target.call("POST", path, request, Report, timeout_s=settings.park_limit_s)
        self._timeline.tell("parked on both sides")

    def _freeze_and_restore(self) -> None:
        """From the last instruction on the source to a silent tree on the target.

        Nothing waits here that need not: files, images and the journal go side by side.
        """
        self._timeline.enter(Phase.FREEZE)
        with ThreadPoolExecutor(max_workers=4) as workers:
            self._frozen_at = float(self._ask({"do": "freeze"})["at"])
            self._timeline.began(self._frozen_at)
            copies = [workers.submit(self._copy_last, tree) for tree in self._trees]
            images = Path(self._listen()["images"])
            journalled = workers.submit(self._timeline.enter, Phase.RESTORE)
            if self._method is Method.LAZY:
                body = image.pack(images)
            else:
                body = b""
                image.send_process_images(images, self._destination, self._shared.settings.copy_limit_s)
            _finish(copies)
            path = f"/v1/migrations/{self._id}/restore"
            self._target.call("POST", path, body, Report, timeout_s=REQUEST_WAIT_S)
            journalled.result()
        if self._listen()["event"] != "silent":
            raise ExecutionError("the source is not silent", code="not-silent")

    def _copy_last(self, tree: Tree) -> bool:
        limit_s = self._shared.settings.freeze_limit_s
        return copy_difference(tree, self._destination, self._copied.get(tree.name), limit_s)

    def _commit(self) -> None:
        """POINT_OF_NO_RETURN: once the word is on disk, the container is the target's."""
        if self._shared.journal.decide(self._id, Decision.COMMIT) is Decision.ABORT:
            raise ExecutionError(
                "the container was given back before the commit", code="given-back", temporary=True
            )
        self._undo.pop_all()

    def _hand_over(self) -> None:
        """Tell the target that it may open its gate, until it says that it has."""
        began_at = time.time()
        path = f"/v1/migrations/{self._id}/commit"
        deadline = time.monotonic() + self._shared.settings.reconnect_limit_s
        while self._opened_at is None:
            try:
                self._target.call("POST", path, None, Opened, timeout_s=CONTROL_WAIT_S)
                self._opened_at = time.time()
                self._timeline.enter(Phase.COMMIT, at=began_at)
            except PeerError as error:
                if time.monotonic() > deadline or not error.temporary:
                    raise ExecutionError(
                        f"{self._target.name} does not take the commit: {error.message}",
                        code="commit-not-taken",
                        hint="the container stands frozen here; see lifeboat show " + self._id,
                    ) from error
                time.sleep(POLL_S)

    def _drain(self) -> None:
        """Wait until the target has all memory; nothing here can hurry it."""
        self._timeline.enter(Phase.DRAIN)
        deadline = time.monotonic() + self._shared.settings.reconnect_limit_s
        while True:
            try:
                self._report = self._target.call(
                    "GET", f"/v1/migrations/{self._id}", None, Report, timeout_s=CONTROL_WAIT_S
                )
                deadline = time.monotonic() + self._shared.settings.reconnect_limit_s
            except PeerError as error:
                if time.monotonic() > deadline:
                    raise ExecutionError(
                        f"{self._target.name} is gone during the drain; {self._container.name} stands frozen "
                        f"here with the memory of the switchover",
                        code="target-lost",
                        hint="make sure that the target is dead before anything else",
                    ) from error
            else:
                if self._report.standing is Standing.DRAINED:
                    return
                if self._report.standing is not Standing.DRAINING:
                    raise ExecutionError(
                        f"the drain failed on {self._target.name}: {self._report.reason}", code="drain-lost"
                    )
                self._timeline.progress(self._report.drained_bytes, self._container.memory_bytes)
            time.sleep(POLL_S)

    def _release(self) -> None:
        """Kill the frozen tree, remove the container, leave a tombstone."""
        self._timeline.enter(Phase.RELEASE)
        tombstone.leave(self._shared.state, self._container, self._target.name, self._id)
        self._ask({"do": "release"}, timeout_s=PODMAN_END_WAIT_S)
        if self._podman is not None:
            self._podman.wait(PODMAN_END_WAIT_S)
        path = f"/v1/migrations/{self._id}/complete"
        for what, step in (
            ("the container's remains stay", lambda: podman.remove_container(self._container.id)),
            # A target that does not hear it asks by itself: migrator.caretaker.
            ("the target clears away later", lambda: self._target.call("POST", path, None, Report, timeout_s=10)),
        ):
            try:
                step()
            except LifeboatError as error:
                self._timeline.tell(f"{what}: {error}")

    def _withdraw(self) -> None:
        """Undo: the target forgets this migration."""
        with suppress(LifeboatError):
            self._target.call("DELETE", f"/v1/migrations/{self._id}", None, Report, timeout_s=CONTROL_WAIT_S)

    def _unpark(self) -> None:
        """Undo: the shim gives the container back; pushed last, so it is done first."""
        if self._shim is not None:
            with suppress(LifeboatError):
                self._shim.ask({"do": "abort"}, timeout_s=CONTROL_WAIT_S)
        self._shared.journal.decide(self._id, Decision.ABORT)
        if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
            self._podman.kill()
        self._shim = None

    def _clear(self) -> None:
        if self._shim is not None:
            self._shim.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _ask(self, message: Message, timeout_s: float = CONTROL_WAIT_S) -> Message:
        if self._shim is None:
            raise ExecutionError("nothing is parked", code="not-parked")
        return self._shim.ask(message, timeout_s=timeout_s)

    def _listen(self) -> Message:
        if self._shim is None:
            raise ExecutionError("nothing is parked", code="not-parked")
        return self._shim.listen(timeout_s=self._shared.settings.freeze_limit_s)

    def _ended(self, phase: Phase, error: LifeboatError | None) -> MigrationOutcome:
        evidence.keep(self._directory, self._shared.state, self._id)
        if phase is not Phase.LOST:
            self._clear()
        freeze_ms = (self._opened_at - self._frozen_at) * 1000 if self._opened_at else None
        return self._timeline.end(
            phase,
            source=self._shared.host,
            target=self._target.name,
            method=self._method,
            error=error,
            freeze_ms=freeze_ms,
            drain_s=self._report.drain_s if self._report else None,
            drained_bytes=self._report.drained_bytes if self._report else None,
            waited_s=self._waited_s,
        )


def _finish(copies: list[Future[bool]]) -> None:
    """Wait for the last copies; raise what the first failed one raised."""
    for copy in copies:
        copy.result()
