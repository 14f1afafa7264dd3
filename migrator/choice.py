"""Which host can take a container, and which of those takes it best. Values in, values out.

Every filter gives its reason, so that `lifeboat check` and a plan can say why a host was not chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from migrator.health import Verdict
from migrator.model import ContainerFacts, HostFacts, Method, Rejection

MEMORY_WEIGHT, LOAD_WEIGHT, IMAGE_BONUS = 1.0, 0.5, 0.25
"""Free memory counts most, for a full host hurts every container on it; a present image saves a copy."""

DISK_HEADROOM_BYTES = 1 << 30  # below this podman itself begins to fail

Filter = Callable[[ContainerFacts, HostFacts, HostFacts, Method], tuple[str, str] | None]


@dataclass(frozen=True)
class Choice:
    """The chosen target, or None, and why the others were not."""

    target: str | None
    rejections: tuple[Rejection, ...]
    reason: str


def reject(
    container: ContainerFacts,
    source: HostFacts,
    target: HostFacts,
    method: Method,
    *,
    headroom_percent: float = 10.0,
) -> tuple[Rejection, ...]:
    """Return every reason why `target` cannot take `container`; empty when it can."""
    found = [check(container, source, target, method) for check in FILTERS]
    found.append(_memory(container, target, headroom_percent))
    return tuple(Rejection(host=target.host, code=code, reason=reason) for code, reason in filter(None, found))


def choose(
    container: ContainerFacts,
    source: HostFacts,
    targets: Sequence[HostFacts],
    method: Method,
    *,
    headroom_percent: float = 10.0,
) -> Choice:
    """Choose the best of the hosts that can take the container; of equals the first by name."""
    rejections: list[Rejection] = []
    able: list[HostFacts] = []
    for target in targets:
        reasons = reject(container, source, target, method, headroom_percent=headroom_percent)
        rejections += reasons
        if not reasons:
            able.append(target)
    if not able:
        why = "; ".join(f"{item.host}: {item.reason}" for item in rejections)
        return Choice(None, tuple(rejections), why or "there is no other host in the cluster")
    best = min(able, key=lambda target: (-score(container, target), target.host))
    free = free_bytes(best) - container.memory_bytes
    return Choice(best.host, tuple(rejections), f"{free >> 20} MiB stay free there, load {best.load:.2f}")


def score(container: ContainerFacts, target: HostFacts) -> float:
    """Return how well a container fits a host; more is better."""
    free = (free_bytes(target) - container.memory_bytes) / target.memory_bytes
    image = IMAGE_BONUS if container.image_id in target.image_ids else 0.0
    return MEMORY_WEIGHT * free - LOAD_WEIGHT * target.load + image


def free_bytes(target: HostFacts) -> int:
    """Return the memory of a host that nobody uses and nobody was promised."""
    return target.memory_available_bytes - target.reserved_bytes


def _health(_c: ContainerFacts, _s: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    if target.verdict is not Verdict.HEALTHY:
        return "target-unhealthy", f"its own verdict is {target.verdict}"
    return ("target-cordoned", "it is cordoned") if target.cordoned else None


def _same_host(_c: ContainerFacts, source: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    return ("same-host", "it is the source") if source.host == target.host else None


def _cpu(_c: ContainerFacts, source: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    """A process may use any flag of the processor it was started on; CRIU compares them too."""
    if target.architecture != source.architecture:
        return "target-architecture", f"it is {target.architecture}, not {source.architecture}"
    missing = sorted(set(source.cpu_flags) - set(target.cpu_flags))
    if missing:
        return "target-lacks-cpu-flags", f"its processor lacks {', '.join(missing[:5])}"
    return None


def _software(_c: ContainerFacts, source: HostFacts, target: HostFacts, method: Method) -> tuple[str, str] | None:
    """CRIU's page protocol changed between 4.1 and 4.2, and its images are only read by the same or newer."""
    if not target.podman:
        return "target-lacks-podman", "podman is not installed there"
    for name, found in (("runc", target.runc), ("CRIU", target.criu)):
        if not found:
            return f"target-lacks-{name.lower()}", f"{name} is not installed there"
    ours, theirs = _release(source.criu), _release(target.criu)
    if theirs < ours or (method is Method.LAZY and theirs != ours):
        return "target-criu-differs", f"CRIU {target.criu} there, {source.criu} here"
    return None


def _networks(container: ContainerFacts, _s: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    there = {network.name: network for network in target.networks}
    for attachment in container.networks:
        network = there.get(attachment.network)
        if network is None:
            return "target-lacks-network", f"it has no podman network {attachment.network}"
        if network.driver != attachment.driver:
            return (
                "target-network-differs",
                f"its network {network.name} is {network.driver}, not {attachment.driver}",
            )
    return None


def _name(container: ContainerFacts, _s: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    if container.name in target.container_names:
        return "target-name-taken", f"it has a container named {container.name} already"
    return None


def _disk(_c: ContainerFacts, _s: HostFacts, target: HostFacts, _m: Method) -> tuple[str, str] | None:
    if target.disk_available_bytes < DISK_HEADROOM_BYTES:
        return "target-lacks-disk", f"only {target.disk_available_bytes >> 20} MiB of disk are free there"
    return None


FILTERS: tuple[Filter, ...] = (_same_host, _health, _cpu, _software, _networks, _name, _disk)


def _memory(container: ContainerFacts, target: HostFacts, headroom_percent: float) -> tuple[str, str] | None:
    headroom = int(target.memory_bytes * headroom_percent / 100)
    free = free_bytes(target) - headroom
    if container.memory_bytes > free:
        return (
            "target-lacks-memory",
            f"{container.memory_bytes >> 20} MiB are needed, {max(0, free) >> 20} MiB are free there "
            f"({headroom_percent:g} % kept back)",
        )
    return None


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor of a version."""
    parts = version.split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
