"""This host's place in the cluster: `/etc/lifeboat/peers.json` (the roll) and `/etc/lifeboat/pki` (certificates).

The first host makes the cluster and holds the authority's key. Others join with a one-time token
(migrator.peers.joining), or, where they cannot reach it yet, with an invitation: a file with a host's own key
and certificate in it, so a secret until it was used.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from migrator.errors import PrerequisiteError, UsageError
from migrator.model import Value
from migrator.names import HostName
from migrator.peers.authority import Pair, create_authority, issue, write_secret
from migrator.peers.identity import PEERS
from migrator.peers.issued import Issued
from migrator.peers.roll import OwnRoll, Peer, Roll, sign, verify
from migrator.peers.tls import OWN


class Invitation(Value):
    """What an invited host needs, and nobody else may see."""

    warning: str = "This file lets its holder act as the invited host. Delete it after `lifeboat cluster join`."
    host: HostName
    authority: str
    certificate: str
    key: str
    roll: Roll


class PeerDirectory:
    """The peers of this host, read anew whenever the file has changed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self._path = directory / PEERS
        self._read: tuple[int, int] = (0, 0)
        self._own: OwnRoll | None = None

    @property
    def joined(self) -> bool:
        """Say whether this host belongs to a cluster."""
        return self._path.exists()

    @property
    def host(self) -> str:
        """Return this host's own name in the cluster."""
        return self._current().host

    @property
    def roll(self) -> Roll:
        """Return the roll as this host knows it."""
        return self._current().roll

    def peers(self) -> tuple[Peer, ...]:
        """Return all other hosts, by name."""
        own = self._current()
        return tuple(sorted((peer for peer in own.roll.peers if peer.name != own.host), key=lambda p: p.name))

    def everyone(self) -> tuple[Peer, ...]:
        """Return all hosts, this one too."""
        return self.roll.peers

    def peer(self, name: str) -> Peer:
        """Return one host of the cluster; raises `UsageError` for a stranger."""
        found = self.roll.named(name)
        if found is not None:
            return found
        known = ", ".join(peer.name for peer in self.peers()) or "none"
        raise UsageError(f"{name!r} is no host of this cluster", code="unknown-peer", hint=f"peers: {known}")

    def known(self, name: str) -> Peer:
        """Return one host, also one that was removed meanwhile: whoever calls that hears so (`PeerClient`)."""
        return self.roll.named(name) or Peer(name=name, address="0.0.0.0")  # noqa: S104  nowhere

    def learn(self, roll: Roll) -> bool:
        """Take a roll that another peer knows; return whether it was newer than ours.

        Raises `PeerError` for one that the cluster's authority has not signed.
        """
        with self.changing():
            own = self._current()
            if roll.version <= own.roll.version:
                return False
            verify(roll, (self.pki / "ca.crt").read_bytes())
            self._write(OwnRoll(host=own.host, roll=roll))
        return True

    def amend(self, change: Callable[[Roll], Roll]) -> Roll:
        """Change the roll, as only the authority's holder can; it is signed, and numbered, anew."""
        authority = self.authority()
        with self.changing():
            own = self._current()
            roll = change(own.roll).model_copy(update={"version": own.roll.version + 1})
            signed = sign(roll, authority)
            self._write(OwnRoll(host=own.host, roll=signed))
        return signed

    def authority(self) -> Pair:
        """Return the authority; raises `PrerequisiteError` on a host that does not hold it."""
        key = self.pki / "ca.key"
        if not key.exists():
            raise PrerequisiteError(
                "the authority's key is not on this host",
                code="no-authority",
                hint=f"do this on {self.roll.authority}",
            )
        return Pair((self.pki / "ca.crt").read_bytes(), key.read_bytes())

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the files of the cluster against the daemon and other commands; not for one inside another."""
        descriptor = os.open(self.pki / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, own: OwnRoll) -> None:
        write_secret(self._path, (own.model_dump_json(indent=2) + "\n").encode())

    def _current(self) -> OwnRoll:
        try:
            status = self._path.stat()
        except FileNotFoundError as error:
            raise PrerequisiteError(
                "this host belongs to no cluster",
                code="no-cluster",
                hint="lifeboat cluster init, or lifeboat cluster join",
            ) from error
        version = (status.st_ino, status.st_mtime_ns)
        if self._own is None or version != self._read:
            try:
                self._own = OwnRoll.model_validate_json(self._path.read_bytes())
            except ValidationError as error:
                raise UsageError(f"{self._path}: {error.errors()[0]['msg']}", code="bad-peers-file") from error
            self._read = version
        return self._own


def init(directory: Path, host: str, address: str) -> PeerDirectory:
    """Make a cluster with this host as its first; refused where there is one."""
    newcomer = named(host, address)
    check_free(directory)
    authority = create_authority(host)
    own = issue(authority, host, address)
    write_secret(directory / "pki" / "ca.key", authority.key)
    roll = sign(Roll(version=1, authority=host, peers=(newcomer,)), authority)
    settle(directory, host, authority.certificate, own, roll)
    Issued(directory / "pki").note(host, own.certificate)
    return PeerDirectory(directory)


def invite(directory: Path, host: str, address: str) -> bytes:
    """Return an invitation for a host; only the host that made the cluster can write one."""
    newcomer = named(host, address)
    members = PeerDirectory(directory)
    authority = members.authority()
    own = issue(authority, host, address)
    roll = admit(members, newcomer, own.certificate)
    invitation = Invitation(
        host=host,
        authority=authority.certificate.decode(),
        certificate=own.certificate.decode(),
        key=own.key.decode(),
        roll=roll,
    )
    return (invitation.model_dump_json(indent=2) + "\n").encode()


def admit(members: PeerDirectory, newcomer: Peer, certificate: bytes) -> Roll:
    """Put a host on the roll with its new certificate; what it had before under this name is revoked."""
    issued = Issued(members.pki)
    before = issued.of(newcomer.name)
    issued.note(newcomer.name, certificate)

    def change(roll: Roll) -> Roll:
        others = tuple(peer for peer in roll.peers if peer.name != newcomer.name)
        revoked = tuple(dict.fromkeys((*roll.revoked, *before)))
        return roll.model_copy(update={"peers": (*others, newcomer), "revoked": revoked})

    return members.amend(change)


def remove(directory: Path, host: str) -> Roll:
    """Strike a host off the roll and revoke all its certificates."""
    members = PeerDirectory(directory)
    members.peer(host)
    if host == members.host:
        raise UsageError("a host cannot remove itself", code="own-host", hint="do it from the authority's host")
    serials = Issued(members.pki).of(host)

    def change(roll: Roll) -> Roll:
        peers = tuple(peer for peer in roll.peers if peer.name != host)
        revoked = tuple(dict.fromkeys((*roll.revoked, *serials)))
        return roll.model_copy(update={"peers": peers, "revoked": revoked})

    return members.amend(change)


def join(directory: Path, bundle: bytes) -> PeerDirectory:
    """Take an invitation; refused where the host belongs to a cluster."""
    check_free(directory)
    try:
        invitation = Invitation.model_validate_json(bundle)
    except ValidationError as error:
        raise UsageError(
            "this is no invitation of lifeboat",
            code="bad-invitation",
            hint="make one with: lifeboat cluster invite HOST --address ADDRESS --output FILE",
        ) from error
    own = Pair(invitation.certificate.encode(), invitation.key.encode())
    settle(directory, invitation.host, invitation.authority.encode(), own, invitation.roll)
    return PeerDirectory(directory)


def settle(directory: Path, host: str, authority: bytes, own: Pair, roll: Roll) -> None:
    """Write what makes this host a member; the roll comes last, for with it the host has joined."""
    verify(roll, authority)
    pki = directory / "pki"
    write_secret(pki / "ca.crt", authority)
    write_secret(pki / OWN, own.key + own.certificate)
    write_secret(directory / PEERS, (OwnRoll(host=host, roll=roll).model_dump_json(indent=2) + "\n").encode())


def check_free(directory: Path) -> None:
    """Raise `PrerequisiteError` where the host belongs to a cluster already."""
    if (directory / PEERS).exists():
        raise PrerequisiteError(
            f"this host belongs to a cluster already ({directory / PEERS})",
            code="cluster-exists",
            hint=f"to leave it for good: systemctl stop lifeboatd; rm -r {directory / PEERS} {directory / 'pki'}",
        )


def named(host: str, address: str) -> Peer:
    """Return a host of this name and address; raises `UsageError` when it cannot have such ones."""
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"{address!r} is no IP address", code="bad-address") from error
    try:
        TypeAdapter(HostName).validate_python(host)
    except ValidationError as error:
        raise UsageError(f"{host!r} is no name of a host", code="bad-host-name") from error
    return Peer(name=host, address=address)
