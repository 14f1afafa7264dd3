"""What a suspect host copies ahead to the planned targets, before anything is moved: `migrator.target.staging`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import Field, RootModel, ValidationError

from migrator.errors import LifeboatError
from migrator.files import write_whole
from migrator.model import ContainerFacts, Value
from migrator.names import new_id
from migrator.peers.client import PeerClient
from migrator.protocol.messages import SLOTS, Stage, Staged
from migrator.runtime import podman
from migrator.source.departure import Departure
from migrator.storage import image
from migrator.storage.sync import LAYER, VOLUME, Destination, Tree, copy_ahead
from migrator.storage.volumes import waiting_volumes

PLACES = "staged.json"
REQUEST_WAIT_S = 60.0


class Waiting(Value):
    """A container whose files wait at a target."""

    container: str
    target: str
    fresh_at: float | None  # when all of them were brought up to date (Unix seconds), None when never yet
    kept_at: float | None = None  # of when a complete checkpoint waits there as well


class _Place(Value):
    name: str  # of the container
    target: str
    staging: str
    fresh_at: float | None = None
    since_ns: Mapping[str, int] = Field(default_factory=dict)  # tree -> when its last complete copy began
    checkpoint: str = ""
    kept_at: float | None = None
    kept_since_ns: tuple[int, ...] = ()  # when the last checkpoints began, one for each of the target's slots


class _Places(RootModel[dict[str, _Place]]):
    """All of them, by the container's id, as they are written down."""


class Stager:
    """What of this host waits where; a restart does not forget it."""

    def __init__(self, shared: Departure, client: Callable[[str], PeerClient]) -> None:
        """`client` returns how a host is called."""
        self._shared = shared
        self._client = client
        self._path = shared.state / PLACES
        self._places = _read(self._path)  # by the container's id
        self._lock = threading.Lock()

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """Return what waits where."""
        with self._lock:
            return tuple(
                Waiting(container=place.name, target=place.target, fresh_at=place.fresh_at, kept_at=place.kept_at)
                for place in self._places.values()
            )

    @property
    def targets(self) -> Mapping[str, str]:
        """Return container id -> the host where its files wait."""
        with self._lock:
            return {container: place.target for container, place in self._places.items()}

    def stage(self, container: ContainerFacts, target: str, seconds: float, go_on: Callable[[], None]) -> None:
        """Bring what waits for a container up to date, or begin to; it may stay for so many seconds.

        Raises what `go_on`, which is asked now and then, raises.
        """
        known = self._known(container.id)
        if known is not None and known.target != target:
            self.withdraw(container.id)
            known = None
        place = known or _Place(name=container.name, target=target, staging=new_id())
        wish = Stage(
            staging=place.staging,
            source=self._shared.host,
            container=container,
            copy_image=self._shared.settings.copy_images,
            seconds=seconds,
        )
        client = self._client(target)
        told = client.call("POST", "/v1/stagings", wish, Staged, timeout_s=REQUEST_WAIT_S)
        self._remember(container.id, place)

        def go_on_there() -> None:
            client.check_listed()
            go_on()

        destination = Destination(self._shared.directory, target, place.staging, go_on_there)
        limit_s = self._shared.settings.copy_limit_s
        go_on()
        if told.needs_image:
            with self._shared.turns.image(target, container.image_id) as sent:
                if not sent:
                    image.send_image(container.image_id, destination, limit_s)
        since_ns = dict(place.since_ns)
        for tree in waiting_trees(container):
            go_on()
            if tree.name in told.trees:
                copied = copy_ahead(tree, destination, limit_s, since_ns.get(tree.name))
                since_ns[tree.name] = copied.at_ns
                self._update(container.id, target, {"since_ns": since_ns.copy()})
        self._update(container.id, target, {"fresh_at": time.time()})

    def since_ns(self, container: str, target: str) -> Mapping[str, int]:
        """Return when the last complete copies of a container's trees (by name) began that wait at a target."""
        place = self._known(container)
        return place.since_ns if place is not None and place.target == target else {}

    def kept(self, container: ContainerFacts, target: str, checkpoint: str, began_ns: int) -> None:
        """Know that a complete checkpoint waits beside the files."""
        place = self._known(container.id)
        before = place.kept_since_ns if place is not None else ()
        told = {
            "checkpoint": checkpoint,
            "kept_at": time.time(),
            "kept_since_ns": (*before, began_ns)[-len(SLOTS) :],
        }
        self._update(container.id, target, told)

    def kept_since_ns(self, container: str, target: str) -> int | None:
        """Return when the oldest of the checkpoints at a target began that the next may be written over."""
        place = self._known(container)
        known = place.kept_since_ns if place is not None and place.target == target else ()
        return min(known) if len(known) == len(SLOTS) else None

    def kept_at(self, container: str) -> float | None:
        """Return of when the complete checkpoint is that waits for a container (Unix seconds)."""
        place = self._known(container)
        return place.kept_at if place is not None else None

    def withdraw(self, container: str) -> None:
        """Let what waits for a container (its id) go; what cannot be told to its target expires there."""
        with self._lock:
            place = self._places.pop(container, None)
            self._write()
        if place is not None:
            paths = [f"/v1/stagings/{place.staging}"]
            paths += [f"/v1/checkpoints/{place.checkpoint}"] if place.checkpoint else []
            for path in paths:
                with suppress(LifeboatError):
                    self._client(place.target).call("DELETE", path, None, Staged, timeout_s=REQUEST_WAIT_S)

    def _remember(self, container: str, place: _Place) -> None:
        with self._lock:
            self._places[container] = place
            self._write()

    def _update(self, container: str, target: str, told: Mapping[str, object]) -> None:
        """Know more of a place that was not withdrawn meanwhile."""
        with self._lock:
            place = self._places.get(container)
            if place is not None and place.target == target:
                self._places[container] = place.model_copy(update=told)
                self._write()

    def _write(self) -> None:
        with suppress(OSError):  # what a failing disk does not take is only forgotten by a restart
            write_whole(self._path, _Places(self._places).model_dump_json().encode(), 0o600)

    def _known(self, container: str) -> _Place | None:
        with self._lock:
            return self._places.get(container)


def _read(path: Path) -> dict[str, _Place]:
    """Read what was written down; what cannot be read is forgotten, and what waits for it expires at its target."""
    try:
        return _Places.model_validate_json(path.read_bytes()).root
    except (OSError, ValidationError):
        return {}


def waiting_trees(container: ContainerFacts) -> list[Tree]:
    """Return the trees of a running container that may wait at a target."""
    volumes = [Tree(VOLUME + mount.name, Path(mount.path)) for mount in waiting_volumes(container)]
    return [*volumes, Tree(LAYER, podman.directories(container.id).upper)]
