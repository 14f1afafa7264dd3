"""What a container is made of: podman's description and the kernel's view of its processes, as `ContainerFacts`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from migrator.container import mounts, quadlet
from migrator.container.ipc import shared_objects
from migrator.container.memory import limit_of, memory_of, outgrown
from migrator.container.obstacles import Surroundings, obstacles
from migrator.container.pods import PodHere, carried, pod_of
from migrator.container.processes import held_descriptors, neighbours
from migrator.container.rules import StorageRules
from migrator.container.sockets import connections_out
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.model import ContainerFacts, NetworkAttachment, QuadletUnit, VolumeMount
from migrator.network.namespace import interfaces
from migrator.runtime import podman
from migrator.runtime.cgroup import Cgroup
from migrator.settings import MigratorSettings
from migrator.words import UNIT_LABEL


@dataclass(frozen=True)
class Others:
    """What podman's description of one container does not tell: the networks and volumes, and who uses these."""

    drivers: Mapping[str, str]  # of networks, by name
    volumes: Mapping[str, Mapping[str, Any]]  # descriptions by name
    users: Mapping[str, tuple[str, ...]]  # volume -> ids of the running containers that use it
    pods: Mapping[str, PodHere] = field(default_factory=dict)  # by id; not those of which a member moves


def named_volumes(inspected: Mapping[str, Any]) -> set[str]:
    """Return the names of the volumes that a container mounts."""
    return {mount["Name"] for mount in inspected["Mounts"] if mount["Type"] == "volume"}


def describe(inspected: Mapping[str, Any], settings: MigratorSettings, others: Others) -> ContainerFacts:
    """Return what is known of a container, by podman's description of it."""
    pid = int(inspected["State"]["Pid"])
    pids = _pids(pid)
    labels = inspected["Config"].get("Labels") or {}
    here = others.pods.get(inspected.get("Pod") or "")
    pod, stays = pod_of(here) if here is not None else (None, ())
    # The network of a pod is that of its infra container.
    outward = here.infra if here is not None and here.infra else inspected
    rules = StorageRules.of(settings, labels)
    memory = memory_of(pids)
    facts = ContainerFacts(
        id=inspected["Id"],
        name=inspected["Name"],
        image=inspected["ImageName"],
        image_id=inspected["Image"],
        runtime=Path(inspected["OCIRuntime"]).name,
        running=bool(inspected["State"]["Running"]),
        memory_bytes=memory.sent,
        pod=pod,
        networks=attachments(outward, others.drivers, pid),
        volumes=tuple(_volume(mount, rules, others.volumes) for mount in inspected["Mounts"]),
        labels=labels,
        published_ports=_published(outward),
        secrets=tuple(item["Name"] for item in inspected["Config"].get("Secrets") or ()),
        devices=tuple(device["PathOnHost"] for device in inspected["HostConfig"].get("Devices") or ()),
        log_driver=(inspected["HostConfig"].get("LogConfig") or {}).get("Type", ""),
        pod_infra=bool(inspected.get("IsInfra")),
        health_interval=_health_interval(inspected),
        image_bytes=_image_bytes(inspected["Image"]),
    )
    cgroup = _cgroup(pid)
    unit, unit_stays = _unit(cgroup, labels)
    facts = facts.model_copy(update={"quadlet": unit, "volumes": carried(facts, others.users)})
    surroundings = Surroundings(
        cgroup=cgroup,
        unit_stays=unit_stays,
        held=(*held_descriptors(pids), *connections_out(lambda: _pids(pid))) if facts.running else (),
        neighbours=neighbours(pid, fellows=(pod.infra, *pod.members) if pod else ()) if facts.running else (),
        pod_stays=stays,
        shared_objects=_shared_objects(pid) if pod is not None and "ipc" in pod.shares and facts.running else (),
        outgrown=outgrown(memory, limit_of(inspected, cgroup)),
        volume_users={mount.name: others.users.get(mount.name, ()) for mount in facts.volumes if mount.name},
    )
    return facts.model_copy(update={"obstacles": obstacles(facts, inspected, surroundings)})


def _shared_objects(pid: int) -> tuple[str, ...]:
    try:
        return tuple(shared_objects(pid))
    except (LifeboatError, OSError):
        return ()  # it ended meanwhile


def _pids(pid: int) -> tuple[int, ...]:
    try:
        return Cgroup.of_process(pid).pids()
    except LifeboatError:
        return ()


def _cgroup(pid: int) -> str:
    try:
        return str(Cgroup.of_process(pid).path)
    except LifeboatError:
        return ""


def _unit(cgroup: str, labels: Mapping[str, str]) -> tuple[QuadletUnit | None, str]:
    """Return the unit in whose cgroup a container lives, or why it cannot move along."""
    if "/libpod-payload-" not in cgroup:
        return None, ""
    try:
        return quadlet.read(labels.get(UNIT_LABEL, "")), ""
    except PrerequisiteError as error:
        return None, error.message


def attachments(
    inspected: Mapping[str, Any], drivers: Mapping[str, str], pid: int
) -> tuple[NetworkAttachment, ...]:
    """Return the networks of a container whose first process is `pid`."""
    networks = {
        name: network
        for name, network in (inspected["NetworkSettings"].get("Networks") or {}).items()
        if name in drivers  # host and none are not networks that could be moved
    }
    names = _interfaces(pid) if len(networks) > 1 else {}
    found = []
    for name, network in networks.items():
        pairs = [
            (network.get("IPAddress"), network.get("IPPrefixLen")),
            (network.get("GlobalIPv6Address"), network.get("GlobalIPv6PrefixLen")),
        ]
        found.append(
            NetworkAttachment(
                network=name,
                driver=drivers[name],
                interface=names.get(network["MacAddress"], "eth0"),
                mac=network["MacAddress"],
                addresses=tuple(f"{address}/{length}" for address, length in pairs if address),
            )
        )
    return tuple(found)


def _interfaces(pid: int) -> dict[str, str]:
    """Return MAC address -> interface in a container, for podman's description does not tell which is which."""
    with suppress(OSError):  # it ended meanwhile
        return interfaces(Path(f"/proc/{pid}/ns/net"))
    return {}


def _volume(mount: Mapping[str, Any], rules: StorageRules, volumes: Mapping[str, Mapping[str, Any]]) -> VolumeMount:
    kind, source = mount["Type"], mount["Source"]
    described = volumes.get(mount["Name"], {}) if kind == "volume" else {}
    volume = VolumeMount(
        kind=kind,
        name=mount.get("Name", ""),
        source=source,
        destination=mount["Destination"],
        writable=bool(mount["RW"]),
        driver=described.get("Driver", ""),
        options=described.get("Options") or {},
        labels=described.get("Labels") or {},
    )
    return mounts.judged(volume, rules)


def _published(inspected: Mapping[str, Any]) -> tuple[int, ...]:
    ports = inspected["HostConfig"].get("PortBindings") or {}
    return tuple(int(binding["HostPort"]) for bindings in ports.values() for binding in bindings or ())


def _health_interval(inspected: Mapping[str, Any]) -> str:
    """Return the interval of the health check as podman's command line takes it, empty when there is none."""
    check = inspected["Config"].get("Healthcheck") or {}
    test = check.get("Test") or []
    if not test or test[0] == "NONE":
        return ""
    return f"{int(check.get('Interval') or 0) // 1_000_000}ms" if check.get("Interval") else ""


known_image_bytes = lru_cache(maxsize=256)(podman.image_bytes)
"""An image never changes, so it is asked for once; a failure is not remembered."""


def _image_bytes(image: str) -> int:
    try:
        return known_image_bytes(image)
    except LifeboatError:
        return 0
