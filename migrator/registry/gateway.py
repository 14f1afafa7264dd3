"""etcd's JSON gateway: the few calls the registry needs, to whichever member answers.

Format: etcd 3.4 and later, api/etcdserverpb/rpc.proto through grpc-gateway: keys and values are base64, 64-bit
numbers are strings. A member that is slow or gone costs `timeout_s` once; the next call begins with another.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

from migrator.errors import ExecutionError
from migrator.registry.settings import RegistrySettings

Request = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One key with its value; `revision` changes with every change of it."""

    key: str
    value: bytes
    revision: int


class Gateway:
    """An etcd cluster; safe to share between threads."""

    def __init__(self, settings: RegistrySettings, certificate: str, authority: str) -> None:
        self._urls = list(settings.endpoints)
        self._timeout_s = settings.timeout_s
        self._certificate = certificate
        self._authority = authority
        self._sessions = threading.local()
        self._lock = threading.Lock()

    def read(self, prefix: str) -> tuple[Entry, ...]:
        """Return all keys that begin with a prefix."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        answer = self.call("kv/range", {"key": encode(prefix), "range_end": encode(end)})
        return tuple(_entry(item) for item in answer.get("kvs", ()))

    def get(self, key: str) -> Entry | None:
        """Return one key, None when it is not there."""
        found = self.call("kv/range", {"key": encode(key)}).get("kvs", ())
        return _entry(found[0]) if found else None

    def put(self, key: str, value: bytes, lease: int = 0) -> None:
        """Set a key; with a lease it goes when the lease ends."""
        self.call("kv/put", put(key, value, lease))

    def grant(self, seconds: int) -> int:
        """Return a new lease."""
        return int(self.call("lease/grant", {"TTL": str(seconds), "ID": "0"})["ID"])

    def keep_alive(self, lease: int) -> bool:
        """Renew a lease; False when it has ended."""
        answer = self.call("lease/keepalive", {"ID": str(lease)})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    def revoke(self, lease: int) -> None:
        """End a lease."""
        self.call("lease/revoke", {"ID": str(lease)})

    def transact(
        self, compare: Sequence[Request], success: Sequence[Request], failure: Sequence[Request] = ()
    ) -> tuple[bool, list[Any]]:
        """Do `success` if every comparison holds, else `failure`, in one step; return which, and the answers."""
        body = {"compare": list(compare), "success": list(success), "failure": list(failure)}
        answer = self.call("kv/txn", body)
        return bool(answer.get("succeeded")), list(answer.get("responses", ()))

    def call(self, path: str, body: Request) -> dict[str, Any]:
        """Ask the members one after the other; raises `ExecutionError` when none answers."""
        why = "none is named"
        for url in list(self._urls):
            try:
                answer = self._session().post(
                    f"{url.rstrip('/')}/v3/{path}", json=body, timeout=self._timeout_s, allow_redirects=False
                )
                told = answer.json()
            except (requests.RequestException, ValueError) as error:
                why = f"{url}: {error}"
                self._try_later(url)
                continue
            if answer.status_code == 200 and isinstance(told, dict):
                return told
            why = f"{url}: {answer.status_code} {str(told)[:200]}"
            if answer.status_code < 500:
                break  # it understood, and the others will say the same
            self._try_later(url)
        raise ExecutionError(f"etcd does not answer: {why}", code="registry-silent", temporary=True)

    def _try_later(self, url: str) -> None:
        with self._lock:
            if url in self._urls:
                self._urls.remove(url)
                self._urls.append(url)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._sessions, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False
            session.cert, session.verify = self._certificate, self._authority
            self._sessions.session = session
        return session


def put(key: str, value: bytes, lease: int = 0) -> dict[str, Any]:
    """Return the request that sets a key."""
    return {"key": encode(key), "value": base64.b64encode(value).decode(), "lease": str(lease)}


def unchanged(key: str, revision: int) -> dict[str, Any]:
    """Return the comparison that a key still has this revision; 0 that it is not there."""
    return {"key": encode(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def encode(key: str) -> str:
    """Return a key as the gateway wants it."""
    return base64.b64encode(key.encode()).decode()


def _entry(item: Mapping[str, Any]) -> Entry:
    key = base64.b64decode(item["key"]).decode("utf-8", "replace")
    return Entry(key, base64.b64decode(item.get("value", "")), int(item.get("mod_revision", 0)))
