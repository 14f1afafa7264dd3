"""Calls to a peer's API: HTTPS with both certificates, one kept-alive connection a thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, TypeVar

import requests
from pydantic import ValidationError
from requests.adapters import HTTPAdapter

from migrator.errors import ExecutionError, PeerError, PrerequisiteError
from migrator.model import HostFacts, Value
from migrator.peers.membership import Peer

CONNECT_TIMEOUT_S = 3.0

Reply = TypeVar("Reply", bound=Value)


class _NameCheckingAdapter(HTTPAdapter):
    """Checks the certificate against the peer's name although it is called by its address."""

    def __init__(self, name: str) -> None:
        self._name = name
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, assert_hostname=self._name, server_hostname=self._name)


class PeerClient:
    """One peer, as this host calls it; safe to share between threads."""

    def __init__(self, peer: Peer, pki: Path) -> None:
        self.name = peer.name
        self.address = peer.address
        host = f"[{peer.address}]" if ":" in peer.address else peer.address
        self._base = f"https://{host}:{peer.port}"
        self._pki = pki
        self._sessions = threading.local()

    def facts(self, timeout_s: float = 20.0) -> HostFacts:
        """Return what the peer tells about itself."""
        return self.call("GET", "/v1/facts", None, HostFacts, timeout_s=timeout_s)

    def call(
        self, method: str, path: str, body: Value | bytes | None, reply: type[Reply], *, timeout_s: float
    ) -> Reply:
        """Call the peer and return its answer.

        Raises `PeerError` when it cannot be reached, is silent for `timeout_s` seconds or fails, and
        `PrerequisiteError` with its own code and words when it refuses.
        """
        data = body.model_dump_json().encode() if isinstance(body, Value) else body
        kind = "application/json" if isinstance(body, Value) else "application/octet-stream"
        try:
            response = self._session().request(
                method,
                self._base + path,
                data=data,
                headers={"Content-Type": kind},
                timeout=(CONNECT_TIMEOUT_S, timeout_s),
            )
        except requests.RequestException as error:
            raise PeerError(
                f"{self.name} cannot be reached at {self._base}: {_cause(error)}",
                code="peer-unreachable",
                hint="is lifeboatd running there?",
                temporary=True,
            ) from error
        if response.status_code >= 400:
            raise self._refusal(response)
        try:
            return reply.model_validate_json(response.content)
        except ValidationError as error:
            raise PeerError(f"{self.name} speaks another version of the protocol", code="peer-version") from error

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # a proxy or another CA in the environment is not for peers
            session.cert = (str(self._pki / "host.crt"), str(self._pki / "host.key"))
            session.verify = str(self._pki / "ca.crt")
            session.mount("https://", _NameCheckingAdapter(self.name))
            self._sessions.session = session
        return session

    def _refusal(self, response: requests.Response) -> ExecutionError | PrerequisiteError:
        try:
            told = response.json()
            code, message = str(told["code"]), str(told["message"])
        except (ValueError, KeyError, TypeError):
            return PeerError(f"{self.name} answered {response.status_code}", code="peer-failed")
        kind = PrerequisiteError if told.get("kind") == "prerequisite" else PeerError
        return kind(message, code=code, hint=str(told.get("hint", "")), temporary=bool(told.get("temporary")))


def _cause(error: BaseException) -> str:
    """Return the innermost reason of requests' nested errors."""
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else error)
    inner = getattr(reason, "reason", None)
    return str(inner or reason)
