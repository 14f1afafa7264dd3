"""Whether a container fits on a host as that host is now. Values in, values out.

A host answers this for itself: `migrator.container.here` looks, `lifeboat check` and the plan ask. It asks itself
again when it reserves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath

from migrator.admission.quadlet import unit_problems
from migrator.admission.rules import Terms
from migrator.container.mounts import SHARED_FILE_SYSTEMS, Mounted, shared_storage, within
from migrator.model import ContainerFacts, NetworkFacts, QuadletUnit, Rejection, Treatment, VolumeMount

HEADROOM_BYTES = 1 << 30
"""Of each file system; below this podman itself begins to fail."""

IMAGE_COPIES = 2  # `podman load` unpacks into a temporary directory before it stores
OPTIONS = ("type", "device", "o")


@dataclass(frozen=True)
class VolumeHere:
    """A named volume of this host."""

    options: Mapping[str, str]
    has_files: bool
    in_use: bool  # by a running container


@dataclass(frozen=True)
class PathHere:
    """What lies at a path of this host."""

    exists: bool
    has_files: bool = False  # a directory that is not empty
    digest: str = ""


@dataclass(frozen=True)
class UnitHere:
    """What this host has of the systemd unit that an incoming container lives in."""

    source: str = ""  # of what the unit is made; empty when there is none
    files: Mapping[str, str] = field(default_factory=dict)  # Quadlet's, of the names that would come


@dataclass(frozen=True)
class Remains:
    """What a container left here when it went away, or what waits here for it: it may take that."""

    volumes: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Here:
    """This host, as far as one container is concerned."""

    host: str
    has_image: bool = True
    secrets: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()  # taken
    addresses: frozenset[str] = frozenset()  # of containers here, without prefix length
    networks: tuple[NetworkFacts, ...] = ()
    volumes: Mapping[str, VolumeHere] = field(default_factory=dict)
    paths: Mapping[str, PathHere] = field(default_factory=dict)
    mounted: tuple[Mounted, ...] = ()
    remains: Remains = Remains()
    unit: UnitHere = UnitHere()
    privileged: bool = False  # migrator.accept_privileged
    sync: bool = False  # migrator.bind_mounts
    shared_paths: tuple[str, ...] = ()
    storage_free_bytes: int = 1 << 62  # where podman keeps images, layers and volumes


def refusals(container: ContainerFacts, here: Here) -> tuple[Rejection, ...]:
    """Return every reason why this host cannot take the container now; empty when it can."""
    found = [
        *_secrets(container, here),
        *_ports(container, here),
        *_addresses(container, here),
    ]
    for mount in container.volumes:
        found += _binds(mount, here) if mount.binds else _volume(mount, here)
    if container.quadlet is not None:
        found += _unit(container, container.quadlet, here)
    found += _space(container, here)
    return tuple(Rejection(host=here.host, code=code, reason=reason) for code, reason in dict(found).items())


Reason = tuple[str, str]


def _secrets(container: ContainerFacts, here: Here) -> Iterator[Reason]:
    missing = sorted(set(container.secrets) - here.secrets)
    if missing:
        yield "target-lacks-secret", f"it has no podman secret {', '.join(missing)}"


def _ports(container: ContainerFacts, here: Here) -> Iterator[Reason]:
    for port in container.published_ports:
        if port in here.ports:
            yield "target-port-taken", f"its port {port} is in use"


def _addresses(container: ContainerFacts, here: Here) -> Iterator[Reason]:
    subnets = {network.name: [ipaddress.ip_network(item) for item in network.subnets] for network in here.networks}
    for attachment in container.networks:
        for text in attachment.addresses:
            address = ipaddress.ip_interface(text).ip
            if str(address) in here.addresses:
                yield "target-address-taken", f"a container there has the address {address}"
            known = subnets.get(attachment.network)
            if known and not any(address in subnet for subnet in known):
                yield "target-subnet-differs", f"{address} is not in its network {attachment.network}"


def _volume(mount: VolumeMount, here: Here) -> Iterator[Reason]:
    yield from _offered(mount)
    found = here.volumes.get(mount.name)
    if found is None or mount.treatment is Treatment.REFUSE:
        return
    if any(found.options.get(option, "") != mount.options.get(option, "") for option in OPTIONS):
        yield "target-volume-differs", f"its volume {mount.name} has other options"
    elif mount.treatment is Treatment.LEAVE:
        return
    elif found.in_use:
        yield "target-volume-in-use", f"a container there uses its volume {mount.name}"
    elif found.has_files and mount.name not in here.remains.volumes:
        yield (
            "target-volume-taken",
            f"it has a volume {mount.name} with files in it; if they are not needed: podman volume rm {mount.name}",
        )


def _offered(mount: VolumeMount) -> Iterator[Reason]:
    """What a peer calls a volume must not be something else of this host."""
    kind = mount.options.get("type", "none")
    if mount.driver not in ("", "local") or (
        "device" in mount.options and not mount.binds and kind not in ("tmpfs", *SHARED_FILE_SYSTEMS)
    ):
        yield "target-refuses-volume", f"volume {mount.name} is a {mount.driver or kind} of the source's own"


def _binds(mount: VolumeMount, here: Here) -> Iterator[Reason]:
    found = here.paths.get(mount.path, PathHere(exists=False))
    if mount.treatment is Treatment.LEAVE:
        there = shared_storage(mount.path, here.mounted)
        if not mount.storage and not any(within(mount.path, path) for path in here.shared_paths):
            yield "target-lacks-mount", f"{mount.path} is not among migrator.shared_paths there"
        elif mount.storage not in ("", there):
            yield "target-storage-differs", f"{mount.path} is {there or 'local'} there and {mount.storage} here"
        elif not found.exists:
            yield "target-lacks-path", f"{mount.path} is not there"
    elif mount.treatment is Treatment.COMPARE and (not found.digest or found.digest != mount.digest):
        what = "has another content there" if found.exists else "is not there"
        yield "target-file-differs", f"{mount.path}, which is mounted into it, {what}"
    elif mount.treatment is Treatment.COPY and not here.sync:
        yield "target-refuses-bind", f"its migrator.bind_mounts is not sync, and {mount.path} would be copied there"
    elif mount.treatment is Treatment.COPY and found.has_files and mount.path not in here.remains.paths:
        yield "target-path-taken", f"{mount.path} has files of its own there"


def _unit(container: ContainerFacts, unit: QuadletUnit, here: Here) -> Iterator[Reason]:
    """Its unit comes along, if that is no other one's here, and does no more than its container may."""
    main = unit.files[0].name
    if here.unit.source and PurePath(here.unit.source).name != main:
        yield "target-unit-taken", f"its unit {unit.unit} is made of {here.unit.source}"
    for file in unit.files:
        if here.unit.files.get(file.name, file.text) != file.text:
            yield "target-unit-differs", f"it has another {file.name}"
    terms = Terms(here.privileged, here.shared_paths, sync=here.sync)
    if problems := list(unit_problems(unit, container, terms, here.unit.files)):
        yield (
            "target-refuses-unit",
            f"it takes no unit that says {'; '.join(problems)} (migrator.accept_privileged)",
        )


def _space(container: ContainerFacts, here: Here) -> Iterator[Reason]:
    needed = container.disk_bytes + (0 if here.has_image else IMAGE_COPIES * container.image_bytes)
    if needed + HEADROOM_BYTES > here.storage_free_bytes:
        free = max(0, here.storage_free_bytes - HEADROOM_BYTES)
        yield (
            "target-lacks-disk",
            f"{needed >> 20} MiB of disk are needed, {free >> 20} MiB are free there (1 GiB kept back)",
        )
