"""Looks at this host for what incoming containers need; everything is read once, when it is first asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from migrator.container import mounts, quadlet
from migrator.container.fit import Here, PathHere, Remains, UnitHere, VolumeHere, refusals
from migrator.errors import PrerequisiteError
from migrator.host import hardware
from migrator.model import ContainerFacts, NetworkFacts, QuadletUnit
from migrator.network.namespace import addresses
from migrator.runtime import podman, tombstone
from migrator.runtime.pods import has_pod
from migrator.settings import BindMounts
from migrator.target.hall import Hall
from migrator.target.staging import staged_volumes

NAMESPACES = Path("/run/netns")
STORAGE = Path("/var/lib/containers")


class Look:
    """One look at this host, for any number of containers."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    def here(self, container: ContainerFacts) -> Here:
        """Return what this host is for a container; whether its name is taken is not looked at."""
        storage = os.statvfs(STORAGE if STORAGE.exists() else Path("/"))
        names = [mount.name for mount in container.volumes if mount.name]
        binds = [mount for mount in container.volumes if mount.binds]
        return Here(
            host=self._hall.host,
            has_image=container.image_id in self._images,
            secrets=self._secrets if container.secrets else frozenset(),
            ports=frozenset(hardware.listening_ports()) if container.published_ports else frozenset(),
            addresses=self._addresses if container.networks else frozenset(),
            networks=self._networks if container.networks else (),
            volumes={name: found for name in names if (found := self._volume(name, container))},
            paths={mount.path: _path(Path(mount.path), compared=bool(mount.digest)) for mount in binds},
            mounted=mounts.parse(mounts.MOUNTINFO.read_text()) if binds else (),
            remains=remains(self._hall.state, container),
            unit=_unit(container.quadlet) if container.quadlet else UnitHere(),
            privileged=self._hall.settings.accept_privileged,
            sync=self._hall.settings.bind_mounts is BindMounts.SYNC,
            shared_paths=self._hall.settings.shared_paths,
            storage_free_bytes=storage.f_bavail * storage.f_frsize,
        )

    @cached_property
    def _images(self) -> frozenset[str]:
        return frozenset(podman.image_ids())

    @cached_property
    def _secrets(self) -> frozenset[str]:
        return frozenset(podman.secret_names())

    @cached_property
    def _networks(self) -> tuple[NetworkFacts, ...]:
        return podman.networks()

    @cached_property
    def _volumes(self) -> frozenset[str]:
        return frozenset(podman.volume_names())

    @cached_property
    def _waiting(self) -> Mapping[str, str]:
        return staged_volumes(self._hall.state)

    def _volume(self, name: str, container: ContainerFacts) -> VolumeHere | None:
        if name not in self._volumes:
            return None
        described = podman.inspect_volume(name)
        fellows = container.pod.members if container.pod is not None else ()  # one may have come a moment before it
        in_use = bool(set(self._hall.known.volume_users(name)) - set(fellows))
        taken = self._waiting.get(name, container.id) != container.id or _has_files(Path(described["Mountpoint"]))
        return VolumeHere(described["Options"] or {}, taken, in_use)

    @cached_property
    def _addresses(self) -> frozenset[str]:
        return frozenset(taken_addresses())


def require_fit(hall: Hall, container: ContainerFacts, *, copy_image: bool) -> bool:
    """Raise `PrerequisiteError` with every reason why this host cannot take the container now.

    Returns whether its image has to come as well, which only happens with `copy_image`.
    """
    host = hall.host
    if podman.has_container(container.name) or podman.has_container(container.id):
        raise PrerequisiteError(
            f"{host} already has a container named {container.name}",
            code="target-name-taken",
            hint=f"remove it there: podman rm {container.name}",
        )
    if container.pod is not None and has_pod(container.pod.name):
        raise PrerequisiteError(
            f"{host} already has a pod named {container.pod.name}",
            code="target-name-taken",
            hint=f"remove it there: podman pod rm {container.pod.name}",
        )
    here = Look(hall).here(container)
    if found := refusals(container, here):
        why = "; ".join(item.reason for item in found)
        raise PrerequisiteError(f"{host} cannot take {container.name}: {why}", code=found[0].code)
    if not here.has_image and not copy_image:
        raise PrerequisiteError(
            f"{host} lacks the image {container.image}",
            code="target-lacks-image",
            hint="load it there, or set migrator.copy_images = true",
        )
    return not here.has_image


def remains(state: Path, container: ContainerFacts) -> Remains:
    """Return what this container left here when it went, by its tombstone, and what waits here for it.

    A unit makes its container anew whenever it starts, so one of the same unit is the same to an admin.
    """
    waiting = frozenset(name for name, owner in staged_volumes(state).items() if owner == container.id)
    story = tombstone.read(state, container.name)
    same_unit = container.quadlet is not None and story.get("unit") == container.quadlet.unit
    if story.get("id") != container.id and not same_unit:
        return Remains(waiting)
    return Remains(waiting | frozenset(story.get("volumes", ())), frozenset(story.get("paths", ())))


def taken_addresses() -> Iterator[str]:
    """Return the addresses in all named network namespaces of this host: podman names those of its containers.

    Asking podman would wait for the lock of a container that is just coming.
    """
    for namespace in sorted(NAMESPACES.iterdir()) if NAMESPACES.is_dir() else ():
        with suppress(OSError):  # its container ended meanwhile
            yield from addresses(namespace)


def _unit(unit: QuadletUnit) -> UnitHere:
    found = {file.name: path for file in unit.files if (path := quadlet.find(file.name))}
    texts = {name: path.read_text(errors="replace") for name, path in found.items()}
    return UnitHere(quadlet.source_of(unit.unit), texts)


def _path(path: Path, *, compared: bool) -> PathHere:
    return PathHere(path.exists(), _has_files(path), mounts.digest(path) if compared else "")


def _has_files(path: Path) -> bool:
    try:
        return path.is_dir() and any(path.iterdir())
    except OSError:
        return False
