"""Joining with a one-time token, and new certificates for hosts that have one.

A token carries where the authority's host is, the fingerprint of its authority, and a short-lived certificate with
its key that is good for one call: so there is no port that answers without a certificate, not even for those who
have none yet. The newcomer first fetches the authority's certificate with it, from whoever answers, and goes on
only when its fingerprint is the token's. Its own key never leaves it.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import http.client
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import StringConstraints, ValidationError

from migrator.errors import PeerError, PrerequisiteError, UsageError
from migrator.later import Later
from migrator.model import Value
from migrator.names import Address, Port
from migrator.peers.authority import (
    Pair,
    certify,
    fingerprint,
    issue_ticket,
    key_bytes,
    life,
    load_key,
    make_request,
    requested,
    write_secret,
)
from migrator.peers.client import PeerClient
from migrator.peers.identity import NEWCOMER
from migrator.peers.issued import Issued
from migrator.peers.membership import PeerDirectory, admit, check_free, named, settle
from migrator.peers.roll import PEER_PORT, STREAM_PORT, Peer, Roll
from migrator.peers.tls import OWN

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
else:
    x509, ec = Later("cryptography.x509"), Later("cryptography.hazmat.primitives.asymmetric.ec")
    serialization = Later("cryptography.hazmat.primitives.serialization")

PREFIX = "lifeboat1."
KEY_BYTES = 32  # of P-256
TIMEOUT_S = 15.0
AUTHORITY_LIMIT_BYTES = 1 << 16
RENEW_AT = 1 / 3  # of a certificate's life that is over: so there are years to notice that it does not work

Pem = Annotated[str, StringConstraints(max_length=8192)]


class JoinRequest(Value):
    """A newcomer's request for a certificate (PKCS #10), and where it will listen."""

    request: Pem
    address: Address
    port: Port = PEER_PORT
    stream_port: Port = STREAM_PORT


class Joined(Value):
    """The newcomer's certificate, and the roll with it on."""

    certificate: Pem
    roll: Roll


class RenewRequest(Value):
    """A host's request for a certificate of a new key."""

    request: Pem


class Authority(Value):
    """The authority's certificate: nothing secret, and nothing to be believed without its fingerprint."""

    certificate: Pem


@dataclass(frozen=True)
class JoinToken:
    """What is in a token."""

    host: str  # the authority's
    address: str
    port: int
    fingerprint: str  # of the authority's certificate: SHA-256, hexadecimal
    ticket: Pair

    def __str__(self) -> str:
        """Return the token as one word."""
        head = json.dumps([self.host, self.address, self.port, self.fingerprint], separators=(",", ":"))
        number = load_key(self.ticket.key).private_numbers().private_value
        certificate = x509.load_pem_x509_certificate(self.ticket.certificate)
        body = number.to_bytes(KEY_BYTES, "big") + certificate.public_bytes(serialization.Encoding.DER)
        return PREFIX + base64.urlsafe_b64encode(head.encode() + b"\n" + body).rstrip(b"=").decode()

    @classmethod
    def parse(cls, word: str) -> JoinToken:
        """Read a token; raises `UsageError` when it is none."""
        try:
            if not word.startswith(PREFIX):
                raise ValueError
            text = word.removeprefix(PREFIX)
            head, _, body = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).partition(b"\n")
            host, address, port, fingerprint = json.loads(head)
            key = ec.derive_private_key(int.from_bytes(body[:KEY_BYTES], "big"), ec.SECP256R1())
            certificate = x509.load_der_x509_certificate(body[KEY_BYTES:])
            pem = certificate.public_bytes(serialization.Encoding.PEM)
            return cls(str(host), str(address), int(port), str(fingerprint), Pair(pem, key_bytes(key)))
        except (ValueError, TypeError, binascii.Error) as error:
            raise UsageError(
                "this is no token of lifeboat", code="bad-token", hint="make one with: lifeboat cluster token"
            ) from error


def give_token(directory: Path, host: str, ttl_s: float) -> JoinToken:
    """Make a token; only the authority's host can. `host` is who may use it, or nobody in particular (empty)."""
    members = PeerDirectory(directory)
    authority = members.authority()
    if host:
        named(host, members.peer(members.host).address)
    noted = Issued(members.pki).give_token(host, ttl_s)
    ticket = issue_ticket(authority, NEWCOMER + noted.id, datetime.timedelta(seconds=ttl_s))
    own = members.peer(members.host)
    return JoinToken(own.name, own.address, own.port, fingerprint(authority.certificate), ticket)


def join_by_token(directory: Path, word: str, host: str, address: str) -> PeerDirectory:
    """Join the cluster that a token is of, as `host`."""
    check_free(directory)
    named(host, address)
    token = JoinToken.parse(word)
    request = make_request(host)
    with tempfile.TemporaryDirectory(prefix="lifeboat-join-") as name:
        place = Path(name) / "pki"
        write_secret(place / OWN, token.ticket.key + token.ticket.certificate)
        authority = _fetch_authority(token, place)
        write_secret(place / "ca.crt", authority)
        client = PeerClient(Peer(name=token.host, address=token.address, port=token.port), place)
        asked = JoinRequest(request=request.certificate.decode(), address=address)
        joined = client.call("POST", "/v1/join", asked, Joined, timeout_s=TIMEOUT_S)
    own = Pair(joined.certificate.encode(), request.key)
    settle(directory, host, authority, own, joined.roll)
    return PeerDirectory(directory)


def admit_by_token(members: PeerDirectory, token: str, asked: JoinRequest) -> Joined:
    """Let a newcomer in, at the authority's host; its token is used up before it has its certificate."""
    authority = members.authority()
    host, key = requested(asked.request.encode())
    try:
        newcomer = Peer(name=host, address=asked.address, port=asked.port, stream_port=asked.stream_port)
    except ValidationError as error:
        raise PrerequisiteError(f"{host!r} is no name of a host", code="bad-host-name") from error
    if members.roll.named(host) is not None:
        raise PrerequisiteError(
            f"{host} is in the cluster already",
            code="host-exists",
            hint=f"if it was installed anew: lifeboat cluster remove {host}, then a new token",
        )
    Issued(members.pki).spend_token(token, host)
    certificate = certify(authority, host, asked.address, key)
    return Joined(certificate=certificate.decode(), roll=admit(members, newcomer, certificate))


def recertify(members: PeerDirectory, host: str, asked: RenewRequest) -> Joined:
    """Give a host of the cluster a new certificate, at the authority's host; the old one stays good."""
    authority, peer = members.authority(), members.peer(host)
    wanted, key = requested(asked.request.encode())
    if wanted != host:
        raise PrerequisiteError(f"{host} asks for a certificate of {wanted!r}", code="not-your-name")
    certificate = certify(authority, host, peer.address, key)
    Issued(members.pki).note(host, certificate)
    return Joined(certificate=certificate.decode(), roll=members.roll)


def renew(members: PeerDirectory) -> None:
    """Get this host a new certificate; the authority's host makes its own."""
    request = make_request(members.host)
    asked = RenewRequest(request=request.certificate.decode())
    holder = members.peer(members.roll.authority)
    if holder.name == members.host:
        joined = recertify(members, members.host, asked)
    else:
        joined = PeerClient(holder, members.pki).call("POST", "/v1/renew", asked, Joined, timeout_s=TIMEOUT_S)
    write_secret(members.pki / OWN, request.key + joined.certificate.encode())


def due(members: PeerDirectory, now: datetime.datetime) -> bool:
    """Say whether it is time for a new certificate."""
    since, until = life((members.pki / OWN).read_bytes())
    return now > since + (until - since) * RENEW_AT


def _fetch_authority(token: JoinToken, place: Path) -> bytes:
    """Return the authority's certificate (PEM), from whoever answers; believed only for its fingerprint."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(place / OWN)
    connection = http.client.HTTPSConnection(token.address, token.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/v1/authority")
        answer = connection.getresponse().read(AUTHORITY_LIMIT_BYTES)
        found = Authority.model_validate_json(answer).certificate.encode()
        if fingerprint(found) == token.fingerprint:
            return found
    except (OSError, http.client.HTTPException) as error:
        raise PeerError(
            f"{token.host} cannot be reached at {token.address} port {token.port}: {error}",
            code="peer-unreachable",
            hint="is lifeboatd running there? has the token expired, or was it used?",
            temporary=True,
        ) from error
    except ValueError as error:
        raise PeerError(f"{token.host} does not tell its authority", code="peer-failed") from error
    finally:
        connection.close()
    raise PeerError(f"who answers at {token.address} is not the cluster of this token", code="wrong-authority")
