"""Pods: what they are made of, and what keeps one from moving. All members of a pod move together, or none does.

What a pod has beside its members is in its infra container, which holds the namespaces they share. At a target it
is made anew from these facts, so whatever they do not tell is refused. Values in, values out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from migrator.choice.labels import wishes
from migrator.model import (
    ContainerFacts,
    Method,
    Obstacle,
    PodFacts,
    PublishedPort,
    Treatment,
    VolumeMount,
)
from migrator.words import UNIT_LABEL

LEFT_OUT = ("NoManageResolvConf", "NoManageHostname", "NoManageHosts", "HostsFile", "NetworkOptions")
"""Of `InfraConfig` (libpod/define, InspectPodInfraConfig): what is not made again."""

SHARED = frozenset({"ipc", "net", "uts"})
OWN_IMAGE = "localhost/podman-pause:"  # podman makes it itself, on every host
OWN_SYSCTLS = frozenset({"net.ipv4.ping_group_range"})  # podman's default (containers-common, default_sysctls)

KNOWN = frozenset(
    {
        "Id", "Name", "Namespace", "Created", "CreateCommand", "ExitPolicy", "State", "Hostname", "Labels",
        "CreateCgroup", "CgroupParent", "CgroupPath", "CreateInfra", "InfraContainerID", "InfraConfig",
        "SharedNamespaces", "NumContainers", "Containers", "LockNumber", "RestartPolicy",
    }
)  # fmt: skip  # a table
"""What `podman pod inspect` tells of every pod (libpod/define, InspectPodData); the rest is limits and mounts."""


@dataclass(frozen=True)
class PodHere:
    """A pod of this host, as podman describes it."""

    pod: Mapping[str, Any]
    infra: Mapping[str, Any]  # its infra container; empty when it has none
    sysctls: tuple[str, ...] = ()  # of the infra container


def facts_of(here: PodHere) -> PodFacts:
    """Return what a target makes the pod of; raises pydantic's `ValidationError` where it could not."""
    host_config = here.infra["HostConfig"]
    return PodFacts(
        id=here.pod["Id"],
        infra=here.infra["Id"],
        name=here.pod["Name"],
        members=tuple(sorted(item["Id"] for item in _members(here))),
        hostname=here.infra["Config"]["Hostname"],
        shares=tuple(sorted(here.pod.get("SharedNamespaces") or ())),
        ports=tuple(_ports(host_config.get("PortBindings") or {})),
        labels=here.pod.get("Labels") or {},
        exit_policy=here.pod.get("ExitPolicy") or "continue",
        shared_memory_bytes=int(host_config.get("ShmSize") or 0),
        dns_servers=tuple(host_config.get("Dns") or ()),
        dns_search=tuple(host_config.get("DnsSearch") or ()),
        dns_options=tuple(host_config.get("DnsOptions") or ()),
        hosts=tuple(host_config.get("ExtraHosts") or ()),
    )


def _members(here: PodHere) -> list[Mapping[str, Any]]:
    return [item for item in here.pod.get("Containers") or () if item["Id"] != here.pod.get("InfraContainerID")]


def _ports(bindings: Mapping[str, Any]) -> Iterator[PublishedPort]:
    for inside, outside in bindings.items():
        number, _, protocol = inside.partition("/")
        for binding in outside or ():
            host = binding.get("HostIp", "")
            said = {
                "host_port": binding["HostPort"],
                "container_port": number,
                "protocol": protocol or "tcp",
                "host_address": "" if host in ("0.0.0.0", "::") else host,  # noqa: S104  what podman says for any
            }
            yield PublishedPort.model_validate(said)


def pod_of(here: PodHere) -> tuple[PodFacts | None, tuple[Obstacle, ...]]:
    """Return what is known of a pod, and every reason why it cannot move, which is one for all its members."""
    found = [Obstacle(code=code, reason=reason, methods=tuple(Method)) for code, reason in _reasons(here)]
    cold = "belongs to a pod, and the cold rung makes containers anew one by one"
    found.append(Obstacle(code="in-pod", reason=cold, methods=(Method.COLD,)))
    try:
        return (facts_of(here) if here.infra else None), tuple(found)
    except (ValidationError, ValueError, KeyError) as error:
        reason = f"its pod {here.pod['Name']} cannot be described to another host: {' '.join(str(error).split())}"
        return None, (*found, Obstacle(code="pod-settings", reason=reason[:500], methods=tuple(Method)))


def _reasons(here: PodHere) -> Iterator[tuple[str, str]]:
    name = here.pod["Name"]
    if not here.infra:
        yield "pod-infra", f"its pod {name} has no infra container"
        return
    yield from _namespaces(here, name)
    for item in _members(here):
        if item["State"] != "running":
            yield "pod-member-stopped", f"{item['Name']} of its pod {name} is {item['State']}, not running"
    if any(UNIT_LABEL in (labels or {}) for labels in (here.pod.get("Labels"), here.infra["Config"].get("Labels"))):
        yield "pod-of-unit", f"its pod {name} is started by a systemd unit, which does not move along"
    if not here.infra.get("ImageName", "").startswith(OWN_IMAGE) and not here.infra.get("Rootfs"):
        yield "pod-infra", f"its pod {name} has an infra image of its own: {here.infra.get('ImageName', '')}"
    said = sorted(key for key, value in here.pod.items() if key not in KNOWN and value)
    own = here.pod.get("InfraConfig") or {}
    said += [key for key in LEFT_OUT if own.get(key)]
    said += sorted(set(here.sysctls) - OWN_SYSCTLS)
    said += [f"mount at {item['Destination']}" for item in here.infra.get("Mounts") or ()]
    if said:
        yield "pod-settings", f"its pod {name} has settings that would not move along: {', '.join(said)}"


def _namespaces(here: PodHere, name: str) -> Iterator[tuple[str, str]]:
    shared = frozenset(here.pod.get("SharedNamespaces") or ())
    if foreign := sorted(shared - SHARED):
        yield "pod-namespaces", f"the members of its pod {name} share their {' and '.join(foreign)} namespace"
    if "net" not in shared:
        yield "pod-namespaces", f"the members of its pod {name} do not share their network"
    host_config = here.infra["HostConfig"]
    for kind, what in (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc"), ("UTSMode", "uts")):
        if host_config.get(kind) == "host":
            yield f"host-{what}", f"its pod {name} shares the host's {what} namespace"
    if host_config.get("UsernsMode"):
        yield "pod-namespaces", f"its pod {name} has a user namespace of its own"


def carried(container: ContainerFacts, users: Mapping[str, Sequence[str]]) -> tuple[VolumeMount, ...]:
    """Return the mounts of a container; a volume that members of its pod share is carried by the first of them.

    `users` are the ids of the containers that use a volume. For the others it is at the target when they come.
    """
    members = container.pod.members if container.pod is not None else ()

    def mine(mount: VolumeMount) -> bool:
        sharing = [member for member in members if member in users.get(mount.name, ())]
        return mount.kind != "volume" or mount.binds or not sharing or container.id == sharing[0]

    moving = (Treatment.COPY, Treatment.COPY_LATE)
    return tuple(
        mount
        if mine(mount) or mount.treatment not in moving
        else mount.model_copy(update={"treatment": Treatment.LEAVE})
        for mount in container.volumes
    )


def with_fellows(containers: Sequence[ContainerFacts]) -> list[ContainerFacts]:
    """Add to every member of a pod what keeps another one of it here."""
    pods: dict[str, list[ContainerFacts]] = {}
    for container in containers:
        if container.pod is not None:
            pods.setdefault(container.pod.id, []).append(container)
    return [
        item.model_copy(update={"obstacles": (*item.obstacles, *_because_of(item, pods[item.pod.id]))})
        if item.pod is not None
        else item
        for item in containers
    ]


def _because_of(container: ContainerFacts, members: Sequence[ContainerFacts]) -> Iterator[Obstacle]:
    known = {item.reason for item in container.obstacles}
    pod = container.pod.name if container.pod is not None else ""
    for fellow in members:
        if fellow.id == container.id:
            continue
        for path in sorted(_synced(fellow) & _synced(container)):
            reason = f"the directory {path} would be copied for {fellow.name} of its pod {pod}, too"
            yield Obstacle(code="volume-in-use", reason=reason, methods=tuple(Method))
        if wishes(fellow.labels).stays and not wishes(container.labels).stays:
            reason = f"{fellow.name} of its pod {pod} stays: its label says so (lifeboat.evacuate)"
            yield Obstacle(code="pod-member-stays", reason=reason, methods=tuple(Method))
        own = [
            item.reason
            for item in fellow.obstacles
            if item.reason not in known and set(item.methods) != {Method.COLD}
        ]
        if own and {Method.LAZY, Method.FULL} <= set(fellow.unsupported):
            reason = f"{fellow.name} of its pod {pod} cannot move: {'; '.join(own)}"
            yield Obstacle(code="pod-member-stays", reason=reason, methods=tuple(Method))


def _synced(container: ContainerFacts) -> set[str]:
    return {mount.path for mount in container.volumes if mount.binds and mount.treatment is Treatment.COPY}
