"""How a source holds a container that leaves: parked in podman's checkpoint and then frozen, or stopped.

Whatever happens to the programs that hold it, the container is given back before the commit, and is not after it.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from migrator.container.settle import start_anew
from migrator.control import ControlClient, Message
from migrator.errors import ExecutionError, LifeboatError
from migrator.model import ContainerFacts, Method, Transport
from migrator.network.sever import all_addresses, left_behind
from migrator.peers.client import PeerClient
from migrator.protocol.journal import Side
from migrator.protocol.messages import Accepted, InFlight, ParkRequest
from migrator.runtime import podman, tombstone
from migrator.runtime.frozen import FrozenTree, let_go
from migrator.runtime.scope import Scope, wait_for_scope
from migrator.shim import order as shim_order
from migrator.source.departure import Departure
from migrator.storage import image
from migrator.storage.sync import Destination

CONTROL_WAIT_S = 10.0
SHIM_WAIT_S = 2.0
IN_FLIGHT_WAIT_S = 0.2
PODMAN_END_WAIT_S = 60.0
DONE = {"abort": "aborted", "resume": "resumed"}  # what a shim says when it has done so


class Holding(ABC):
    """One container on its way out."""

    def __init__(
        self, shared: Departure, migration: str, container: ContainerFacts, method: Method, *, captain: bool = True
    ) -> None:
        """`captain`: see `shim_order.Order`."""
        self._captain = captain
        self._shared = shared
        self._id = migration
        self._container = container
        self._method = method
        self.directory = shared.runtime / "migrations" / migration

    @abstractmethod
    def park(self, target: PeerClient, accepted: Accepted) -> ParkRequest:
        """Come as near to the freeze as the container can bear; return what the target needs for the same."""

    @abstractmethod
    def freeze(self) -> float:
        """Stop the container; return since when it stands (Unix seconds)."""

    def stand_still(self) -> float:
        """Only let it stand, for `freeze` to go on from there; return since when (Unix seconds)."""
        raise ExecutionError("it cannot stand still with others", code="not-together")

    def written(self) -> Path:
        """Return where its images lie on this host, when they are written; raises where there are none."""
        raise ExecutionError("it is stopped, not checkpointed", code="no-images")

    @abstractmethod
    def images(self, destination: Destination) -> Callable[[], bytes]:
        """Wait until it is written what the target restores from; return what brings it, in any thread.

        That returns what is to be sent with the word to restore; what is large goes by a stream of its own.
        """

    @abstractmethod
    def check_silent(self) -> None:
        """Raise `ExecutionError` unless the container stands still and nobody can hear it."""

    def in_flight(self) -> InFlight:
        """Return, once, the packets that came since it stands still: the target lets it have them."""
        return InFlight()

    @abstractmethod
    def adopt(self) -> None:
        """Take up what an earlier daemon began."""

    @abstractmethod
    def give_back(self) -> None:
        """Let it run as if nothing had happened; the journal says that it is ours. Idempotent.

        Raises `LifeboatError` or `OSError` when it does not run after that, or nobody knows.
        """

    def give_back_unwritten(self) -> None:
        """As `give_back`, where the journal does not say that it is ours, but nobody can have committed it."""
        self.give_back()

    def resume(self) -> None:
        """As `give_back`, after the commit, by a human's word that the journal has."""
        self.give_back()

    @abstractmethod
    def look_after(self) -> None:
        """After the commit: mend what can be mended, should what holds the container have died."""

    @abstractmethod
    def release(self) -> None:
        """Kill what is left of it here."""

    @property
    def gone(self) -> bool:
        """Say whether what holds it has died; then only the daemon can give it back."""
        return False

    @property
    @abstractmethod
    def memory_is_here(self) -> bool:
        """Say whether its memory is still here."""

    def close(self) -> None:  # noqa: B027  most have nothing to hang up
        """Hang up."""


class ParkedCheckpoint(Holding):
    """Podman's checkpoint, stopped in our shim; after the freeze the shim holds the frozen tree."""

    def __init__(
        self, shared: Departure, migration: str, container: ContainerFacts, method: Method, *, captain: bool = True
    ) -> None:
        super().__init__(shared, migration, container, method, captain=captain)
        self._shim: ControlClient | None = None
        self._podman: Scope | None = None
        self._late = False  # the shim is there, and takes no call

    @property
    def _scope(self) -> str:
        return f"lifeboat-source-{self._id}"

    def park(self, target: PeerClient, accepted: Accepted) -> ParkRequest:
        """See `Holding.park`; the source parks first, for it has the facts."""
        order = self._order(target, accepted)
        configuration = shim_order.write_order(self.directory, order)
        status = podman.network_status(self._container)
        self._podman = Scope.start(
            self._scope,
            podman.checkpoint_argv(self._container.id, self.directory / "export.tar"),
            log=self.directory / "podman.log",
            env={"CONTAINERS_CONF_OVERRIDE": str(configuration)},
        )
        self._shim = self._podman.control(self.directory / shim_order.CONTROL, "the parked checkpoint")
        self._ask({"do": "call"})
        bundle = Path(self._ask({"do": "state"})["bundle"])
        return ParkRequest(
            configuration=(bundle / "config.dump").read_text(),
            specification=tombstone.without_hook((bundle / "spec.dump").read_text()),
            network_status=json.dumps(status),
        )

    def _order(self, target: PeerClient, accepted: Accepted) -> shim_order.Order:
        pager = None
        if self._method is Method.LAZY:
            pager = shim_order.PagerAddress(
                host=target.name,
                address=target.address,
                port=accepted.pager_port,
                secret=accepted.pager_secret,
                addresses=accepted.pager_addresses,
                plain=accepted.pager_transport is self._shared.settings.pager_transport is Transport.PLAIN,
            )
        return shim_order.Order(
            migration=self._id,
            side=Side.SOURCE,
            method=self._method,
            container=self._container.id,
            journal=str(self._shared.state / "journal.db"),
            runc=shim_order.real_runc(),
            pki=str(self._shared.directory / "pki"),
            settings=self._shared.settings,
            pager=pager,
            addresses=all_addresses(self._container.networks),
            left_behind=left_behind(self._container.networks),
            in_pod=self._container.pod is not None,
            captain=self._captain,
        )

    @property
    def gone(self) -> bool:
        """See `Holding.gone`."""
        return self._shim is not None and self._shim.gone

    def stand_still(self) -> float:
        """See `Holding.stand_still`."""
        return float(self._ask({"do": "stand-still"})["at"])

    def freeze(self) -> float:
        """See `Holding.freeze`."""
        return float(self._ask({"do": "freeze"})["at"])

    def written(self) -> Path:
        """See `Holding.written`."""
        return Path(self._listen()["images"])

    def images(self, destination: Destination) -> Callable[[], bytes]:
        """See `Holding.images`: a lazy tree's are small."""
        written = self.written()
        return lambda: self._bring(written, destination)

    def _bring(self, images: Path, destination: Destination) -> bytes:
        if self._method is Method.LAZY:
            return image.pack(images)
        image.send_process_images(images, destination, self._shared.settings.copy_limit_s)
        return b""

    def check_silent(self) -> None:
        """See `Holding.check_silent`."""
        if self._listen()["event"] != "silent":
            raise ExecutionError("the source is not silent", code="not-silent")

    def in_flight(self) -> InFlight:
        """See `Holding.in_flight`; the commit does not wait for a shim that does not answer."""
        if self._shim is None:
            return InFlight()
        try:
            told = self._shim.ask({"do": "in-flight"}, timeout_s=IN_FLIGHT_WAIT_S)
        except LifeboatError:
            self.close()
            self.adopt()  # on a new connection, for the answer may still come on this one
            return InFlight()
        return InFlight(packets=told["packets"])

    def adopt(self) -> None:
        """See `Holding.adopt`."""
        path = self.directory / shim_order.CONTROL
        try:
            self._shim, self._late = ControlClient(path, timeout_s=SHIM_WAIT_S, what="the parked podman"), False
        except LifeboatError as error:
            self._late = error.code == "control-timeout"

    def give_back(self) -> None:
        """The shim does it; when it is dead, so is what it would have done, and we do it."""
        self._end_hold(done=self._tell_shim("abort"))

    def give_back_unwritten(self) -> None:
        """See `Holding.give_back_unwritten`: the shim, which needs the row, is left, and does it if it gets one."""
        self.close()
        self._end_hold(done=False)

    def resume(self) -> None:
        """As `give_back`, after the commit, by a human's word that the journal has."""
        self._end_hold(done=self._tell_shim("resume"))

    def _tell_shim(self, word: str) -> bool:
        """Say whether the shim has done it; what it said before, and nobody has heard yet, is no answer."""
        if self._shim is None:
            return False
        deadline = time.monotonic() + CONTROL_WAIT_S
        try:
            told = self._shim.ask({"do": word}, timeout_s=CONTROL_WAIT_S)
            while told.get("event") != DONE[word]:
                told = self._shim.listen(timeout_s=deadline - time.monotonic())
        except LifeboatError:
            return False
        return True

    def _end_hold(self, *, done: bool) -> None:
        """Do what the shim has not done, and see whether it runs."""
        if not done:
            let_go(self._scope, self._tree)
            if tree := self._seek():
                tree.give_back()
        if self._podman is not None and self._podman.wait(PODMAN_END_WAIT_S) is None:
            self._podman.kill()
        self.close()
        if (tree := self._seek()) and tree.cgroup.told_to_freeze:
            raise ExecutionError("it stands frozen here", code="still-frozen")

    def look_after(self) -> None:
        """See `Holding.look_after`: a dead shim's work is taken over by another one, from the frozen tree."""
        settled = self._shared.journal.fate(self._id) is not None  # a human is at it
        if self._method is not Method.LAZY or settled or self._shim_answers():
            return
        if not (self.directory / shim_order.ORDER).exists() or not self.memory_is_here:
            return
        self._podman = None
        name = f"{self._scope}-standby"
        standby = Scope.start_module(name, "migrator.shim.standby", self.directory)
        self._shim = standby.control(self.directory / shim_order.CONTROL, "the page source")

    def _shim_answers(self) -> bool:
        """Say whether the shim lives; one that is slow does."""
        if self._shim is None and self._late:
            self.adopt()
        if self._shim is None:
            return self._late
        try:
            self._shim.ask({"do": "state"}, timeout_s=CONTROL_WAIT_S)
        except LifeboatError as error:
            self.close()
            if error.code != "control-timeout":
                return False
            self.adopt()  # on a new connection, for the answer may still come on this one
            return self._shim is not None or self._late
        return True

    def release(self) -> None:
        """See `Holding.release`."""
        if self._shim is not None:
            with suppress(LifeboatError):
                self._shim.ask({"do": "release"}, timeout_s=PODMAN_END_WAIT_S)
        if tree := self._tree():
            tree.cgroup.end(PODMAN_END_WAIT_S)
        if self._podman is not None:
            self._podman.wait(PODMAN_END_WAIT_S)
        else:
            wait_for_scope(self._scope, PODMAN_END_WAIT_S)  # an earlier daemon's; it and `podman rm` would block
        self.close()

    @property
    def memory_is_here(self) -> bool:
        """See `Holding.memory_is_here`."""
        tree = self._tree()
        return tree is not None and tree.cgroup.frozen

    def _tree(self) -> FrozenTree | None:
        return FrozenTree.find(shim_order.real_runc(), self._container.id)

    def _seek(self) -> FrozenTree | None:
        return FrozenTree.seek(shim_order.real_runc(), self._container.id)

    def close(self) -> None:
        """See `Holding.close`."""
        if self._shim is not None:
            self._shim.close()
            self._shim = None

    def _ask(self, message: Message) -> Message:
        if self._shim is None:
            raise ExecutionError("nothing is parked", code="not-parked")
        return self._shim.ask(message, timeout_s=CONTROL_WAIT_S)

    def _listen(self) -> Message:
        if self._shim is None:
            raise ExecutionError("nothing is parked", code="not-parked")
        return self._shim.listen(timeout_s=self._shared.settings.freeze_limit_s)


class StoppedContainer(Holding):
    """For the cold rung: podman stops it, and starts it again when it is given back."""

    def park(self, target: PeerClient, accepted: Accepted) -> ParkRequest:
        """See `Holding.park`."""
        del target, accepted
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        argv = podman.create_argv(self._container.id, self._container)
        return ParkRequest(configuration="", specification="", network_status="", create_argv=argv)

    def freeze(self) -> float:
        """See `Holding.freeze`: with its own stop signal and time, so what it wants to write, it writes."""
        at = time.time()
        podman.stop(self._container.id, self._shared.settings.freeze_limit_s)
        return at

    def images(self, destination: Destination) -> Callable[[], bytes]:
        """There are none."""
        del destination
        return bytes

    def check_silent(self) -> None:
        """See `Holding.check_silent`."""
        if podman.is_running(self._container.id):
            raise ExecutionError("the source is not silent", code="not-silent")

    def adopt(self) -> None:
        """There is nothing to adopt."""

    def give_back(self) -> None:
        """See `Holding.give_back`; started again, its addresses live at other hardware addresses."""
        tombstone.lift(self._shared.state, self._container)
        start_anew(self._container.name)

    def look_after(self) -> None:
        """There is nothing to look after."""

    def release(self) -> None:
        """There is nothing to kill."""

    @property
    def memory_is_here(self) -> bool:
        """See `Holding.memory_is_here`: a stopped container has none."""
        return True


def holding(
    shared: Departure, migration: str, container: ContainerFacts, method: Method, *, captain: bool = True
) -> Holding:
    """Return how a container is held on this rung; `captain`: see `shim_order.Order`."""
    kind = StoppedContainer if method is Method.COLD else ParkedCheckpoint
    return kind(shared, migration, container, method, captain=captain)
