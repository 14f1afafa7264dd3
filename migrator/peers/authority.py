"""The cluster's own certificate authority: who is a peer is who holds a certificate of it.

EC keys on P-256 (every TLS library has it), extensions as RFC 5280 asks (OpenSSL's strict mode, which
Python 3.13 turns on, refuses an authority without key usage).
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from migrator.errors import PrerequisiteError
from migrator.files import write_whole
from migrator.later import Later

if TYPE_CHECKING:
    from cryptography import exceptions, x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import oid
else:
    exceptions, x509 = Later("cryptography.exceptions"), Later("cryptography.x509")
    hashes = Later("cryptography.hazmat.primitives.hashes")
    serialization = Later("cryptography.hazmat.primitives.serialization")
    ec, oid = Later("cryptography.hazmat.primitives.asymmetric.ec"), Later("cryptography.x509.oid")

AUTHORITY_DAYS = 3650
HOST_DAYS = 825  # the longest that common TLS policies accept of a host certificate
CLOCK_SLACK = datetime.timedelta(hours=1)  # hosts whose clocks disagree must still be able to join


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def create_authority(cluster: str) -> Pair:
    """Make a new authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"lifeboat cluster {cluster}")
    builder = (
        _builder(name, name, key.public_key(), datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Pair(certificate, key_bytes(key))


def issue(authority: Pair, host: str, address: str) -> Pair:
    """Make a host's certificate: valid for its name and its address, as caller and as called."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Pair(certify(authority, host, address, key.public_key()), key_bytes(key))


def certify(authority: Pair, host: str, address: str, key: ec.EllipticCurvePublicKey) -> bytes:
    """Return the certificate (PEM) for a host that has made its own key."""
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address(address))])
    purposes = [oid.ExtendedKeyUsageOID.SERVER_AUTH, oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    return _leaf(authority, host, key, life=datetime.timedelta(days=HOST_DAYS), purposes=purposes, names=names)


def issue_ticket(authority: Pair, name: str, life: datetime.timedelta) -> Pair:
    """Make a certificate with which somebody who is no host can call, for a short time, and never be called."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(
        authority, name, key.public_key(), life=life, purposes=[oid.ExtendedKeyUsageOID.CLIENT_AUTH], names=None
    )
    return Pair(certificate, key_bytes(key))


def make_request(host: str) -> Pair:
    """Make a host's new key, and the request (PEM, PKCS #10) for a certificate of it in the certificate's place."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(host)).sign(key, hashes.SHA256())
    return Pair(request.public_bytes(serialization.Encoding.PEM), key_bytes(key))


def requested(request: bytes) -> tuple[str, ec.EllipticCurvePublicKey]:
    """Return the host and the key of a request; raises `PrerequisiteError` when it is none, or not signed by it."""
    try:
        read = x509.load_pem_x509_csr(request)
        names = read.subject.get_attributes_for_oid(oid.NameOID.COMMON_NAME)
        key = read.public_key()
        if len(names) == 1 and isinstance(key, ec.EllipticCurvePublicKey) and read.is_signature_valid:
            return str(names[0].value), key
    except (ValueError, exceptions.UnsupportedAlgorithm, x509.InvalidVersion):
        pass
    raise PrerequisiteError("this is no request for a host's certificate", code="bad-request")


def load_key(key: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a private key (PEM)."""
    loaded = serialization.load_pem_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise PrerequisiteError("the authority's key is not an EC key", code="authority-key")
    return loaded


def key_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def fingerprint(certificate: bytes) -> str:
    """Return the SHA-256 of a certificate (PEM), in hexadecimal."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def serial(certificate: bytes) -> str:
    """Return the serial number of a certificate (PEM), in hexadecimal."""
    return f"{x509.load_pem_x509_certificate(certificate).serial_number:x}"


def life(certificate: bytes) -> tuple[datetime.datetime, datetime.datetime]:
    """Return from when to when a certificate (PEM) is good."""
    read = x509.load_pem_x509_certificate(certificate)
    return read.not_valid_before_utc, read.not_valid_after_utc


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only root may read, completely or not at all, on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_whole(path, data, 0o600)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, common_name)])


def _leaf(
    authority: Pair,
    name: str,
    key: ec.EllipticCurvePublicKey,
    *,
    life: datetime.timedelta,
    purposes: list[x509.ObjectIdentifier],
    names: x509.SubjectAlternativeName | None,
) -> bytes:
    """Return a certificate that can sign no others."""
    issuer, issuer_key = x509.load_pem_x509_certificate(authority.certificate), load_key(authority.key)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        _builder(issuer.subject, _name(name), key, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(identifier, critical=False)
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + life)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
