"""The roll: who belongs to the cluster, signed by its authority, so that any host may pass it on.

Nobody but the authority can add a host, move one to another address or strike one off. The version only grows:
of two good rolls the higher one holds. `/etc/lifeboat/peers.json` is the roll as this host knows it, with
its own name.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, StringConstraints

from migrator.errors import PeerError
from migrator.later import Later
from migrator.model import Value
from migrator.names import Address, HostName, Port
from migrator.peers.authority import Pair, load_key

if TYPE_CHECKING:
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
else:
    exceptions, x509 = Later("cryptography.exceptions"), Later("cryptography.x509")
    hashes, ec = (
        Later("cryptography.hazmat.primitives.hashes"),
        Later("cryptography.hazmat.primitives.asymmetric.ec"),
    )

PEER_PORT = 7443
STREAM_PORT = 7444
MOST_PEERS = 4096
MOST_REVOKED = 1 << 16
PURPOSE = b"lifeboat roll 1\n"  # a signature is good for nothing else

Serial = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{1,40}$")]
"""A certificate's serial number in hexadecimal, of at most 20 bytes (RFC 5280, 4.1.2.2)."""


class Peer(Value):
    """One host of the cluster, as others reach it."""

    name: HostName
    address: Address
    port: Port = PEER_PORT
    stream_port: Port = STREAM_PORT


class Roll(Value):
    """All hosts of the cluster, and the certificates that are good no more."""

    version: Annotated[int, Field(ge=0)] = 0
    authority: HostName  # the host that holds the authority's key
    peers: Annotated[tuple[Peer, ...], Field(max_length=MOST_PEERS)]
    revoked: Annotated[tuple[Serial, ...], Field(max_length=MOST_REVOKED)] = ()
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$", max_length=256)] = ""

    def named(self, name: str) -> Peer | None:
        """Return a host of the cluster, None for a stranger."""
        return next((peer for peer in self.peers if peer.name == name), None)

    @property
    def signed_bytes(self) -> bytes:
        """Return what the signature is over."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return PURPOSE + json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class OwnRoll(Value):
    """What `peers.json` holds: the roll, and which of its hosts this one is."""

    host: HostName
    roll: Roll


def sign(roll: Roll, authority: Pair) -> Roll:
    """Return the roll with the authority's signature."""
    signature = load_key(authority.key).sign(roll.signed_bytes, ec.ECDSA(hashes.SHA256()))
    return roll.model_copy(update={"signature": base64.b64encode(signature).decode()})


def verify(roll: Roll, authority: bytes) -> None:
    """Raise `PeerError` unless the authority of this certificate (PEM) has signed the roll."""
    key = x509.load_pem_x509_certificate(authority).public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise exceptions.InvalidSignature
        key.verify(base64.b64decode(roll.signature, validate=True), roll.signed_bytes, ec.ECDSA(hashes.SHA256()))
    except (exceptions.InvalidSignature, ValueError) as error:  # binascii.Error is one too
        raise PeerError("this roll of hosts was not signed by the cluster's authority", code="bad-roll") from error
