"""Volumes and directories of a container that is to come: made before its files, removed when it does not come.

What is made lies on disk beforehand, for a host may be down before the container does not come.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from migrator.errors import LifeboatError
from migrator.files import write_whole
from migrator.model import ContainerFacts, Treatment, Value, VolumeMount
from migrator.names import PodmanName
from migrator.runtime import podman
from migrator.storage.disks import mounted_below
from migrator.storage.sync import BIND, VOLUME, Tree

_log = logging.getLogger(__name__)


class Made(Value):
    """What was made here for a container that is to come."""

    volumes: tuple[PodmanName, ...] = ()
    directories: tuple[Path, ...] = ()
    volume: PodmanName | None = None  # it was about to be made: one of this name may be somebody else's
    directory: Path | None = None  # so was this


class Volumes:
    """What one incoming container brings besides its root; whether it fits is looked at before."""

    def __init__(self, container: ContainerFacts, record: Path) -> None:
        """`record` is the file that tells what was made, also to a daemon that is started after this one."""
        self._mounts = container.volumes
        self._in_pod = container.pod is not None
        self._paths = dict(_named(container))
        self._record = record
        self._made = _read(record)
        self._inherited = frozenset(self._made.directories)  # somebody may have begun to use them since

    def prepare(self) -> None:
        """Make those that are missing."""
        for mount in self._mounts:
            if mount.binds and mount.treatment is Treatment.COPY and not Path(mount.path).exists():
                directories = (*self._made.directories, Path(mount.path))
                with self._making({"directory": Path(mount.path)}, {"directories": directories}):
                    Path(mount.path).mkdir(parents=True)
            if mount.kind == "volume" and not (self._lent(mount) or podman.has_volume(mount.name)):
                volumes = (*self._made.volumes, mount.name)
                with self._making({"volume": mount.name}, {"volumes": volumes}):
                    podman.create_volume(mount.name, mount.options, mount.labels)

    @contextmanager
    def _making(self, wanted: dict[str, object], made: dict[str, object]) -> Iterator[None]:
        """Write down what is about to be made, and behind it that it was; what fails may be another's by now."""
        before = self._made
        self._write(before.model_copy(update=wanted))
        try:
            yield
        except (LifeboatError, OSError):
            self._write(before)
            raise
        self._write(before.model_copy(update=made))

    def _write(self, made: Made) -> None:
        self._made = made
        self._record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(self._record, made.model_dump_json().encode(), 0o600)

    def _lent(self, mount: VolumeMount) -> bool:
        """Say whether another member of its pod brings a volume, which is then on no storage of both hosts."""
        return self._in_pod and mount.treatment is Treatment.LEAVE and not (mount.binds or mount.storage)

    def adopt(self, names: Iterable[str]) -> None:
        """Take volumes for made here that were made before, for this container."""
        if names := tuple(names):
            self._write(self._made.model_copy(update={"volumes": (*self._made.volumes, *names)}))

    def path(self, tree: str) -> Path | None:
        """Return where the files of a tree go, None for one that the container does not have."""
        mount = self._paths.get(tree)
        if mount is None:
            return None
        return Path(mount.path) if mount.binds else podman.volume_path(mount.name)

    def places(self) -> list[Path]:
        """Return directories on all file systems to which files of this container go; they are there by now."""
        store = podman.places()
        own = [path if path.is_dir() else path.parent for tree in self._paths if (path := self.path(tree))]
        others = [path for path in mounted_below([store.graph_root]) if not path.is_relative_to(store.volumes)]
        return [store.graph_root, *others, *own, *mounted_below(path.resolve() for path in own)]

    def remove(self) -> None:
        """Take away what was made here, also by an earlier daemon; raises `LifeboatError` when podman cannot tell.

        Of what was only about to be made there is nothing but an empty one to take away.
        """
        unsure = podman.inspect_volumes((self._made.volume,)) if self._made.volume else {}
        empty = [name for name, item in unsure.items() if not any(Path(item["Mountpoint"]).glob("*"))]
        for name in (*self._made.volumes, *empty):
            podman.remove_volume(name)  # not one that a container uses
        mounted = _mounted() if self._inherited else ()
        for directory in self._made.directories:
            if directory in self._inherited and any(_touch(directory, path) for path in mounted):
                _log.warning("%s stays: a container has it mounted by now", directory)
            else:
                shutil.rmtree(directory, ignore_errors=True)
        if self._made.directory is not None:
            with suppress(OSError):
                self._made.directory.rmdir()
        self.keep()

    def keep(self) -> None:
        """It is over: what is here now stays, whatever happens."""
        self._made = Made()
        self._record.unlink(missing_ok=True)


def _mounted() -> tuple[Path, ...]:
    """Return what the containers of this host have mounted, running or not."""
    containers = podman.inspect_all([item["Id"] for item in podman.listed()])
    return tuple(Path(mount["Source"]) for item in containers for mount in item["Mounts"] if mount.get("Source"))


def _touch(one: Path, other: Path) -> bool:
    """Say whether one of two directories lies in the other."""
    return one.is_relative_to(other) or other.is_relative_to(one)


def _read(record: Path) -> Made:
    try:
        return Made.model_validate_json(record.read_bytes())
    except FileNotFoundError:
        return Made()
    except (OSError, ValidationError) as error:
        _log.warning("%s is not understood, and what it tells of stays: %s", record, error)
        return Made()


def waiting_volumes(container: ContainerFacts) -> list[VolumeMount]:
    """Return the volumes that may be copied to a target long before their container comes."""
    named = {mount.name: mount for mount in container.volumes if mount.kind == "volume" and not mount.binds}
    return [mount for mount in named.values() if mount.treatment is Treatment.COPY]


def trees(container: ContainerFacts, treatment: Treatment) -> list[Tree]:
    """Return the trees of a running container's mounts that are treated so."""
    return [Tree(name, Path(mount.path)) for name, mount in _named(container) if mount.treatment is treatment]


def _named(container: ContainerFacts) -> Iterator[tuple[str, VolumeMount]]:
    """Return the mounts whose files go along, each once, by the names of their trees."""
    seen: set[str] = set()
    for number, mount in enumerate(container.volumes):
        name = f"{BIND}{number}" if mount.kind == "bind" else VOLUME + mount.name
        if mount.treatment in (Treatment.COPY, Treatment.COPY_LATE) and mount.path not in seen:
            seen.add(mount.path)
            yield name, mount
