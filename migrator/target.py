"""The target's side of a migration: reserves, receives, parks, restores, opens the gate, drains.

A `Reception` is one incoming migration. Everything that outlives the daemon (the parked podman, the page
sink) is a program of its own with a control socket in the migration's directory, so a restarted daemon
builds its receptions anew from the journal and these sockets.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from migrator import evidence
from migrator.command import run
from migrator.control import ControlClient, Message
from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.hall import Hall
from migrator.journal import Decision, Side
from migrator.model import Method, MigrationEvent, MigrationOutcome, Phase
from migrator.pager import sink
from migrator.protocol import Accepted, Opened, ParkRequest, Proposal, Report, Standing
from migrator.runtime import podman, tombstone
from migrator.runtime.scope import Scope, end_scope
from migrator.shim import order as shim_order
from migrator.storage import image, overlay
from migrator.storage.sync import LAYER, SHARED_MEMORY, VOLUME
from migrator.storage.volumes import Volumes

CONTROL_WAIT_S = 10.0
RESTORE_WAIT_S = 45.0
PODMAN_END_WAIT_S = 20.0


class Reception:
    """One incoming migration."""

    def __init__(self, hall: Hall, proposal: Proposal) -> None:
        self._hall = hall
        self.proposal = proposal
        self._id = proposal.migration
        self.directory = hall.runtime / "migrations" / self._id
        self._staging = hall.state / "staging" / self._id
        self._lock = threading.RLock()
        self._sink: ControlClient | None = None
        self._shim: ControlClient | None = None
        self._podman: Scope | None = None
        self._root: Path | None = None
        self._bundle: Path | None = None
        self._images: Path | None = None
        self._pid = 0
        self._restored_in_ms = 0.0
        self._volumes = Volumes(hall.host, proposal.container)
        self._layer_changed = False
        self._opened_at: float | None = None
        self._standing = Standing.RESERVED
        self._reason = ""
        self._heard_at = time.monotonic()
        self.ended = False

    def touch(self) -> None:
        """The source was heard."""
        self._heard_at = time.monotonic()

    @property
    def quiet_s(self) -> float:
        """Return for how long the source was not heard."""
        return time.monotonic() - self._heard_at

    @property
    def reserved_bytes(self) -> int:
        """Return the memory this migration will still take from this host."""
        waiting = (Standing.RESERVED, Standing.PARKED, Standing.RESTORED, Standing.DRAINING)
        return self.proposal.container.memory_bytes if self._standing in waiting and not self.ended else 0

    def reserve(self) -> Accepted:
        """Take the reservation; start the page sink, so that the source can call it at once."""
        with self._lock:
            container = self.proposal.container
            if podman.has_container(container.name) or podman.has_container(container.id):
                raise PrerequisiteError(
                    f"{self._hall.host} already has a container named {container.name}",
                    code="target-name-taken",
                    hint=f"remove it there: podman rm {container.name}",
                )
            needs_image = not podman.has_image(container.image_id)
            if needs_image and not self.proposal.copy_image:
                raise PrerequisiteError(
                    f"{self._hall.host} lacks the image {container.image}",
                    code="target-lacks-image",
                    hint="load it there, or set migrator.copy_images = true",
                )
            self._hall.journal.begin(self._id, Side.TARGET, container.name, self.proposal.model_dump_json())
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(Phase.PREPARE, f"reserved for {container.name} from {self.proposal.source}")
            port = self._start_sink() if self.proposal.method is Method.LAZY else 0
            self._volumes.prepare()
            return Accepted(migration=self._id, needs_image=needs_image, pager_port=port)

    def _start_sink(self) -> int:
        criu = shutil.which("criu")
        if criu is None:
            raise PrerequisiteError(f"{self._hall.host} lacks CRIU", code="target-lacks-criu")
        order = sink.SinkOrder(
            migration=self._id,
            source=self.proposal.source,
            pki=str(self._hall.pki),
            ports=self._hall.settings.pager_ports,
            criu=criu,
            pager=self.proposal.pager,
            reconnect_limit_s=self._hall.settings.reconnect_limit_s,
        )
        (self.directory / sink.ORDER).write_text(order.model_dump_json())
        Scope.start_module(f"lifeboat-sink-{self._id}", "migrator.pager", self.directory)
        return int(self._ask_sink({"do": "progress"})["port"])

    def tree_path(self, tree: str) -> Path:
        """Return where a tree of this migration lies here; raises `PrerequisiteError` for any other name."""
        if tree == LAYER:
            if self._root is not None:
                self._layer_changed = True
                return overlay.find(self._root).upper
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self._staging
        if tree == SHARED_MEMORY and self._bundle is not None:
            return self._bundle / "shm"
        if tree.startswith(VOLUME) and (path := self._volumes.path(tree.removeprefix(VOLUME))):
            return path
        raise PrerequisiteError(f"this migration has no tree {tree!r} here", code="no-such-tree")

    def park(self, request: ParkRequest) -> None:
        """Let podman create everything and stop one step before the restore; the request was looked through."""
        with self._lock:
            if self._shim is not None:
                return
            podman.ensure_name(self.proposal.container.image_id, self.proposal.container.image)
            archive = self.directory / "import.tar"
            members = {
                "config.dump": request.configuration,
                "spec.dump": request.specification,
                "network.status": request.network_status,
            }
            podman.write_checkpoint_archive(archive, members)
            order = shim_order.Order(
                migration=self._id,
                side=Side.TARGET,
                method=self.proposal.method,
                container=self.proposal.container.id,
                journal=str(self._hall.state / "journal.db"),
                runc=shim_order.real_runc(),
                pki=str(self._hall.pki),
                settings=self._hall.settings,
            )
            configuration = shim_order.write_order(self.directory, order)
            self._podman = Scope.start(
                f"lifeboat-target-{self._id}",
                podman.restore_argv(archive),
                log=self.directory / "podman.log",
                env={"CONTAINERS_CONF_OVERRIDE": str(configuration)},
            )
            self._shim = self._podman.control(self.directory / shim_order.CONTROL, "the parked restore")
            state = self._shim.ask({"do": "state"}, timeout_s=CONTROL_WAIT_S)
            self._root, self._bundle = Path(state["root"]), Path(state["bundle"])
            self._images = Path(state["images"])
            self._move_staged_layer()
            self._shim.ask({"do": "begin"}, timeout_s=CONTROL_WAIT_S)
            self._standing = Standing.PARKED
            self._write(Phase.PREPARE, "restore parked")

    def _move_staged_layer(self) -> None:
        """Put the layer that was copied ahead into the new container's own."""
        if self._staging.exists():
            upper = self.tree_path(LAYER)
            copy = ["rsync", "-aHAXS", "--numeric-ids", "--delete", f"{self._staging}/", f"{upper}/"]
            run(copy, timeout_s=self._hall.settings.park_limit_s)
            shutil.rmtree(self._staging)
            if self._shim is not None:
                self._shim.ask({"do": "refresh"}, timeout_s=CONTROL_WAIT_S)
        self._layer_changed = False

    def restore(self, images: bytes | None) -> int:
        """Bring the tree up behind the gate; it stands still. Return its first pid on this host.

        `images` is None when they came as a stream.
        """
        with self._lock:
            if self._standing is Standing.RESTORED:
                return self._pid
            if self._shim is None or self._images is None:
                raise ExecutionError("nothing is parked for this migration", code="not-parked")
            began_at = time.time()
            descriptors = image.unpack(images, self._images) if images is not None else ""
            if self.proposal.method is Method.LAZY:
                self._ask_sink({"do": "images", "images": str(self._images)})
            networks = [network.model_dump(mode="json") for network in self.proposal.container.networks]
            order: Message = {"do": "restore", "networks": networks, "layer_changed": self._layer_changed}
            order["descriptors"] = descriptors
            answer = self._shim.ask(order, timeout_s=RESTORE_WAIT_S)
            self._pid = int(answer["pid"])
            if self._sink is not None and (progress := self._ask_sink({"do": "progress"}))["reason"]:
                raise ExecutionError(str(progress["reason"]), code="sink-failed")
            self._standing = Standing.RESTORED
            self._restored_in_ms = (time.time() - began_at) * 1000
            return self._pid

    @property
    def images_directory(self) -> Path:
        """Return where the images of a full migration are to be unpacked."""
        if self._images is None:
            raise ExecutionError("nothing is parked for this migration", code="not-parked")
        return self._images

    def commit(self) -> Opened:
        """The source has committed: the container is ours from here on, whatever happens.

        Every step may be repeated, for a daemon may die, or an answer be lost, after any of them.
        """
        with self._lock:
            if self._standing not in (Standing.RESTORED, Standing.DRAINING, Standing.DRAINED):
                raise ExecutionError("nothing is restored for this migration", code="not-restored")
            if self._hall.journal.decide(self._id, Decision.COMMIT) is Decision.ABORT:
                raise ExecutionError("this migration was aborted here", code="aborted")
            opened_before = self._opened_at is not None
            if self._opened_at is None:
                self._opened_at = self._open()
            if self._standing is Standing.RESTORED:
                self._let_memory_flow()  # the container waits for it; the lines in the journal can wait
            if not opened_before:
                self._write(Phase.RESTORE, f"restored in {self._restored_in_ms:.0f} ms, silent")
                self._write(Phase.COMMIT, "the gate is open, the address announced")
            return Opened(migration=self._id, at=self._opened_at)

    def _open(self) -> float:
        """Open the gate and let podman have the container; return when (Unix seconds)."""
        if self._shim is None:
            raise ExecutionError("nothing is restored for this migration", code="not-restored")
        try:
            return float(self._shim.ask({"do": "open"}, timeout_s=CONTROL_WAIT_S)["at"])
        except LifeboatError:
            # The shim ends well only after it opened the gate: then only its answer was lost.
            if self._podman is None or self._podman.wait(CONTROL_WAIT_S) != 0:
                raise
            return time.time()

    def _let_memory_flow(self) -> None:
        if self.proposal.method is Method.LAZY and (self.directory / sink.CONTROL).exists():
            self._pid = self._pid or podman.first_pid(self.proposal.container.id)  # what is frozen on a loss
            self._ask_sink({"do": "go", "pid": self._pid})
            self._standing = Standing.DRAINING
        else:
            self._standing = Standing.DRAINED

    def adopt(self, shim: ControlClient | None) -> None:
        """Take up what an earlier daemon began: the parked or restored podman, and the page sink."""
        with self._lock:
            self._heard_at = float("-inf")  # look at it soon
            self._shim = shim
            if shim is not None:
                state = shim.ask({"do": "state"}, timeout_s=CONTROL_WAIT_S)
                self._root, self._bundle = Path(state["root"]), Path(state["bundle"])
                self._images, self._pid = Path(state["images"]), int(state["pid"])
                self._standing = Standing.RESTORED if state["restored"] else Standing.PARKED
            elif self._hall.journal.decision(self._id) is Decision.COMMIT:
                self._standing = Standing.RESTORED
                self._opened_at = time.time()  # the shim ends only after it opened the gate
                self._let_memory_flow()

    def report(self) -> Report:
        """Tell how the migration stands, and notice here that its drain has ended."""
        with self._lock:
            drained_bytes, drain_s = 0, 0.0
            if self._standing in (Standing.DRAINING, Standing.LOST):
                progress = self._ask_sink({"do": "progress"})
                drained_bytes, drain_s = int(progress["drained_bytes"]), float(progress["drain_s"])
                if progress["event"] == sink.SinkState.LOST:
                    self._reason, self._standing = str(progress["reason"]), Standing.LOST
                elif progress["event"] == sink.SinkState.DRAINED:
                    self._standing = Standing.DRAINED
            return Report(
                migration=self._id,
                standing=self._standing,
                drained_bytes=drained_bytes,
                drain_s=drain_s,
                reason=self._reason,
            )

    def abandon(self, reason: str) -> None:
        """Abort on behalf of a source that is quiet, unless something was restored meanwhile without a word."""
        with self._lock:
            undecided = self._hall.journal.decision(self._id) is None
            if not undecided or self._standing is not Standing.RESTORED:
                self.abort(reason)

    def abort(self, reason: str) -> None:
        """Undo everything here; refused after the commit."""
        with self._lock:
            if self._standing is Standing.ABORTED:
                return
            if self._hall.journal.decide(self._id, Decision.ABORT) is Decision.COMMIT:
                raise ExecutionError("this migration is committed", code="committed")
            self._standing, self._reason = Standing.ABORTED, reason
            if self._shim is not None:
                _quietly(lambda: self._shim and self._shim.ask({"do": "abort"}, timeout_s=CONTROL_WAIT_S))
            if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
                self._podman.kill()
            end_scope(f"lifeboat-target-{self._id}")
            if self._shim is not None:
                podman.remove_container(self.proposal.container.id)
            self._volumes.remove()
            evidence.keep(self.directory, self._hall.state, self._id)
            self._clear()
            self._write(Phase.ABORTED, reason)
            self._finish(Phase.ABORTED, error=reason)

    def complete(self) -> None:
        """The memory is here and the source is released: take the scaffolding down."""
        with self._lock:
            if self.ended:
                return
            if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
                raise ExecutionError("podman does not finish the restore", code="podman-stuck")
            report = self.report()
            tombstone.remove(self._hall.state, self.proposal.container)
            evidence.keep(self.directory, self._hall.state, self._id)
            self._clear()
            self._write(Phase.DONE, "complete")
            self._finish(Phase.DONE, drained_bytes=report.drained_bytes, drain_s=report.drain_s)

    @property
    def given_up(self) -> bool:
        """Say whether somebody removed the container of a lost drain."""
        return not podman.has_container(self.proposal.container.id)

    def lose(self) -> None:
        """The memory did not come, and the frozen tree was killed: only now may its userfaultfds close."""
        with self._lock:
            reason = self.report().reason
            evidence.keep(self.directory, self._hall.state, self._id)
            self._clear()
            self._write(Phase.LOST, reason)
            self._finish(Phase.LOST, error=reason)

    def _clear(self) -> None:
        if (self.directory / sink.CONTROL).exists():
            _quietly(lambda: self._ask_sink({"do": "end"}))
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        if self._shim is not None:
            self._shim.close()
            self._shim = None
        shutil.rmtree(self._staging, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ask_sink(self, message: Message) -> Message:
        if self._sink is None:
            self._sink = ControlClient(
                self.directory / sink.CONTROL, timeout_s=CONTROL_WAIT_S, what="the page sink"
            )
        return self._sink.ask(message, timeout_s=CONTROL_WAIT_S)

    def _write(self, phase: Phase, message: str) -> None:
        self._hall.journal.write(
            MigrationEvent(
                migration=self._id,
                container=self.proposal.container.name,
                at=time.time(),
                phase=phase,
                message=message,
            )
        )

    def _finish(
        self, phase: Phase, *, error: str = "", drained_bytes: int | None = None, drain_s: float | None = None
    ) -> None:
        self.ended = True
        outcome = self.outcome(phase, error)
        self._hall.journal.finish(outcome.model_copy(update={"drained_bytes": drained_bytes, "drain_s": drain_s}))

    def outcome(self, phase: Phase, error: str) -> MigrationOutcome:
        """Return how this migration ended, or would end now."""
        return MigrationOutcome(
            migration=self._id,
            container=self.proposal.container.name,
            source=self.proposal.source,
            target=self._hall.host,
            method=self.proposal.method,
            phase=phase,
            error=error,
        )


def _quietly(step: Callable[[], object]) -> None:
    with suppress(LifeboatError):
        step()
