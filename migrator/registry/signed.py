"""What a host writes into the registry, signed: whoever can write to etcd is not yet a host of the cluster."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Annotated, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import StringConstraints

from migrator.errors import NotAllowedError
from migrator.model import Value
from migrator.peers.authority import load_key
from migrator.peers.identity import Identity, RollFile, check_member
from migrator.peers.tls import OWN

PURPOSE = b"lifeboat registry 1\n"  # a signature is good for nothing else

Content = TypeVar("Content", bound=Value)


class Signed(Value):
    """A value with the certificate and the signature of its host; `key` is where it belongs, and nowhere else."""

    key: str
    content: str  # JSON
    certificate: Annotated[str, StringConstraints(max_length=8192)]
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$", max_length=256)]

    @property
    def signed_bytes(self) -> bytes:
        """Return what the signature is over."""
        return PURPOSE + self.key.encode() + b"\n" + self.content.encode()


class Seal:
    """Signs as this host, and checks the signatures of others."""

    def __init__(self, pki: Path) -> None:
        self._pki = pki
        self._roll = RollFile(pki.parent)

    def sign(self, key: str, content: Value) -> bytes:
        """Return a value as it goes into the registry."""
        own = (self._pki / OWN).read_bytes()
        certificate = own[own.index(b"-----BEGIN CERTIFICATE") :].decode()
        unsigned = Signed(key=key, content=content.model_dump_json(), certificate=certificate, signature="")
        signature = load_key(own).sign(unsigned.signed_bytes, ec.ECDSA(hashes.SHA256()))
        signed = unsigned.model_copy(update={"signature": base64.b64encode(signature).decode()})
        return signed.model_dump_json().encode()

    def open(self, key: str, data: bytes, host: str, kind: type[Content]) -> Content:
        """Return what a host wrote there; raises `NotAllowedError` unless it was that host, and is a member."""
        try:
            signed = Signed.model_validate_json(data)
            certificate = x509.load_pem_x509_certificate(signed.certificate.encode())
            who = _identity(certificate)
            check_member(who, self._roll.known, time.time())
            certificate.verify_directly_issued_by(
                x509.load_pem_x509_certificate((self._pki / "ca.crt").read_bytes())
            )
            public = certificate.public_key()
            if who.name != host or signed.key != key or not isinstance(public, ec.EllipticCurvePublicKey):
                raise ValueError(f"{who.name} wrote {signed.key}")
            public.verify(base64.b64decode(signed.signature), signed.signed_bytes, ec.ECDSA(hashes.SHA256()))
            return kind.model_validate_json(signed.content)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise NotAllowedError(
                f"what is at {key} was not written by {host}: {error}", code="bad-seal"
            ) from error


def _identity(certificate: x509.Certificate) -> Identity:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    expires_at = certificate.not_valid_after_utc.timestamp()
    return Identity(str(names[0].value) if names else "", f"{certificate.serial_number:x}", expires_at)
