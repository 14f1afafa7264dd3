"""The authority's memory: which certificates each host has had, and which tokens are out.

One file beside its key, for root alone; whoever changes it holds a lock.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from migrator.errors import PrerequisiteError, UsageError
from migrator.model import Value
from migrator.names import HostName
from migrator.peers.authority import life, serial, write_secret
from migrator.peers.roll import Serial

LEDGER = "issued.json"
TOKEN_BYTES = 8  # an id, no secret: the secret is the key of the token's certificate


class Certificate(Value):
    """One certificate that was issued."""

    host: HostName
    serial: Serial
    until: float  # Unix seconds


class Token(Value):
    """One token that was given out; `host` is who may use it, or nobody in particular (empty)."""

    id: str
    host: str = ""
    until: float
    used_by: str = ""


class Ledger(Value):
    """The file as a whole."""

    certificates: tuple[Certificate, ...] = ()
    tokens: tuple[Token, ...] = ()


class Issued:
    """What the authority has given out."""

    def __init__(self, pki: Path) -> None:
        self._pki = pki

    def of(self, host: str) -> tuple[str, ...]:
        """Return the serial numbers of a host's certificates that have not expired."""
        now = time.time()
        return tuple(item.serial for item in self._read().certificates if item.host == host and item.until > now)

    def note(self, host: str, certificate: bytes) -> None:
        """Remember a certificate."""
        _, until = life(certificate)
        entry = Certificate(host=host, serial=serial(certificate), until=until.timestamp())
        self._change(lambda old: old.model_copy(update={"certificates": (*old.certificates, entry)}))

    def give_token(self, host: str, ttl_s: float) -> Token:
        """Make a token's entry, and forget those that nobody used in time."""
        now = time.time()
        token = Token(id=secrets.token_hex(TOKEN_BYTES), host=host, until=now + ttl_s)

        def change(old: Ledger) -> Ledger:
            alive = tuple(item for item in old.tokens if item.until > now)
            return old.model_copy(update={"tokens": (*alive, token)})

        self._change(change)
        return token

    def spend_token(self, token: str, host: str) -> None:
        """Mark a token as used, on disk; raises `PrerequisiteError` when it is not good, or not for this host."""

        def change(old: Ledger) -> Ledger:
            found = next((item for item in old.tokens if item.id == token), None)
            if found is None or found.until < time.time():
                raise _refused("this token has expired or was never given out")
            if found.used_by:
                raise _refused(f"this token was used by {found.used_by}")
            if found.host not in ("", host):
                raise _refused(f"this token is for {found.host}, not for {host}")
            used = found.model_copy(update={"used_by": host})
            return old.model_copy(update={"tokens": tuple(used if item is found else item for item in old.tokens)})

        self._change(change)

    def _read(self) -> Ledger:
        try:
            return Ledger.model_validate_json((self._pki / LEDGER).read_bytes())
        except FileNotFoundError:
            return Ledger()
        except ValidationError as error:
            raise UsageError(f"{self._pki / LEDGER}: {error.errors()[0]['msg']}", code="bad-ledger") from error

    def _change(self, change: Callable[[Ledger], Ledger]) -> None:
        with self._locked():
            changed = change(self._read())
            write_secret(self._pki / LEDGER, (changed.model_dump_json(indent=2) + "\n").encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._pki / "issued.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _refused(why: str) -> PrerequisiteError:
    hint = "make another one on the authority's host: lifeboat cluster token"
    return PrerequisiteError(why, code="bad-token", hint=hint)
