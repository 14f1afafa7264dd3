"""Calls to a peer's API: HTTPS with both certificates, one kept-alive connection a thread."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TypeVar, cast

from pydantic import ValidationError
from urllib3 import BaseHTTPResponse, Timeout
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from migrator.errors import ExecutionError, PeerError, PrerequisiteError
from migrator.model import HostFacts, Value
from migrator.peers.identity import RollFile
from migrator.peers.reach import Reach
from migrator.peers.roll import Peer
from migrator.peers.tls import OWN, check_called
from migrator.words import printable

CONNECT_TIMEOUT_S = 3.0
ANSWER_LIMIT_BYTES = 8 << 20  # the facts of a host with many containers and images have some 100 KB
PART_BYTES = 1 << 16
NOTICE_DEATH = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000),
)
"""A peer that dies while it answers is noticed within about two seconds (tcp(7)), however long it may take to
answer while it lives: a container stands still meanwhile."""

Reply = TypeVar("Reply", bound=Value)


class _PeerConnection(HTTPSConnection):
    """Looks the certificate up in the roll when the handshake is done."""

    pki: Path

    def connect(self) -> None:
        super().connect()
        check_called(cast(ssl.SSLSocket, self.sock), self.pki)


class PeerClient:
    """One peer, as this host calls it; safe to share between threads."""

    def __init__(self, peer: Peer, pki: Path) -> None:
        self.name = peer.name
        self.address = peer.address
        self._port = peer.port
        self._pki = pki
        self._roll = RollFile(pki.parent)
        self._pools = threading.local()

    def reach(self) -> Reach:
        """Return what notices that it cannot be reached any more."""
        return Reach(self.name, self.address, self._port)

    def facts(self, timeout_s: float = 20.0) -> HostFacts:
        """Return what the peer tells about itself."""
        found = self.call("GET", "/v1/facts", None, HostFacts, timeout_s=timeout_s)
        if found.host != self.name:
            raise PeerError(f"{self.name} tells facts of {printable(found.host)}", code="peer-facts")
        return found

    def call(
        self, method: str, path: str, body: Value | bytes | None, reply: type[Reply], *, timeout_s: float
    ) -> Reply:
        """Call the peer and return its answer.

        Raises `PeerError` when it cannot be reached, is silent for `timeout_s` seconds or fails, and
        `PrerequisiteError` with its own code and words when it refuses.
        """
        data = body.model_dump_json().encode() if isinstance(body, Value) else body
        kind = "application/json" if isinstance(body, Value) else "application/octet-stream"
        self.check_listed()
        try:
            asked = self._pool().urlopen(
                method,
                path,
                body=data,
                headers={"Content-Type": kind},
                timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            with closing(asked) as response:
                status, answer = response.status, self._read(response, timeout_s)
        except (HTTPError, OSError) as error:
            raise PeerError(
                f"{self.name} cannot be reached at {self.address} port {self._port}: {_cause(error)}",
                code="peer-unreachable",
                hint="is lifeboatd running there?",
                temporary=True,
            ) from error
        if status >= 300:
            raise self._refusal(status, answer)
        try:
            return reply.model_validate_json(answer)
        except ValidationError as error:
            raise PeerError(f"{self.name} speaks another version of the protocol", code="peer-version") from error

    def check_listed(self) -> None:
        """Raise `PeerError` when the host was removed meanwhile; whoever has not joined yet has no roll to ask."""
        known = self._roll.known
        if known.hosts and self.name not in known.hosts:
            raise PeerError(f"{self.name} is no host of this cluster any more", code="no-member")

    def _read(self, response: BaseHTTPResponse, timeout_s: float) -> bytes:
        """Read an answer; raises `PeerError` for one without an end."""
        deadline, answer = time.monotonic() + timeout_s, b""
        if getattr(response, "chunked", False):
            raise PeerError(f"{self.name} does not say how long its answer is", code="peer-failed")
        # As it comes, never unpacked: not waiting for more, whatever drips in.
        while part := response.read1(PART_BYTES, decode_content=False):
            answer += part
            if len(answer) > ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
                raise PeerError(f"{self.name} does not come to an end of its answer", code="peer-failed")
        return answer

    def _pool(self) -> HTTPSConnectionPool:
        """Return this thread's connection; it checks the peer's name although it is called by its address."""
        pool: HTTPSConnectionPool | None = getattr(self._pools, "pool", None)
        if pool is None:
            pool = HTTPSConnectionPool(
                self.address,
                self._port,
                maxsize=1,
                cert_file=str(self._pki / OWN),
                cert_reqs="CERT_REQUIRED",
                ca_certs=str(self._pki / "ca.crt"),
                assert_hostname=self.name,
                server_hostname=self.name,
                socket_options=[*HTTPSConnection.default_socket_options, *NOTICE_DEATH],
            )
            pool.ConnectionCls = type("Connection", (_PeerConnection,), {"pki": self._pki})
            self._pools.pool = pool
        return pool

    def _refusal(self, status: int, answer: bytes) -> ExecutionError | PrerequisiteError:
        try:
            told = json.loads(answer)
            code, message = printable(str(told["code"])), printable(str(told["message"]))
        except (ValueError, KeyError, TypeError):
            return PeerError(f"{self.name} answered {status}", code="peer-failed")
        kind = PrerequisiteError if told.get("kind") == "prerequisite" else PeerError
        hint = printable(str(told.get("hint", "")))
        return kind(message, code=code, hint=hint, temporary=bool(told.get("temporary")))


def _cause(error: BaseException) -> str:
    """Return the innermost reason of nested errors."""
    return str(error.__cause__ or (error.args[-1] if error.args else error))
