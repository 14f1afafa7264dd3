"""Volumes and directories of a container that is to come: made before its files, removed when it does not come."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from migrator.model import ContainerFacts, Treatment, VolumeMount
from migrator.runtime import podman
from migrator.storage.disks import mounted_below
from migrator.storage.sync import BIND, VOLUME, Tree


class Volumes:
    """What one incoming container brings besides its root; whether it fits is looked at before."""

    def __init__(self, container: ContainerFacts) -> None:
        self._mounts = container.volumes
        self._in_pod = container.pod is not None
        self._paths = dict(_named(container))
        self._created: list[str] = []
        self._directories: list[Path] = []

    def prepare(self) -> None:
        """Make those that are missing."""
        for mount in self._mounts:
            if mount.binds and mount.treatment is Treatment.COPY and not Path(mount.path).exists():
                Path(mount.path).mkdir(parents=True)
                self._directories.append(Path(mount.path))
            if mount.kind == "volume" and not (self._lent(mount) or podman.has_volume(mount.name)):
                podman.create_volume(mount.name, mount.options, mount.labels)
                self._created.append(mount.name)

    def _lent(self, mount: VolumeMount) -> bool:
        """Say whether another member of its pod brings a volume, which is then on no storage of both hosts."""
        return self._in_pod and mount.treatment is Treatment.LEAVE and not (mount.binds or mount.storage)

    def adopt(self, names: Iterable[str]) -> None:
        """Take volumes for made here that were made before, for this container."""
        self._created += names

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
        """Take away what was made here."""
        for name in self._created:
            podman.remove_volume(name)
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)


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
