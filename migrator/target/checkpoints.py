"""Complete checkpoints of other hosts' containers that wait here, should their host die all of a sudden.

A suspect host puts one of each container at its planned target from time to time, and the container runs on there.
While the next one comes into one slot, the last one stays whole in the other. Nothing is ever started from a
checkpoint by itself: `lifeboat recover` does it, by the word that the source is dead.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from migrator.command import run
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, Treatment, Value
from migrator.names import HostName, MigrationId
from migrator.peers.authority import write_secret
from migrator.peers.streams import Header
from migrator.protocol.messages import SLOTS, Keep, ParkRequest
from migrator.storage.receive import room_bytes
from migrator.storage.sync import LAYER, SHARED_MEMORY
from migrator.storage.volumes import trees

DIRECTORY = "checkpoints"
RECORD = "kept.json"
IMAGES, TREES = "images", "trees"
LASTS_S = 7 * 86400.0  # a source that lives withdraws its own; a human has a week for those of a dead one
MOST = 256  # of one source
SYNC_LIMIT_S = 600.0

_log = logging.getLogger(__name__)


class Kept(Value):
    """One checkpoint that is complete."""

    checkpoint: MigrationId
    source: HostName
    container: ContainerFacts
    epoch: int  # see `Keep`
    request: ParkRequest
    slot: Literal["a", "b"]
    at: float  # since when it is complete (Unix seconds of this host)


@dataclass(frozen=True)
class Place:
    """Where one checkpoint lies, or goes."""

    container: ContainerFacts
    directory: Path

    @property
    def images(self) -> Path:
        """Return the directory of CRIU's images, memory included."""
        return self.directory / IMAGES

    @property
    def trees(self) -> dict[str, Path]:
        """Return where the trees lie, by their names."""
        moving = [*trees(self.container, Treatment.COPY), *trees(self.container, Treatment.COPY_LATE)]
        names = (LAYER, SHARED_MEMORY, *(tree.name for tree in moving))
        return {name: self.directory / TREES / name for name in names}

    def tree_path(self, tree: str) -> Path:
        """Return where a tree goes, made; raises `PrerequisiteError` for any that the container does not have."""
        path = self.trees.get(tree)
        if path is None:
            raise PrerequisiteError(f"this checkpoint has no tree {tree!r}", code="no-such-tree")
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


@dataclass(frozen=True)
class _Coming:
    checkpoint: str
    source: str
    epoch: int
    slot: str
    place: Place


class Checkpoints:
    """All checkpoints of this host, below its state directory; safe to share between threads."""

    def __init__(self, state: Path) -> None:
        self._top = state / DIRECTORY
        self._coming: dict[str, _Coming] = {}  # by the container's id
        self._writers: Counter[str] = Counter()
        self._lock = threading.RLock()

    @property
    def kept(self) -> tuple[Kept, ...]:
        """Return those that are complete."""
        found = (_read(path) for path in sorted(self._top.glob(f"*/{RECORD}")))
        return tuple(kept for kept in found if kept is not None)

    def of(self, container: str) -> Kept | None:
        """Return the complete one of a container (its id), None without one."""
        return _read(self._of(container) / RECORD)

    def place(self, kept: Kept) -> Place:
        """Return where a complete one lies."""
        return Place(kept.container, self._of(kept.container.id) / kept.slot)

    def begin(self, wish: Keep) -> None:
        """Make room for one; what came before stays until the new one is complete. That it fits was looked at."""
        with self._lock:
            known = _read(self._of(wish.container.id) / RECORD)
            if known is not None and known.source != wish.source:
                raise PrerequisiteError(f"{wish.container.name} waits here for another host", code="not-yours")
            if known is None and sum(item.source == wish.source for item in self.kept) >= MOST:
                raise PrerequisiteError(f"{MOST} checkpoints of {wish.source} wait here", code="checkpoints-full")
            self._check_idle(wish.container.id)
            slot = next(name for name in SLOTS if known is None or name != known.slot)
            place = Place(wish.container, self._of(wish.container.id) / slot)
            place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            shutil.rmtree(place.images, ignore_errors=True)
            needed = wish.container.memory_bytes + wish.container.disk_bytes
            if needed > (room := room_bytes(place.directory)):
                raise PrerequisiteError(
                    f"{needed >> 20} MiB of disk are needed for a checkpoint, {room >> 20} MiB are free",
                    code="target-lacks-disk",
                )
            place.images.mkdir(mode=0o700)
            self._coming[wish.container.id] = _Coming(wish.checkpoint, wish.source, wish.epoch, slot, place)

    @contextmanager
    def writing(self, header: Header) -> Iterator[Place | None]:
        """Hold where the stream of a checkpoint goes while it is written to; None when it is for none."""
        with self._lock:
            place = next((item.place for item in self._coming.values() if _is(item, header)), None)
            if place is not None:
                self._writers[place.container.id] += 1
        try:
            yield place
        finally:
            if place is not None:
                with self._lock:
                    self._writers[place.container.id] -= 1

    def complete(self, checkpoint: str, source: str, request: ParkRequest, now: float) -> None:
        """Know that all of it is here, on disk; `now` is Unix time."""
        named = (item for item in self._all_coming() if (item.checkpoint, item.source) == (checkpoint, source))
        if (coming := next(named, None)) is None:
            raise PrerequisiteError(f"no checkpoint {checkpoint} is coming here", code="unknown-checkpoint")
        run(["sync", "--file-system", str(coming.place.directory)], timeout_s=SYNC_LIMIT_S)
        container = coming.place.container
        record = {
            "checkpoint": checkpoint,
            "source": source,
            "container": container,
            "epoch": coming.epoch,
            "request": request,
            "slot": coming.slot,
            "at": now,
        }
        with self._lock:
            if self._coming.get(container.id) != coming:
                raise PrerequisiteError(f"the checkpoint {checkpoint} was withdrawn", code="unknown-checkpoint")
            self._check_idle(container.id)
            write_secret(self._of(container.id) / RECORD, Kept.model_validate(record).model_dump_json().encode())
            del self._coming[container.id]

    def withdraw(self, checkpoint: str, source: str) -> None:
        """Let one go, whether it is coming or complete; quiet when there is none."""
        with self._lock:
            for coming in self._all_coming():
                if (coming.checkpoint, coming.source) == (checkpoint, source):
                    del self._coming[coming.place.container.id]
            for kept in self.kept:
                if (kept.checkpoint, kept.source) == (checkpoint, source):
                    self.remove(kept.container.id)

    def remove(self, container: str) -> None:
        """Remove all there is of a container (its id)."""
        with self._lock:
            self._coming.pop(container, None)
            (self._of(container) / RECORD).unlink(missing_ok=True)
            shutil.rmtree(self._of(container), ignore_errors=True)

    def expire(self, now: float) -> None:
        """Remove what is too old to be wanted; `now` is Unix time."""
        for kept in self.kept:
            if kept.at + LASTS_S <= now:
                self.remove(kept.container.id)

    def _check_idle(self, container: str) -> None:
        """Raise while a stream, perhaps an old one whose link is dead, may write to what comes."""
        if self._writers[container]:
            raise PrerequisiteError("it is still being written here", code="target-busy", temporary=True)

    def _all_coming(self) -> tuple[_Coming, ...]:
        with self._lock:
            return tuple(self._coming.values())

    def _of(self, container: str) -> Path:
        return self._top / container


def _is(coming: _Coming, header: Header) -> bool:
    return (coming.checkpoint, coming.source) == (header.get("migration", ""), header["peer"])


def _read(path: Path) -> Kept | None:
    try:
        return Kept.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.warning("%s is not understood and not used: %s", path, error)
        return None
