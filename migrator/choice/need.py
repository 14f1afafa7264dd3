"""What a container asks of a host: what the host must be (`Need`), and what it takes from it (`Claim`).

Containers that go together (a pod, `lifeboat.with`) have one need and one claim. Equal needs are judged once
for each host, so that a plan for thousands of containers is made in a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from migrator.choice.labels import wishes
from migrator.model import ContainerFacts, HostFacts, Method, Treatment


@dataclass(frozen=True)
class Need:
    """What a host must be, whatever else is planned for it."""

    methods: frozenset[Method] = frozenset()
    networks: frozenset[tuple[str, str]] = frozenset()  # name, driver
    devices: frozenset[str] = frozenset()
    bind_mounts: frozenset[str] = frozenset()
    unfit: frozenset[tuple[str, str, str]] = frozenset()  # host, code and reason: its own word
    pinned: frozenset[str] | None = None
    forbidden: frozenset[str] = frozenset()
    required: frozenset[tuple[str, str]] = frozenset()
    images: frozenset[str] = frozenset()

    @classmethod
    def of(cls, containers: Sequence[ContainerFacts], methods: Sequence[Method]) -> Need:
        """Return the need of containers that go together, each by its method."""
        wanted = [wishes(container.labels) for container in containers]
        pins = [wish.pinned for wish in wanted if wish.pinned is not None]
        return cls(
            methods=frozenset(methods),
            networks=frozenset((net.network, net.driver) for item in containers for net in item.networks),
            devices=frozenset(device for item in containers for device in item.devices),
            bind_mounts=frozenset(
                mount.path
                for item in containers
                for mount in item.volumes
                if mount.binds and mount.treatment is Treatment.LEAVE and not mount.storage
            ),
            unfit=frozenset((item.host, item.code, item.reason) for one in containers for item in one.unfit),
            pinned=frozenset.intersection(*pins) if pins else None,
            forbidden=frozenset(host for wish in wanted for host in wish.forbidden),
            required=frozenset(pair for wish in wanted for pair in wish.required),
            images=frozenset(container.image_id for container in containers),
        )


@dataclass(frozen=True)
class Claim:
    """What containers take from a host."""

    memory_bytes: int
    disk_bytes: int
    names: frozenset[str]
    ports: frozenset[int] = frozenset()
    apart: frozenset[str] = frozenset()

    @classmethod
    def of(cls, containers: Sequence[ContainerFacts]) -> Claim:
        """Return the claim of containers that go together."""
        groups = (wishes(container.labels).apart for container in containers)
        return cls(
            memory_bytes=sum(container.memory_bytes for container in containers),
            disk_bytes=sum(container.disk_bytes for container in containers),
            names=frozenset(container.name for container in containers),
            ports=frozenset(port for container in containers for port in container.published_ports),
            apart=frozenset(group for group in groups if group),
        )


@dataclass
class Room:
    """What a host has left; `take` makes it less. `version` grows with every take."""

    facts: HostFacts
    memory_bytes: int  # free after reservations; the headroom is still in it
    headroom_bytes: int
    disk_bytes: int
    names: set[str]
    ports: set[int]
    apart: frozenset[str]  # groups that had a container there before
    apart_planned: set[str] = field(default_factory=set)
    version: int = 0

    @classmethod
    def of(cls, target: HostFacts, source: str, headroom_percent: float) -> Room:
        """Return the room of a host as its facts tell it; what it holds for `source` is counted as free."""
        held = sum(size for holder, size in target.held.items() if holder != source)
        return cls(
            facts=target,
            memory_bytes=target.memory_available_bytes - target.reserved_bytes - held,
            headroom_bytes=int(target.memory_bytes * headroom_percent / 100),
            disk_bytes=target.disk_available_bytes,
            names=set(target.container_names),
            ports=set(target.ports),
            apart=frozenset(target.apart),
        )

    def take(self, claim: Claim) -> None:
        """Count a claim as taken."""
        self.memory_bytes -= claim.memory_bytes
        self.disk_bytes -= claim.disk_bytes
        self.names |= claim.names
        self.ports |= claim.ports
        self.apart_planned |= claim.apart
        self.version += 1
