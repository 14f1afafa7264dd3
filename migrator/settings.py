"""Section [migrator] of lifeboat.toml: how migrations are done on this host."""

from __future__ import annotations

import ipaddress
from enum import StrEnum

from pydantic import Field, field_validator, model_validator

from migrator.model import Fallback, Method, Pager, Transport, Value
from migrator.pager.rate import Compression
from migrator.planning.limits import Limits

PODMAN_CREATE_LIMIT_S = 240
"""Podman gives its monitor this long to report a started container (`ContainerCreateTimeout`,
libpod/runtime.go); a restore parked for longer is given up by podman itself."""


class BindMounts(StrEnum):
    """What to do with directories of the host that are mounted into a container and not on shared storage."""

    REFUSE = "refuse"
    SYNC = "sync"


class MigratorSettings(Value):
    """How containers are moved."""

    method: Method = Field(
        default=Method.LAZY, description="the rung to start from; a container that cannot take it goes lower"
    )
    pager: Pager = Field(default=Pager.LIFEBOAT, description="who moves memory: lifeboat, or criu's own programs")
    copy_images: bool = Field(
        default=True, description="send an image the target lacks; false refuses such a target instead"
    )
    park_limit_s: float = Field(
        default=60,
        gt=0,
        lt=PODMAN_CREATE_LIMIT_S,
        description="how long a parked restore waits for the freeze",
    )
    freeze_limit_s: float = Field(
        default=30, gt=0, description="a freeze that is not committed by then is rolled back"
    )
    copy_limit_s: float = Field(
        default=3600, gt=0, description="longest time for copying an image or a volume ahead"
    )
    reconnect_limit_s: float = Field(
        default=60, ge=0, description="how long a drain waits for a lost peer before it is given up"
    )
    fallback: Fallback = Field(
        default=Fallback.STAY,
        description="what a target does with a container whose memory was lost with its source in the drain: leave "
        "it down and call a human, start it anew from its files, or go back, with memory and files, to the whole "
        "checkpoint that waits there (evacuation.checkpoint_s); the label lifeboat.fallback decides for one",
    )
    bind_mounts: BindMounts = Field(
        default=BindMounts.REFUSE,
        description="local directories mounted into a container: refuse to move it, or sync them to the same path",
    )
    criu_verbosity: int = Field(
        default=1, ge=1, le=4, description="how much CRIU logs: 1 errors, 4 everything (costs freeze time)"
    )
    pager_ports: tuple[int, int] = Field(
        default=(7450, 7499), description="first and last TCP port on which a target receives memory"
    )
    pager_links: int = Field(
        default=2, ge=1, le=16, description="links side by side for memory that nobody waits for"
    )
    pager_addresses: tuple[str, ...] = Field(
        default=(),
        description="this host's addresses at which others call to send memory, one link to each at least; "
        "none: the one by which the cluster knows it",
    )
    pager_limit_mib_s: float = Field(
        default=0, ge=0, description="most memory sent by one migration, in MiB per second; 0: as fast as it goes"
    )
    pager_compression: Compression = Field(
        default=Compression.AUTO,
        description="zstd for memory on its way: auto (where that is faster, measured as it goes), on, off",
    )
    pager_transport: Transport = Field(
        default=Transport.TLS,
        description="plain, where both hosts say so: memory goes unencrypted; for a private link only",
    )
    room_wait_s: float = Field(
        default=5,
        ge=0,
        le=60,
        description="how long a freeze is put off at most until this host, as a target, has free memory at hand "
        "for what comes; 0: it is only looked for when it comes",
    )
    memory_headroom_percent: float = Field(
        default=10, ge=0, le=90, description="memory of a target that no migration may fill"
    )
    at_once: int = Field(default=3, ge=1, le=64, description="how many migrations away from here run at once")
    away_at_once: int = Field(
        default=2, ge=1, le=64, description="how many of them may be parked, frozen or draining at once"
    )
    away_per_target: int = Field(default=2, ge=1, le=64, description="and how many of these to one target")
    freezes_at_once: int = Field(default=1, ge=1, le=64, description="and how many of these may be frozen")
    incoming_at_once: int = Field(
        default=8, ge=1, le=64, description="how many migrations this host takes at once; others wait"
    )
    labels: dict[str, str] = Field(
        default_factory=dict,
        description="what this host is, for lifeboat.require and failure domains: { rack = 'r1', psu = 'a' }",
    )
    failure_domains: tuple[str, ...] = Field(
        default=("rack", "psu", "disk_batch"),
        description="labels of hosts that fail together; a target that shares one with the source comes later",
    )
    accept_privileged: bool = Field(
        default=False,
        description="take containers from peers that may do what only the host's root may: privileged ones, "
        "CAP_SYS_ADMIN and the like, no seccomp filter",
    )
    shared_paths: tuple[str, ...] = Field(
        default=(), description="directories that are the same on all hosts, so that bind mounts below may move"
    )

    @field_validator("pager_addresses")
    @classmethod
    def _check_addresses(cls, addresses: tuple[str, ...]) -> tuple[str, ...]:
        for address in addresses:
            ipaddress.ip_address(address)  # raises a ValueError that says it all
        return addresses

    @model_validator(mode="after")
    def _check(self) -> MigratorSettings:
        first, last = self.pager_ports
        if not 1024 <= first <= last <= 65535:
            raise ValueError(f"pager_ports {first}-{last}: must be two ports from 1024 to 65535, first <= last")
        if self.away_at_once > self.at_once:
            raise ValueError(f"away_at_once {self.away_at_once} is more than at_once {self.at_once}")
        return self

    @property
    def limits(self) -> Limits:
        """Return how many migrations may be where at once."""
        return Limits(self.at_once, self.away_at_once, self.away_per_target, self.freezes_at_once)
