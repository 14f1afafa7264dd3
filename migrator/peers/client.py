"""Calls to a peer's API: HTTPS with both certificates, one kept-alive connection a thread."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, TypeVar, cast

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.connectionpool import HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from migrator.errors import ExecutionError, PeerError, PrerequisiteError
from migrator.model import HostFacts, Value
from migrator.peers.identity import RollFile
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


class _NameCheckingAdapter(HTTPAdapter):
    """Checks the certificate against the peer's name although it is called by its address."""

    def __init__(self, name: str, pki: Path) -> None:
        self._name = name
        connection = type("Connection", (_PeerConnection,), {"pki": pki})
        self._pool = type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": connection})
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(
            *args,
            **options,
            assert_hostname=self._name,
            server_hostname=self._name,
            socket_options=[*HTTPSConnection.default_socket_options, *NOTICE_DEATH],
        )
        self.poolmanager.pool_classes_by_scheme = {"https": self._pool}


class PeerClient:
    """One peer, as this host calls it; safe to share between threads."""

    def __init__(self, peer: Peer, pki: Path) -> None:
        self.name = peer.name
        self.address = peer.address
        host = f"[{peer.address}]" if ":" in peer.address else peer.address
        self._base = f"https://{host}:{peer.port}"
        self._pki = pki
        self._roll = RollFile(pki.parent)
        self._sessions = threading.local()

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
        self._check_listed()
        try:
            with self._session().request(
                method,
                self._base + path,
                data=data,
                headers={"Content-Type": kind},
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
                stream=True,
                allow_redirects=False,
            ) as response:
                status, answer = response.status_code, self._read(response, timeout_s)
        except (requests.RequestException, HTTPError) as error:
            raise PeerError(
                f"{self.name} cannot be reached at {self._base}: {_cause(error)}",
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

    def _check_listed(self) -> None:
        """Ask nothing of a host that was removed meanwhile; whoever has not joined yet has no roll to ask."""
        known = self._roll.known
        if known.hosts and self.name not in known.hosts:
            raise PeerError(f"{self.name} is no host of this cluster any more", code="no-member")

    def _read(self, response: requests.Response, timeout_s: float) -> bytes:
        """Read an answer; raises `PeerError` for one without an end."""
        deadline, answer = time.monotonic() + timeout_s, b""
        if response.raw.chunked:
            raise PeerError(f"{self.name} does not say how long its answer is", code="peer-failed")
        # As it comes, never unpacked: not waiting for more, whatever drips in.
        while part := response.raw.read1(PART_BYTES, decode_content=False):
            answer += part
            if len(answer) > ANSWER_LIMIT_BYTES or time.monotonic() > deadline:
                raise PeerError(f"{self.name} does not come to an end of its answer", code="peer-failed")
        return answer

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # a proxy or another CA in the environment is not for peers
            session.cert = str(self._pki / OWN)
            session.verify = str(self._pki / "ca.crt")
            session.mount("https://", _NameCheckingAdapter(self.name, self._pki))
            self._sessions.session = session
        return session

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
    """Return the innermost reason of requests' nested errors."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    inner = getattr(reason, "reason", None)
    return str(inner or reason)
