"""What waits here for containers of a suspect host: volumes, layers and images, copied while the containers run.

A record on disk says what was made for a container and until when it may stay. A migration takes all of it over
before it copies, and finds only the difference missing; the record is gone from then on. What nobody renewed or
took is removed, but only what podman knows to be unused. Bind mounts do not wait: a directory of the host could
be somebody else's by the time it is removed.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from migrator.errors import LifeboatError, PrerequisiteError
from migrator.model import ContainerFacts, Value
from migrator.names import HostName, MigrationId, PodmanName
from migrator.peers.authority import write_secret
from migrator.protocol.messages import Proposal, Stage
from migrator.runtime import podman
from migrator.storage.sync import LAYER, VOLUME
from migrator.storage.volumes import Volumes, waiting_volumes

DIRECTORY = "staged"  # below the state directory
LONGEST_S = 86400.0
MOST = 1000  # records of one host
WRITERS_LIMIT_S = 10.0  # for copies under way when a migration takes their tree over

_log = logging.getLogger(__name__)


class Staging(Value):
    """One container's record."""

    staging: MigrationId  # what its streams name
    source: HostName
    container: ContainerFacts
    until: float  # Unix seconds
    volumes: tuple[PodmanName, ...] = ()  # made for it
    image: bool = False  # came for it

    @property
    def trees(self) -> tuple[str, ...]:
        """Return the names of the trees that may come; a volume that was here before is no staged one."""
        return (LAYER, *(VOLUME + name for name in self.volumes))


@dataclass(frozen=True)
class Taken:
    """What a migration takes over."""

    volumes: tuple[str, ...] = ()
    layer: Path | None = None


def staged_volumes(state: Path) -> dict[str, str]:
    """Return the volumes that wait here: name -> the id of the container that may have it."""
    return {name: record.container.id for record in _records(state) for name in record.volumes}


class Stagings:
    """All records of this host, below its state directory."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._writers: Counter[str] = Counter()

    def stage(self, wish: Stage, now: float) -> Staging:
        """Make room for a container, or renew what waits for it; that it fits was looked at. `now` is Unix time."""
        with self._lock:
            path = _record(self._state, wish.container.id)
            known = _read(path)
            if known is not None and known.source != wish.source:
                raise PrerequisiteError(f"{wish.container.name} waits here for another host", code="not-yours")
            if known is None and sum(item.source == wish.source for item in self.records()) >= MOST:
                raise PrerequisiteError(f"{MOST} containers of {wish.source} wait here", code="staging-full")
            self._check_free(wish.container)
            missing = [mount for mount in waiting_volumes(wish.container) if not podman.has_volume(mount.name)]
            made = {*(known.volumes if known else ()), *(mount.name for mount in missing)}
            record = Staging(
                staging=wish.staging,
                source=wish.source,
                container=wish.container,
                until=now + min(wish.seconds, LONGEST_S),
                volumes=tuple(sorted(made)),
                image=known.image if known else False,
            )
            _write(path, record)
            for mount in missing:
                podman.create_volume(mount.name, mount.options, mount.labels)
            return record

    def records(self) -> Sequence[Staging]:
        """Return all records."""
        return _records(self._state)

    @contextmanager
    def writing(self, staging: str, source: str) -> Iterator[Staging | None]:
        """Hold a record while its source writes to what waits; None when there is no such record."""
        with self._lock:
            found = (item for item in self.records() if (item.staging, item.source) == (staging, source))
            record = next(found, None)
            if record is not None:
                self._writers[record.container.id] += 1
        try:
            yield record
        finally:
            if record is not None:
                with self._idle:
                    self._writers[record.container.id] -= 1
                    self._idle.notify_all()

    def tree_path(self, record: Staging, tree: str) -> Path:
        """Return where a tree waits; raises `PrerequisiteError` for any that does not."""
        if tree == LAYER:
            path = _layer(self._state, record.container.id)
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            return path
        if tree in record.trees:
            return podman.volume_path(tree.removeprefix(VOLUME))
        raise PrerequisiteError(f"no tree {tree!r} waits here", code="no-such-tree")

    def came(self, record: Staging) -> None:
        """Know that a container's image came for it."""
        with self._lock:
            path = _record(self._state, record.container.id)
            if known := _read(path):
                _write(path, known.model_copy(update={"image": True}))

    @contextmanager
    def taking(self, container: ContainerFacts, source: str) -> Iterator[Taken]:
        """Let a migration have what waits for its container, and make what it needs besides before others stage.

        Raises `PrerequisiteError` while it is written to, or when a volume of this name waits for another.
        """
        with self._idle:
            self._check_free(container)
            path = _record(self._state, container.id)
            record = _read(path)
            if record is None or record.source != source:
                yield Taken()
                return
            if not self._idle.wait_for(lambda: not self._writers[container.id], WRITERS_LIMIT_S):
                raise PrerequisiteError(
                    f"{container.name} is still being staged here", code="target-busy", temporary=True
                )
            layer = _layer(self._state, container.id)
            yield Taken(record.volumes, layer if layer.exists() else None)
            path.unlink()  # behind the words of who takes it: what waits is at no time nobody's

    def give(self, proposal: Proposal, volumes: Volumes, staging: Path) -> None:
        """Give a migration what waits for its container, its layer as `staging`, and make what it needs besides.

        Raises what `taking` raises.
        """
        with self.taking(proposal.container, proposal.source) as taken:
            volumes.adopt(taken.volumes)
            if taken.layer is not None:
                staging.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                taken.layer.rename(staging)
            volumes.prepare()

    def _check_free(self, container: ContainerFacts) -> None:
        waiting = staged_volumes(self._state)
        for mount in container.volumes:
            if mount.kind == "volume" and waiting.get(mount.name, container.id) != container.id:
                raise PrerequisiteError(
                    f"a volume {mount.name} waits here for another container", code="target-volume-taken"
                )

    def withdraw(self, staging: str, source: str) -> None:
        """Let what waits for a container go, as soon as nobody writes to it; quiet when nothing does."""
        with self._lock:
            for record in self.records():
                if (record.staging, record.source) == (staging, source):
                    _write(_record(self._state, record.container.id), record.model_copy(update={"until": 0.0}))
        self.expire(time.time())

    def expire(self, now: float) -> None:
        """Remove what may not stay any longer (`now` is Unix time); what cannot be removed is tried again later."""
        with self._lock:
            for record in self.records():
                if record.until <= now and not self._writers[record.container.id]:
                    try:
                        self._remove(record)
                    except LifeboatError as error:
                        _log.warning("what waits for %s cannot be removed: %s", record.container.name, error)

    def _remove(self, record: Staging) -> None:
        for volume in record.volumes:
            podman.remove_volume(volume)  # not one that a container uses
        shutil.rmtree(_layer(self._state, record.container.id), ignore_errors=True)
        if record.image and podman.is_nameless(record.container.image_id):
            podman.remove_image(record.container.image_id)
        _record(self._state, record.container.id).unlink(missing_ok=True)


def _records(state: Path) -> list[Staging]:
    found = sorted((state / DIRECTORY).glob("*.json"))
    return [record for path in found if (record := _read(path)) is not None]


def _record(state: Path, container: str) -> Path:
    return state / DIRECTORY / f"{container}.json"


def _layer(state: Path, container: str) -> Path:
    return state / DIRECTORY / f"{container}.layer"


def _read(path: Path) -> Staging | None:
    try:
        return Staging.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        _log.warning("%s is not understood and not used: %s", path, error.errors()[0]["msg"])
        return None


def _write(path: Path, record: Staging) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(path, record.model_dump_json().encode())
