"""Hosts and containers for tests of decisions."""

from __future__ import annotations

from migrator.model import ContainerFacts, HostFacts, Method, NetworkAttachment, NetworkFacts, Obstacle, PodFacts

GIB = 1 << 30


def host(name: str, **changes: object) -> HostFacts:
    """Return a healthy host."""
    facts = {
        "host": name,
        "at": 0.0,
        "version": "1",
        "architecture": "x86_64",
        "kernel": "6.12",
        "cpu_model": "c",
        "cpu_flags": ("avx", "sse"),
        "criu": "4.2.1",
        "runc": "1.1.15",
        "podman": "5.4.2",
        "memory_bytes": 16 * GIB,
        "memory_available_bytes": 8 * GIB,
        "disk_available_bytes": 100 * GIB,
        "networks": (NetworkFacts(name="lan", driver="macvlan"),),
        "creates_for_others": True,
    }
    return HostFacts.model_validate({**facts, **changes})


def pod(name: str = "peas", members: tuple[str, ...] = ("a" * 64, "b" * 64), **changes: object) -> PodFacts:
    """Return a pod that can go anywhere."""
    facts = {"id": "c" * 64, "infra": "d" * 64, "name": name, "members": members, "hostname": name}
    return PodFacts.model_validate({**facts, "shares": ("ipc", "net", "uts"), **changes})


def container(name: str = "web", gib: float = 1, **changes: object) -> ContainerFacts:
    """Return a container that can go anywhere."""
    attachment = NetworkAttachment(
        network="lan", driver="macvlan", interface="eth0", mac="02:00:00:00:00:01", addresses=("10.0.0.5/24",)
    )
    facts = {
        "id": name,
        "name": name,
        "image": "i",
        "image_id": "1",
        "runtime": "runc",
        "running": True,
        "memory_bytes": int(gib * GIB),
        "networks": (attachment,),
    }
    return ContainerFacts.model_validate({**facts, **changes})


def obstacles(reason: str, *methods: str) -> tuple[Obstacle, ...]:
    """Return what keeps a container from these rungs."""
    return (Obstacle(code="obstacle", reason=reason, methods=tuple(Method(method) for method in methods)),)
