"""What keeps a container from moving, wherever it were to go. Values in, values out.

Everything that is named here was tried on real containers, or is something that podman, runc or CRIU refuse in
words; what cannot be seen beforehand is found by CRIU itself, and the container goes on where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from migrator.container.processes import Held, Neighbour
from migrator.model import ContainerFacts, Method, Obstacle, Treatment
from migrator.words import UNIT_LABEL

HARMLESS_DEVICES = frozenset(("/dev/fuse", "/dev/net/tun", "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"))
"""Devices of the kernel itself: as long as nobody has them open, one host's are as good as another's."""


@dataclass(frozen=True)
class Surroundings:
    """What podman's description does not tell: the kernel's view, and other containers."""

    cgroup: str = ""
    unit_stays: str = ""  # why its unit, in whose cgroup it lives, cannot move along
    held: tuple[Held, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    volume_users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # volume -> ids of running containers
    pod_stays: tuple[Obstacle, ...] = ()  # why its pod cannot move
    outgrown: str = ""  # why its memory limit does not hold what its processes come to by the lazy rung
    shared_objects: tuple[str, ...] = ()  # in the IPC namespace of its pod, in words


def obstacles(
    facts: ContainerFacts, inspected: Mapping[str, Any], surroundings: Surroundings
) -> tuple[Obstacle, ...]:
    """Return every obstacle; empty when the container can take every rung."""
    found = list(_runtime(facts))
    found += _namespaces(facts, inspected, surroundings)
    found += _pod(facts, inspected, surroundings)
    found += _devices(facts)
    found += _mounts(facts, surroundings)
    if surroundings.outgrown:
        found.append(Obstacle(code="memory-limit", reason=surroundings.outgrown, methods=(Method.LAZY,)))
    found += (
        Obstacle(code="not-dumpable", reason=f"process {held.pid} ({held.program}) {held.what}")
        for held in surroundings.held
    )
    return tuple(found)


def _runtime(facts: ContainerFacts) -> Iterator[Obstacle]:
    if facts.runtime not in ("runc", "crun"):
        yield Obstacle(code="runtime", reason=f"runtime {facts.runtime} cannot be checkpointed")
    elif facts.runtime != "runc":
        reason = f"created with {facts.runtime}; only runc restores with memory on demand"
        yield Obstacle(code="runtime-not-lazy", reason=reason, methods=(Method.LAZY,))


def _namespaces(
    facts: ContainerFacts, inspected: Mapping[str, Any], surroundings: Surroundings
) -> Iterator[Obstacle]:
    host_config, joined = inspected.get("HostConfig", {}), False
    for kind, what in (("NetworkMode", "network"), ("PidMode", "pid"), ("IpcMode", "ipc")):
        mode = str(host_config.get(kind, ""))
        if mode == "host":
            yield Obstacle(code=f"host-{what}", reason=f"shares the host's {what} namespace")
        elif mode.startswith(("container:", "ns:")) and not (
            inspected.get("Pod") and mode == f"container:{_infra(facts)}"
        ):
            joined = True
            yield Obstacle(
                code="joined-namespace",
                reason=f"lives in the {what} namespace of another ({mode})",
                methods=tuple(Method),
            )
    if surroundings.neighbours and not joined:
        other = surroundings.neighbours[0]
        yield Obstacle(
            code="shared-namespace",
            reason=f"process {other.pid} ({other.program}), not of this container, lives in its "
            f"{other.namespace} namespace",
        )
    if "/libpod-payload-" in surroundings.cgroup:
        yield _split(facts, surroundings.unit_stays)
    if facts.running and facts.id not in surroundings.cgroup:
        yield Obstacle(code="no-own-cgroup", reason="has no cgroup of its own that could be frozen")


def _infra(facts: ContainerFacts) -> str:
    return facts.pod.infra if facts.pod is not None else ""


def _pod(facts: ContainerFacts, inspected: Mapping[str, Any], surroundings: Surroundings) -> Iterator[Obstacle]:
    """Say what of its pod, or of its place in it, stands in the way."""
    if not inspected.get("Pod") or facts.pod_infra:
        return
    yield from surroundings.pod_stays
    if facts.pod is None:
        if not surroundings.pod_stays:
            yield Obstacle(code="in-pod", reason="belongs to a pod of which a member moves", methods=tuple(Method))
        return
    name = facts.pod.name
    if surroundings.shared_objects:
        what = " and ".join(surroundings.shared_objects)
        reason = f"the members of its pod {name} share {what}, which no dump of one of them holds"
        yield Obstacle(code="pod-ipc", reason=reason, methods=tuple(Method))
    if UNIT_LABEL in facts.labels:
        reason = f"is started by a systemd unit, and belongs to the pod {name}"
        yield Obstacle(code="pod-of-unit", reason=reason, methods=tuple(Method))
    if foreign := sorted(set(inspected.get("Dependencies") or ()) - {facts.pod.infra}):
        reason = f"needs the container {foreign[0][:12]} besides its pod {name}"
        yield Obstacle(code="pod-member-needs", reason=reason, methods=tuple(Method))


def _split(facts: ContainerFacts, unit_stays: str) -> Obstacle:
    """Say what a cgroup within that of a systemd unit (--cgroups=split, as Quadlet has it) stands in the way of."""
    if facts.quadlet is None:
        reason = f"has its cgroup in that of its unit (--cgroups=split), which cannot move along: {unit_stays}"
        return Obstacle(code="split-cgroup", reason=reason, methods=tuple(Method))
    reason = f"is started by {facts.quadlet.unit}, and the cold rung would make it anew beside that"
    return Obstacle(code="split-cgroup", reason=reason, methods=(Method.COLD,))


def _devices(facts: ContainerFacts) -> Iterator[Obstacle]:
    for device in facts.devices:
        if device not in HARMLESS_DEVICES:
            reason = f"uses the device {device}, which stays on this host"
            yield Obstacle(code="device", reason=reason, methods=tuple(Method))


def _mounts(facts: ContainerFacts, surroundings: Surroundings) -> Iterator[Obstacle]:
    for mount in facts.volumes:
        if mount.treatment is Treatment.REFUSE:
            yield Obstacle(code=f"{mount.kind}-mount", reason=mount.reason, methods=tuple(Method))
        together = {facts.id, *(facts.pod.members if facts.pod is not None else ())}
        others = [user for user in surroundings.volume_users.get(mount.name, ()) if user not in together]
        if others and mount.treatment in (Treatment.COPY, Treatment.COPY_LATE):
            yield Obstacle(
                code="volume-in-use",
                reason=f"volume {mount.name} is also used by the container {others[0][:12]}, which stays",
                methods=tuple(Method),
            )
