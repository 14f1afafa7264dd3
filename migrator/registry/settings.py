"""Section [registry] of lifeboat.toml: where hosts learn of each other's health besides asking."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, model_validator

from migrator.model import Value


class Kind(StrEnum):
    """What the registry is."""

    EMBEDDED = "embedded"  # the hosts themselves, asked directly
    ETCD = "etcd"


class RegistrySettings(Value):
    """Where health, reservations and commits are known."""

    kind: Kind = Field(
        default=Kind.EMBEDDED, description="embedded: hosts ask each other; etcd: they also tell an etcd cluster"
    )
    endpoints: tuple[str, ...] = Field(
        default=(), description="client URLs of etcd's members: ['https://10.0.0.7:2379', ...]"
    )
    ca_file: str = Field(default="", description="authority of etcd's certificates; empty is the cluster's own")
    certificate_file: str = Field(
        default="", description="this host's key and certificate for etcd, in one file; empty is the cluster's own"
    )
    prefix: str = Field(
        default="/lifeboat", pattern=r"^/[a-zA-Z0-9/_-]*[a-zA-Z0-9]$", description="what our keys begin with"
    )
    lease_s: int = Field(default=15, ge=5, le=600, description="a host that etcd does not hear for so long is gone")
    timeout_s: float = Field(default=2.0, gt=0, le=30, description="how long one member of etcd may take to answer")

    @model_validator(mode="after")
    def _check(self) -> RegistrySettings:
        if (self.kind is Kind.ETCD) != bool(self.endpoints):
            raise ValueError("endpoints: are needed for kind = 'etcd', and for nothing else")
        for url in self.endpoints:
            if not url.startswith(("https://", "http://")):
                raise ValueError(f"endpoints: {url!r} does not begin with https:// (or http://)")
        return self
