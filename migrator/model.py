"""The values migrations are made of: hosts, containers, plans, phases and outcomes.

Everything here is frozen data that crosses a process or host boundary, so all of it is pydantic and
refuses unknown keys.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from migrator import terms
from migrator.health import Verdict
from migrator.names import (
    Address,
    Bytes,
    ContainerId,
    DnsOption,
    HostEntry,
    ImageId,
    ImageName,
    InterfaceAddress,
    InterfaceName,
    MacAddress,
    Milliseconds,
    PodmanName,
    Port,
    QuadletName,
    Text,
    UnitName,
)

Method = terms.Method


class Value(BaseModel):
    """Base of every value that is written to disk or sent to a peer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pager(StrEnum):
    """Who moves the memory of a lazy migration."""

    LIFEBOAT = "lifeboat"  # our own page source and sink
    CRIU = "criu"  # CRIU's page server and lazy-pages daemon


class Fallback(StrEnum):
    """What a target does with a committed container whose memory was lost with its source."""

    STAY = "stay"  # leave it down and call a human
    COLD = "cold"  # start it anew from its files, as after a crash of the container
    CHECKPOINT = "checkpoint"  # go back to the whole checkpoint that waits there; without one as `stay`


class Transport(StrEnum):
    """How memory goes from host to host."""

    TLS = "tls"
    PLAIN = "plain"


class NetworkAttachment(Value):
    """One network of a container and the address it has there."""

    network: PodmanName  # podman network name
    driver: str  # macvlan, bridge, ...
    interface: InterfaceName  # inside the container: eth0
    mac: MacAddress
    addresses: tuple[InterfaceAddress, ...]  # with prefix length: 10.88.0.5/24


class Treatment(StrEnum):
    """What happens to a mount of a container that moves."""

    COPY = "copy"  # its files go along, ahead and then the difference
    COPY_LATE = "copy-late"  # its files go along in the freeze, for it is only mounted at the target by then
    LEAVE = "leave"  # the same storage is at the target
    COMPARE = "compare"  # one file, read only: the target must have the same
    REFUSE = "refuse"  # the container cannot move


class VolumeMount(Value):
    """One named volume or bind mount of a container."""

    kind: str  # volume, bind
    name: PodmanName | Literal[""]  # volume name; empty for a bind mount
    source: Text  # path on the host
    destination: Text  # path in the container
    writable: bool
    driver: str = ""
    options: dict[str, str] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    treatment: Treatment = Treatment.COPY
    reason: str = ""  # why it is refused
    storage: str = ""  # the shared storage it lies on, in words that are the same on every host
    digest: str = ""  # SHA-256 of a file that is compared

    @property
    def path(self) -> str:
        """Return where its files are on a host, which for a volume that binds a directory is that directory."""
        return self.options.get("device", self.source) if self.binds else self.source

    @property
    def binds(self) -> bool:
        """Say whether this is a directory of the host: a bind mount, or a volume that is one."""
        return self.kind == "bind" or "bind" in self.options.get("o", "").split(",")


class UnitFile(Value):
    """A file of Quadlet: `web.container`, a drop-in of it, or that of a volume or network it names."""

    name: QuadletName
    text: Annotated[str, Field(max_length=64 << 10)]

    @property
    def kind(self) -> str:
        """Return container, volume or network."""
        return self.name.partition("/")[0].removesuffix(".d").rpartition(".")[2]


class QuadletUnit(Value):
    """The systemd unit in which a container lives, and the files it is made of; the container's is the first."""

    unit: UnitName
    files: tuple[UnitFile, ...] = Field(min_length=1, max_length=32)
    left_behind: tuple[Text, ...] = ()  # files of the host that it needs at its next start


class Rejection(Value):
    """Why a host was not chosen, by a code for programs and a sentence for people."""

    host: str
    code: str
    reason: str


class Obstacle(Value):
    """Something about a container that keeps it from some rungs, wherever it were to go."""

    code: str
    reason: str
    methods: tuple[Method, ...] = (Method.LAZY, Method.FULL)  # a checkpoint; all when it cannot start elsewhere


class PublishedPort(Value):
    """A port of the host that leads into a pod."""

    host_port: Port
    container_port: Port
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_address: Address | Literal[""] = ""


class PodFacts(Value):
    """What a pod is beside its members: its infra container has no state but the namespaces that they share."""

    id: ContainerId  # at its source: podman gives it another one at every host, as it does to its infra container
    infra: ContainerId
    name: PodmanName
    members: tuple[ContainerId, ...] = Field(min_length=1, max_length=64)  # in order
    hostname: PodmanName
    shares: tuple[Literal["ipc", "net", "uts"], ...]
    ports: tuple[PublishedPort, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    exit_policy: Literal["continue", "stop"] = "continue"
    shared_memory_bytes: Bytes = 0  # the size of its /dev/shm; 0 for podman's own choice
    dns_servers: tuple[Address, ...] = ()
    dns_search: tuple[PodmanName, ...] = ()
    dns_options: tuple[DnsOption, ...] = ()
    hosts: tuple[HostEntry, ...] = ()


class ContainerFacts(Value):
    """What must be known of a running container to plan its migration."""

    id: PodmanName
    name: PodmanName
    image: ImageName  # name as a person gave it
    image_id: ImageId
    runtime: str  # runc, crun
    running: bool
    memory_bytes: Bytes = 0  # in use now, in memory or swapped out
    disk_bytes: Bytes = 0  # of its writable layer and named volumes
    pod: PodFacts | None = None
    networks: tuple[NetworkAttachment, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)
    published_ports: tuple[Port, ...] = ()
    devices: tuple[str, ...] = ()
    secrets: tuple[PodmanName, ...] = ()  # names of podman secrets
    log_driver: str = ""
    pod_infra: bool = False  # a pod's own container
    health_interval: Milliseconds = ""  # of its health check; empty when it has none
    image_bytes: int = 0
    quadlet: QuadletUnit | None = None  # the unit that moves along
    obstacles: tuple[Obstacle, ...] = ()
    unfit: tuple[Rejection, ...] = ()  # what the other hosts themselves say against taking it

    @field_validator("pod", mode="before")
    @classmethod
    def _no_pod(cls, value: object) -> object:
        """Read the journals of versions that had an empty text here."""
        return value or None

    @property
    def unsupported(self) -> dict[str, str]:
        """Return rung -> why this container cannot take it."""
        reasons: dict[str, str] = {}
        for obstacle in self.obstacles:
            for method in obstacle.methods:
                reasons[method] = "; ".join(filter(None, (reasons.get(method), obstacle.reason)))
        return reasons


class NetworkFacts(Value):
    """One podman network of a host."""

    name: str
    driver: str
    subnets: tuple[str, ...] = ()


class HostFacts(Value):
    """What a host tells its peers about itself: everything target choice looks at."""

    host: str
    at: float  # Unix seconds
    version: str  # of lifeboat
    architecture: str  # uname -m
    kernel: str  # uname -r
    cpu_model: str
    cpu_flags: tuple[str, ...]
    criu: str  # version, empty when absent
    runc: str
    podman: str
    memory_bytes: Annotated[Bytes, Field(gt=0)]
    memory_available_bytes: Bytes
    reserved_bytes: Bytes = 0
    disk_available_bytes: Bytes  # where podman keeps its storage
    networks: tuple[NetworkFacts, ...] = ()
    container_names: tuple[str, ...] = ()
    image_ids: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()  # addresses in use by containers here
    verdict: Verdict = Verdict.HEALTHY
    cordoned: bool = False
    evacuating: bool = False
    nearness: float = Field(default=0.0, ge=0)  # to a worse verdict: 0 far, 1 there
    pager: Pager = Pager.LIFEBOAT  # who moves memory away from here
    load: float = Field(default=0.0, ge=0)  # 1 minute load average per CPU
    signal_frame_bytes: int = 0  # AT_MINSIGSTKSZ: grows one to one with what `xsave` saves; 0 unknown
    labels: dict[str, str] = Field(default_factory=dict)  # as its settings say: rack, psu, disk_batch, ...
    ports: tuple[int, ...] = ()  # ports that listen, or that its containers publish
    devices: tuple[str, ...] = ()  # device files
    shared_paths: tuple[str, ...] = ()  # what lies under these is the same on all hosts that say so
    creates_for_others: bool = False  # takes the cold rung: creates containers by the words of its peers
    apart: tuple[str, ...] = ()  # groups of `lifeboat.apart` that have a container here
    held: dict[str, Bytes] = Field(default_factory=dict)  # bytes held for the evacuation of each of these hosts


class PlannedMigration(Value):
    """One line of a plan: this container goes there by this rung. `target` is None when it cannot go."""

    container: str
    target: str | None
    method: Method
    memory_bytes: int
    expected_freeze_ms: int
    expected_duration_s: float
    rejections: tuple[Rejection, ...] = ()
    reason: str = ""  # why this target, or why none
    kept: bool = False  # its label says that it stays
    begins_s: float = 0.0  # all times from the start of the evacuation
    freezes_s: float = 0.0
    ends_s: float = 0.0  # the source is no longer needed for it
    lost: bool = False  # an earlier migration of it did not end by itself: a human must look
    late: bool = False  # that is later than the host is expected to last
    after: tuple[str, ...] = ()  # containers that go first
    warnings: tuple[str, ...] = ()


class EvacuationPlan(Value):
    """What emptying a host would do, in order."""

    source: str
    migrations: tuple[PlannedMigration, ...]
    time_left_s: float | None = None  # how long such a host usually lasts; None when nothing says so
    ends_s: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def late(self) -> tuple[PlannedMigration, ...]:
        """Return what will not make it in time."""
        return tuple(item for item in self.migrations if item.late)


class Phase(StrEnum):
    """The phases of one migration, in order; see DESIGN 'One migration'."""

    PREPARE = "prepare"
    FREEZE = "freeze"
    RESTORE = "restore"
    COMMIT = "commit"
    DRAIN = "drain"
    RELEASE = "release"
    DONE = "done"
    ABORTED = "aborted"
    LOST = "lost"  # after the commit, the memory was lost with the source
    KEPT = "kept"  # a checkpoint waits at the target, and the container runs on at the source

    @property
    def final(self) -> bool:
        """Say whether nothing follows this phase."""
        return self in (Phase.DONE, Phase.ABORTED, Phase.LOST, Phase.KEPT)


POINT_OF_NO_RETURN = Phase.COMMIT


class DrainDetails(Value):
    """How a drain by our own pager goes, as its sink tells it."""

    missing_bytes: int = 0  # has not come
    wire_bytes: int = 0  # what came, as it was on the links
    zero_bytes: int = 0  # came as a word, not as pages
    poisoned_bytes: int = 0  # the source's memory has failed there; whoever reads it gets SIGBUS
    bytes_per_s: int = 0  # over the last two seconds
    eta_s: float | None = None
    faults: int = 0
    fault_median_us: int | None = None  # upper limit of the class it lies in
    fault_p99_us: int | None = None
    fault_classes: tuple[int, ...] = ()  # counts by LIMITS_US, migrator/pager/statistics.py


class MigrationEvent(Value):
    """One line of progress of a migration: a phase began, or something worth telling happened in it."""

    migration: str
    container: str
    at: float  # Unix seconds
    phase: Phase
    message: str = ""
    drained_bytes: int | None = None
    total_bytes: int | None = None
    drain: DrainDetails | None = None


class PhaseTime(Value):
    """When a phase began and how long it took."""

    phase: Phase
    began_at: float
    duration_s: float


class MigrationOutcome(Value):
    """How a migration ended."""

    migration: str
    container: str
    source: str
    target: str
    method: Method
    phase: Phase  # DONE, ABORTED, LOST or KEPT
    freeze_ms: float | None = None
    drain_s: float | None = None
    drained_bytes: int | None = None
    drain: DrainDetails | None = None
    waited_s: float = 0.0  # of its preparation, for its turn among the other migrations of this host
    parked_s: float = 0.0  # of its preparation, from its place among those away to parked on both sides
    phases: tuple[PhaseTime, ...] = ()
    error_code: str = ""
    error: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an outcome back from its JSON."""
        return cls.model_validate_json(text)
