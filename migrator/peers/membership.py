"""Who belongs to the cluster: the first host makes it, an invitation lets another one in.

`/etc/lifeboat/peers.json` names the hosts; `/etc/lifeboat/pki` holds this host's certificate. An invitation
is a file with a host's own key and certificate in it, so it is a secret until it was used.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import ValidationError

from migrator.errors import PrerequisiteError, UsageError
from migrator.model import Value
from migrator.peers.authority import Pair, create_authority, issue, write_secret

PEERS = "peers.json"
PEER_PORT = 7443
STREAM_PORT = 7444


class Peer(Value):
    """One host of the cluster, as others reach it."""

    name: str
    address: str
    port: int = PEER_PORT
    stream_port: int = STREAM_PORT


class Roll(Value):
    """The file of peers: this host's own name, and all hosts of the cluster with it."""

    host: str
    peers: tuple[Peer, ...]


class Invitation(Value):
    """What an invited host needs, and nobody else may see."""

    warning: str = "This file lets its holder act as the invited host. Delete it after `lifeboat cluster join`."
    host: str
    authority: str
    certificate: str
    key: str
    peers: tuple[Peer, ...]


class PeerDirectory:
    """The peers of this host, read anew whenever the file has changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self._path = directory / PEERS
        self._read_at = -1.0
        self._roll: Roll | None = None

    @property
    def joined(self) -> bool:
        """Say whether this host belongs to a cluster."""
        return self._path.exists()

    @property
    def host(self) -> str:
        """Return this host's own name in the cluster."""
        return self._current().host

    def peers(self) -> tuple[Peer, ...]:
        """Return all other hosts, by name."""
        roll = self._current()
        return tuple(sorted((peer for peer in roll.peers if peer.name != roll.host), key=lambda p: p.name))

    def everyone(self) -> tuple[Peer, ...]:
        """Return all hosts, this one too."""
        return self._current().peers

    def peer(self, name: str) -> Peer:
        """Return one host of the cluster; raises `UsageError` for a stranger."""
        for peer in self.everyone():
            if peer.name == name:
                return peer
        known = ", ".join(peer.name for peer in self.peers()) or "none"
        raise UsageError(f"{name!r} is no host of this cluster", code="unknown-peer", hint=f"peers: {known}")

    def learn(self, peers: tuple[Peer, ...]) -> bool:
        """Add hosts that another peer knows; return whether any was new or had moved."""
        roll = self._current()
        known = {peer.name: peer for peer in roll.peers}
        merged = {**known, **{peer.name: peer for peer in peers if peer.name != roll.host}}
        if merged == known:
            return False
        self._write(Roll(host=roll.host, peers=tuple(merged.values())))
        return True

    def _write(self, roll: Roll) -> None:
        write_secret(self._path, (roll.model_dump_json(indent=2) + "\n").encode())

    def _current(self) -> Roll:
        try:
            changed_at = self._path.stat().st_mtime
        except FileNotFoundError as error:
            raise PrerequisiteError(
                "this host belongs to no cluster",
                code="no-cluster",
                hint="lifeboat cluster init, or lifeboat cluster join FILE",
            ) from error
        if self._roll is None or changed_at != self._read_at:
            try:
                self._roll = Roll.model_validate_json(self._path.read_bytes())
            except ValidationError as error:
                raise UsageError(f"{self._path}: {error.errors()[0]['msg']}", code="bad-peers-file") from error
            self._read_at = changed_at
        return self._roll


def init(directory: Path, host: str, address: str) -> PeerDirectory:
    """Make a cluster with this host as its first; refused where there is one."""
    _check_address(address)
    if (directory / PEERS).exists():
        raise PrerequisiteError(
            f"this host belongs to a cluster already ({directory / PEERS})", code="cluster-exists"
        )
    authority = create_authority(host)
    own = issue(authority, host, address)
    pki = directory / "pki"
    write_secret(pki / "ca.crt", authority.certificate)
    write_secret(pki / "ca.key", authority.key)
    _settle(directory, host, authority.certificate, own, (Peer(name=host, address=address),))
    return PeerDirectory(directory)


def invite(directory: Path, host: str, address: str) -> bytes:
    """Return an invitation for a host; only the host that made the cluster can write one."""
    _check_address(address)
    members = PeerDirectory(directory)
    key = directory / "pki" / "ca.key"
    if not key.exists():
        raise PrerequisiteError(
            "the authority's key is not on this host",
            code="no-authority",
            hint="invite from the host on which `lifeboat cluster init` was run",
        )
    authority = Pair((directory / "pki" / "ca.crt").read_bytes(), key.read_bytes())
    own = issue(authority, host, address)
    newcomer = Peer(name=host, address=address)
    members.learn((newcomer,))
    invitation = Invitation(
        host=host,
        authority=authority.certificate.decode(),
        certificate=own.certificate.decode(),
        key=own.key.decode(),
        peers=members.everyone(),
    )
    return (invitation.model_dump_json(indent=2) + "\n").encode()


def join(directory: Path, bundle: bytes) -> PeerDirectory:
    """Take an invitation; refused where the host belongs to a cluster."""
    if (directory / PEERS).exists():
        raise PrerequisiteError(
            f"this host belongs to a cluster already ({directory / PEERS})", code="cluster-exists"
        )
    try:
        invitation = Invitation.model_validate_json(bundle)
    except ValidationError as error:
        raise UsageError(
            "this is no invitation of lifeboat",
            code="bad-invitation",
            hint="make one with: lifeboat cluster invite HOST --address ADDRESS --output FILE",
        ) from error
    own = Pair(invitation.certificate.encode(), invitation.key.encode())
    _settle(directory, invitation.host, invitation.authority.encode(), own, invitation.peers)
    return PeerDirectory(directory)


def _settle(directory: Path, host: str, authority: bytes, own: Pair, peers: tuple[Peer, ...]) -> None:
    pki = directory / "pki"
    write_secret(pki / "ca.crt", authority)
    write_secret(pki / "host.key", own.key)
    write_secret(pki / "host.crt", own.certificate)
    roll = Roll(host=host, peers=peers)
    write_secret(directory / PEERS, (roll.model_dump_json(indent=2) + "\n").encode())


def _check_address(address: str) -> None:
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is no IP address", code="bad-address") from error
