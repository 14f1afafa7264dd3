"""What a source and a target say to each other about one migration.

    POST   /v1/fit                     FitQuestion -> FitAnswer   would these fit? changes nothing
    POST   /v1/migrations              Proposal -> Accepted     reserve; or refuse, nothing disturbed
    POST   /v1/migrations/ID/park      ParkRequest -> Report    podman is stopped one step before the restore
    POST   /v1/migrations/ID/restore   (images) -> Report       the tree is up behind the gate, standing still
    POST   /v1/migrations/ID/commit    (InFlight) -> Opened     after the source has journalled the commit
    GET    /v1/migrations/ID           -> Report                also how the drain is watched
    POST   /v1/migrations/ID/complete  -> Report                the source has released; clear away
    DELETE /v1/migrations/ID           -> Report                abort, before the commit only
    POST   /v1/migrations/ID/return    -> Returned              after a drill, by its source: give it back
    POST   /v1/migrations/ID/yield     -> Report                a human resumes it at the source: never run it
    GET    /v1/migrations/ID/decision  -> DecisionTold          asked by a target of its source after a crash
    POST   /v1/stagings                Stage -> Staged          files may wait here for a migration, or still may
    DELETE /v1/stagings/ID             -> Staged                they are not needed any more
    POST   /v1/checkpoints             Keep -> Staged           a complete checkpoint comes, by the same streams
    POST   /v1/checkpoints/ID          ParkRequest -> Staged    all of it is there
    DELETE /v1/checkpoints/ID          -> Staged                it is not needed any more

Every request may be repeated, late or lost: a target answers a second one from what it has already done, and
one that belongs to the past from its journal. What follows from what is decided in migrator/protocol/steps.py.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Base64Bytes, Field, StringConstraints, model_validator

from migrator.model import ContainerFacts, DrainDetails, Method, Pager, Rejection, Transport, Value
from migrator.names import HostName, MigrationId
from migrator.network.wire import MOST_BYTES, MOST_PACKETS

Document = Annotated[str, StringConstraints(max_length=1 << 20)]
"""JSON of podman; a usual one has 20 KB."""


class Proposal(Value):
    """A source asks a target to take a container."""

    migration: MigrationId
    source: HostName
    container: ContainerFacts
    method: Method
    copy_image: bool
    epoch: int  # who owned the container, counted; this migration would make it this number
    pager: Pager = Pager.LIFEBOAT
    drill: bool = False  # the target gives it back when it is asked to
    transport: Transport = Transport.TLS  # what the source may use; what is used the target says
    company: tuple[MigrationId, ...] = ()  # those of all members of its pod, this one among them; none when alone

    @model_validator(mode="after")
    def _belongs(self) -> Proposal:
        if self.migration not in self.together or (self.container.pod is None) != (not self.company):
            raise ValueError("it is not among those that it names")
        return self

    @property
    def together(self) -> tuple[str, ...]:
        """Return the migrations that have one decision with it; mostly it is alone."""
        return self.company or (self.migration,)


class FitQuestion(Value):
    """A source asks a host whether containers would fit on it now."""

    containers: tuple[ContainerFacts, ...]


class FitAnswer(Value):
    """What the host says against each; a container without an entry fits."""

    rejections: dict[str, tuple[Rejection, ...]]  # by the container's id


class Accepted(Value):
    """The target has reserved memory and tells what it lacks and where its page sink listens."""

    migration: str
    needs_image: bool
    pager_port: int = Field(ge=0, le=65535)
    pager_secret: str = Field(default="", max_length=64)  # what every link of this migration must name
    pager_addresses: tuple[str, ...] = ()  # where to call; none: where this host is called anyway
    pager_transport: Transport = Transport.TLS


class ParkRequest(Value):
    """Podman's own description of the running container, as it stands in a checkpoint archive."""

    configuration: Document  # config.dump
    specification: Document  # spec.dump
    network_status: Document  # network.status
    create_argv: tuple[str, ...] = ()  # for a cold migration, which has none of the above: how to create it


class Stage(Value):
    """A suspect host asks that files of a container may wait, for a migration that may come."""

    staging: MigrationId  # what the streams name
    source: HostName
    container: ContainerFacts
    copy_image: bool
    seconds: float = Field(ge=0)  # for how long, if it is not asked again


SLOTS = ("a", "b")
"""Where a target has the checkpoints of a container in turn: one is complete while the next is written."""


class Keep(Value):
    """A suspect host asks that a complete checkpoint of a container may wait, should that host die."""

    checkpoint: MigrationId  # what the streams name
    source: HostName
    container: ContainerFacts
    epoch: int  # of the container then: a target that knows a later one was committed it since


class Staged(Value):
    """They may; the target tells what it lacks, and which trees it takes."""

    needs_image: bool = False
    trees: tuple[str, ...] = ()


class Standing(StrEnum):
    """How a migration stands at its target."""

    RESERVED = "reserved"
    PARKED = "parked"
    RESTORED = "restored"  # the tree is here and silent; only the source's decision moves it on
    DRAINING = "draining"
    DRAINED = "drained"
    LOST = "lost"  # the memory did not come; the tree stands still
    ABORTED = "aborted"
    COMPLETE = "complete"  # it runs here, and nothing more is needed of the source
    FALLING_BACK = "falling back"  # it will never yield any more
    FELL_BACK = "fell back"  # the memory did not come; what its fallback said was done
    YIELDED = "yielded"  # a human resumed it at the source: it never runs here
    UNKNOWN = "unknown"  # this host has never heard of it

    @property
    def takes_memory(self) -> bool:
        """Say whether memory is still to come to the target."""
        return self in (Standing.RESERVED, Standing.PARKED, Standing.RESTORED, Standing.DRAINING)


class Report(Value):
    """A target's word on one migration."""

    migration: str
    standing: Standing
    drained_bytes: int = 0
    drain_s: float = 0.0
    drain: DrainDetails | None = None
    reason: str = ""
    unwritten: str = ""  # its memory is there, but not all of its files on disk, and will not be: why


class InFlight(Value):
    """Packets that came to the source while the container stood still; see migrator.network.in_flight."""

    packets: tuple[Base64Bytes, ...] = Field(default=(), max_length=MOST_PACKETS)

    @model_validator(mode="after")
    def _limit(self) -> InFlight:
        if sum(map(len, self.packets)) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return self


class Opened(Value):
    """The target's gate is open since `at` (Unix seconds of the target)."""

    migration: str
    at: float


class DecisionTold(Value):
    """What the source decided: `commit`, `abort` or nothing yet (empty); and whether it is done with it."""

    migration: str
    decision: str
    ended: bool = False
    resumed: bool = False  # a human let it run at the source again
