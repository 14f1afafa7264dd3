"""How a container comes into being at a target: parked with podman one step before its restore, or created.

An `Arrival` is one container on its way in. It is prepared while the container still runs at its source, made
ready behind the shut gate, and opened on the commit; until then it may be thrown away at any moment.
"""

from __future__ import annotations

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from migrator.container.settle import start_anew
from migrator.control import ControlClient, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.later import Later
from migrator.model import Method
from migrator.network.sever import all_addresses, moved_along
from migrator.protocol.journal import Side
from migrator.protocol.messages import ParkRequest, Proposal
from migrator.runtime import podman
from migrator.runtime.cgroup import Cgroup
from migrator.runtime.pods import mount_source
from migrator.runtime.scope import Scope, end_scope
from migrator.shim import order as shim_order
from migrator.storage import image, local, overlay
from migrator.storage.disks import write_out
from migrator.target.adoption import Adoption
from migrator.target.drain import Drain
from migrator.target.hall import Hall
from migrator.target.pods import IncomingPod

in_flight = Later("migrator.network.in_flight")

CONTROL_WAIT_S = 10.0
RESTORE_WAIT_S = 45.0
PODMAN_END_WAIT_S = 20.0
SHIM_AGAIN_S = 5.0  # Python starts in less than one


class Arrival(ABC):
    """One container on its way in."""

    def __init__(self, hall: Hall, proposal: Proposal, directory: Path, staging: Path) -> None:
        """`staging` is where the writable layer waits until there is a container for it."""
        self._hall = hall
        self._proposal = proposal
        self._directory = directory
        self._staging = staging
        self.pid = 0
        self.layer_changed = False

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Say whether it was made ready, so that the commit may open it."""

    @property
    @abstractmethod
    def lives(self) -> bool:
        """Say whether what was prepared is still there."""

    @property
    @abstractmethod
    def images(self) -> Path:
        """Return where the images of a full migration are to be unpacked."""

    @abstractmethod
    def park(self, request: ParkRequest) -> None:
        """Prepare it; idempotent."""

    @abstractmethod
    def layer(self) -> Path:
        """Return where its writable layer goes now."""

    @abstractmethod
    def shared_memory(self) -> Path | None:
        """Return where its /dev/shm goes, None when it has none yet."""

    @abstractmethod
    def make_ready(self, images: bytes | None) -> None:
        """Bring it up behind the gate, standing still."""

    @abstractmethod
    def open(self) -> float:
        """Let it speak and run; return when (Unix seconds)."""

    @property
    def known_as(self) -> str:
        """Return the id that podman knows it by here, empty when there is none. Its name may be another's."""
        return self._proposal.container.id

    @property
    def remains(self) -> bool:
        """Say whether it runs here; raises `LifeboatError` when podman cannot tell."""
        known = self.known_as
        return bool(known) and podman.is_running(known)

    def rises(self) -> bool:
        """Say whether what was committed here runs, perhaps after this host was down."""
        return self.remains

    @abstractmethod
    def surrender(self) -> None:
        """Let podman have it, silent and frozen, so that podman can start it anew."""

    @abstractmethod
    def abort(self) -> None:
        """Throw away what is here; quiet when there is nothing."""

    @abstractmethod
    def close(self) -> None:
        """Wait for the end of what was started, and hang up."""

    def hear(self, packets: Sequence[bytes]) -> None:
        """Let it have what was under way to it when it was opened; what it does not get is sent again."""
        if packets and self.pid:
            addresses = moved_along(self._proposal.container.networks)
            with suppress(OSError):
                in_flight.replay(Path(f"/proc/{self.pid}/ns/net"), addresses, packets)

    def settle(self) -> None:  # noqa: B027  most need nothing more
        """It is here for good, with all its memory."""

    def start_anew(self) -> None:
        """Start it from its files, for its memory will not come."""
        start_anew(self.known_as)

    def freeze(self) -> None:
        """Let the tree stand still, whoever has held it back until now; quiet when it is gone."""
        with suppress(LifeboatError, OSError):
            tree = Cgroup.of_process(self.pid) if self.pid else None
            if tree is not None and self._proposal.container.id in str(
                tree.path
            ):  # no other one has the pid by now
                tree.ask_to_freeze()

    def put_aside(self, place: Path) -> None:
        """Copy its layer, for podman is about to remove it; on disk when this returns."""
        upper = podman.directories(self.known_as).upper
        local.copy(upper, place, self._hall.settings.copy_limit_s)
        write_out(place)

    def withdraw(self) -> None:  # noqa: B027  most have left nothing
        """Podman has removed it: take away what else was made for it."""

    def move_staged_layer(self, upper: Path) -> bool:
        """Put the layer that was copied ahead into the new container's own; return whether there was one."""
        self.layer_changed = False
        if not self._staging.exists():
            return False
        local.mirror(self._staging, upper, self._hall.settings.park_limit_s)
        shutil.rmtree(self._staging)
        return True


class ParkedRestore(Arrival):
    """Podman's restore, stopped in our shim one step before runc's."""

    def __init__(
        self,
        hall: Hall,
        proposal: Proposal,
        directory: Path,
        staging: Path,
        drain: Drain,
        *,
        stale: bool,
        pod: IncomingPod | None = None,
    ) -> None:
        """`stale` says that its memory is of the past: its peers have gone on, and its connections are over.

        `pod` is what it comes into.
        """
        super().__init__(hall, proposal, directory, staging)
        self._drain = drain
        self._pod = pod
        self._severed = all_addresses(proposal.container.networks) if stale else ()
        self._shim: ControlClient | None = None
        self._podman: Scope | None = None
        self._root = self._bundle = self._images = Path()
        self._ready = False
        unit = proposal.container.quadlet
        self._unit = Adoption(unit, proposal.container.id, directory) if unit else None

    @property
    def _scope(self) -> str:
        return f"lifeboat-target-{self._proposal.migration}"

    @property
    def ready(self) -> bool:
        """See `Arrival.ready`."""
        return self._ready

    @property
    def lives(self) -> bool:
        """See `Arrival.lives`; a podman that an earlier daemon started is known by its shim's answer only.

        A podman whose shim was killed goes on waiting for it; behind the restore the shim is started again.
        """
        if self._shim is None or (self._shim.gone and not self._joined_again()):
            return False
        if self._podman is not None:
            return self._podman.wait(0) is None
        try:
            self._ask({"do": "state"})
        except LifeboatError as error:
            return error.code == "control-timeout"  # busy
        return True

    @property
    def images(self) -> Path:
        """See `Arrival.images`."""
        if self._shim is None:
            raise ExecutionError("nothing is parked for this migration", code="not-parked")
        return self._images

    def adopt(self, shim: ControlClient) -> None:
        """Take up what an earlier daemon parked."""
        self._shim = shim
        self._learn()

    def park(self, request: ParkRequest) -> None:
        """Let podman create everything and stop one step before the restore."""
        if self._shim is not None:
            return
        container = self._proposal.container
        podman.ensure_name(container.image_id, container.image)
        archive = self._directory / "import.tar"
        members = {
            "config.dump": request.configuration,
            "spec.dump": request.specification,
            "network.status": request.network_status,
        }
        podman.write_checkpoint_archive(archive, members)
        order = shim_order.Order(
            migration=self._proposal.migration,
            side=Side.TARGET,
            method=self._proposal.method,
            container=container.id,
            journal=str(self._hall.state / "journal.db"),
            runc=shim_order.real_runc(),
            pki=str(self._hall.pki),
            settings=self._hall.settings,
            left_behind=self._severed,
            in_pod=self._pod is not None,
            shared_memory=self._lent_memory(request.specification),
        )
        configuration = shim_order.write_order(self._directory, order)
        self._podman = self._call_podman(podman.restore_argv(archive, self._pod_name), configuration)
        self._shim = self._podman.control(self._directory / shim_order.CONTROL, "the parked restore")
        self._learn()
        if self.move_staged_layer(self.layer()):
            self._ask({"do": "refresh"})
        self.layer_changed = False
        self._ask({"do": "begin"})
        self._drain.wait_for_room()
        _ = in_flight.replay  # loaded now, for the commit must not wait for it

    def _lent_memory(self, specification: str) -> str:
        """Return the /dev/shm of its pod, if it has that one at its source; podman would make it another."""
        lent = str(self._pod.shared_memory or "") if self._pod is not None else ""
        return lent if mount_source(json.loads(specification), "/dev/shm") == lent else ""  # noqa: S108  in it

    @property
    def _pod_name(self) -> str:
        joined = self._pod.joined if self._pod is not None else None
        return joined.pod if joined is not None else ""

    def _call_podman(self, argv: list[str], configuration: Path) -> Scope:
        """Let podman restore it in a scope of ours, or in the unit that it belongs to."""
        environment = {"CONTAINERS_CONF_OVERRIDE": str(configuration)}
        if self._unit is not None:
            return self._unit.start(argv, environment)
        return Scope.start(self._scope, argv, log=self._directory / "podman.log", env=environment)

    def _learn(self) -> None:
        state = self._ask({"do": "state"})
        self._root, self._bundle = Path(state["root"]), Path(state["bundle"])
        self._images, self.pid = Path(state["images"]), int(state["pid"])
        self._ready = bool(state["restored"])

    def layer(self) -> Path:
        """See `Arrival.layer`."""
        if self._shim is None:
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
            return self._staging
        self.layer_changed = True
        return overlay.find(self._root).upper

    def shared_memory(self) -> Path | None:
        """See `Arrival.shared_memory`."""
        return self._bundle / "shm" if self._shim is not None else None

    def make_ready(self, images: bytes | None) -> None:
        """Restore the tree; `images` is None when they came as a stream."""
        descriptors = image.unpack(images, self.images) if images is not None else ""
        lazy = self._proposal.method is Method.LAZY
        if lazy:
            self._drain.expect(self.images)
        networks = [network.model_dump(mode="json") for network in self._proposal.container.networks]
        order: Message = {"do": "restore", "networks": networks, "layer_changed": self.layer_changed}
        order["descriptors"] = descriptors
        self.pid = int(self._ask(order, RESTORE_WAIT_S)["pid"])
        if lazy and (reason := self._drain.progress().reason):
            raise ExecutionError(reason, code="sink-failed")
        self._ready = True

    def open(self) -> float:
        """Open the gate and let podman have the container."""
        try:
            return float(self._ask({"do": "open"})["at"])
        except LifeboatError:
            # The shim ends well only after it opened the gate: then only its answer was lost.
            handed_over = (self._directory / shim_order.HANDED_OVER).exists()
            if not handed_over and (self._podman is None or self._podman.wait(CONTROL_WAIT_S) != 0):
                raise
            return time.time()

    def surrender(self) -> None:
        """See `Arrival.surrender`."""
        if self.lives:
            self._ask({"do": "surrender"})
        if self._podman is not None:
            self._podman.wait(PODMAN_END_WAIT_S)

    def abort(self) -> None:
        """See `Arrival.abort`."""
        if self._shim is not None:
            with suppress(LifeboatError):
                self._ask({"do": "abort"})
        if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
            self._podman.kill()
        end_scope(self._scope)
        self.withdraw()

    def settle(self) -> None:
        """See `Arrival.settle`."""
        if self._unit is not None:
            self._unit.settle()

    def start_anew(self) -> None:
        """See `Arrival.start_anew`."""
        if self._unit is None:
            super().start_anew()
        else:  # which makes another container of that name
            start_anew(self._proposal.container.name, self._unit.start_anew)

    def withdraw(self) -> None:
        """See `Arrival.withdraw`."""
        if self._unit is not None:
            self._unit.withdraw()

    def close(self) -> None:
        """See `Arrival.close`; raises `ExecutionError` when podman does not finish."""
        if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
            raise ExecutionError("podman does not finish the restore", code="podman-stuck")
        if self._shim is not None:
            self._shim.close()

    def _ask(self, message: Message, timeout_s: float = CONTROL_WAIT_S) -> Message:
        if self._shim is None:
            raise ExecutionError("nothing is parked for this migration", code="not-parked")
        deadline = time.monotonic() + SHIM_AGAIN_S
        while True:  # a dying shim may take a call, too
            try:
                return self._shim.ask(message, timeout_s=timeout_s)
            except ExecutionError as error:
                late = error.code != "control-lost" or time.monotonic() > deadline
                if late or not self._joined_again():
                    raise

    def _joined_again(self) -> bool:
        """Join a shim that was started again because it was killed with the restored tree in its hands."""
        handed_over, restored = (self._directory / name for name in (shim_order.HANDED_OVER, shim_order.RESTORED))
        if handed_over.exists() or not restored.exists() or (self._podman and self._podman.wait(0) is not None):
            return False
        try:
            self._shim = ControlClient(
                self._directory / shim_order.CONTROL, timeout_s=SHIM_AGAIN_S, what="the parked restore"
            )
        except LifeboatError:
            return False
        return True
