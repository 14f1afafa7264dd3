"""Who is at the other end of a link: read from the certificate that TLS has verified, and looked up in the roll.

TLS says that the cluster's authority once signed it. That it still counts is for the roll to say: a host that was
removed is not in it, a certificate that was replaced or lost is revoked in it. (Read as plain JSON, for rsync's
remote shell needs it in the freeze, and the models take long to import; migrator.peers.roll writes the file.)
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrator.errors import NotAllowedError

PEERS = "peers.json"
NEWCOMER = "join "  # a token's certificate: no host name can begin so, for it has a space in it


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names."""

    name: str
    serial: str  # hexadecimal, without leading zeros
    expires_at: float  # Unix seconds

    @property
    def token(self) -> str:
        """Return the id of the token whose certificate this is, empty for a host's."""
        return self.name.removeprefix(NEWCOMER) if self.name.startswith(NEWCOMER) else ""


@dataclass(frozen=True)
class Known:
    """The part of the roll that decides who may speak."""

    hosts: frozenset[str] = frozenset()
    revoked: frozenset[str] = frozenset()


class RollFile:
    """The roll in a directory, read anew when it has changed; empty where there is none."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / PEERS
        self._version: tuple[int, int] | None = None
        self._known = Known()

    @property
    def known(self) -> Known:
        """Return who belongs to the cluster now."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return Known()
        version = (status.st_ino, status.st_mtime_ns)
        if version != self._version:
            roll = json.loads(self._path.read_bytes())["roll"]
            hosts = frozenset(str(peer["name"]) for peer in roll["peers"])
            self._known, self._version = Known(hosts, frozenset(map(str, roll["revoked"]))), version
        return self._known


def identity(certificate: Mapping[str, Any] | None) -> Identity:
    """Read what `SSLSocket.getpeercert` returned; raises `NotAllowedError` when there was none."""
    if not certificate:
        raise NotAllowedError("the other side showed no certificate", code="no-certificate")
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return Identity(
        name=str(names[0]) if names else "",
        serial=f"{int(certificate['serialNumber'], 16):x}",
        expires_at=float(ssl.cert_time_to_seconds(certificate["notAfter"])),
    )


def check_certificate(who: Identity, known: Known, now: float | None = None) -> None:
    """Raise `NotAllowedError` for a certificate that counts no more; its holder need not be on our roll yet."""
    if who.serial in known.revoked:
        raise NotAllowedError(f"the certificate of {who.name} is revoked", code="revoked")
    if who.expires_at < (time.time() if now is None else now):
        raise NotAllowedError(f"the certificate of {who.name} has expired", code="expired")


def check_member(who: Identity, known: Known, now: float | None = None) -> None:
    """Raise `NotAllowedError` for whoever is no host of the cluster now."""
    check_certificate(who, known, now)
    if who.name not in known.hosts:
        raise NotAllowedError(f"{who.name!r} is no host of this cluster", code="no-member")
