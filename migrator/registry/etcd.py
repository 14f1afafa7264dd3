"""The registry in etcd: presence by lease, promises of memory and commits by transaction, all signed by their host.

    PREFIX/hosts/HOST              Presence, on the host's lease: it goes when the host is silent for `lease_s`
    PREFIX/holds/TARGET/SOURCE     Hold, on a lease of its own
    PREFIX/guards/TARGET           changes with every hold, so that two cannot be counted without each other
    PREFIX/commits/MIGRATION       Commit, once

etcd being slow, cut off or gone costs nothing but what it would tell: one thread talks to it beside everything
else, promises are made by the targets as ever, and commits wait here until it is back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.peers.tls import OWN
from migrator.protocol.journal import Decision
from migrator.registry.gateway import Gateway, put, unchanged
from migrator.registry.records import Commit, Presence, Standing
from migrator.registry.settings import RegistrySettings
from migrator.registry.signed import Seal
from migrator.target.reservations import Held, Hold
from migrator.vital import vital_thread

TURNS_A_LEASE = 3
TRIES = 5
COMMIT_KEPT_S = 7 * 86400  # longer than a host that is asked for it may be away

_log = logging.getLogger(__name__)


class EtcdRegistry:
    """A cluster of etcd, as one host uses it; safe to share between threads."""

    def __init__(self, settings: RegistrySettings, host: str, pki: Path, presence: Callable[[], Presence]) -> None:
        """`presence` returns how this host is."""
        self._settings = settings
        self._host = host
        self._presence = presence
        self._seal = Seal(pki)
        certificate = settings.certificate_file or str(pki / OWN)
        self._gateway = Gateway(settings, certificate, settings.ca_file or str(pki / "ca.crt"))
        self._lease = 0
        self._seen: dict[str, float] = {}
        self._there: dict[str, Presence] = {}
        self._looked_at = float("-inf")
        self._answers = True
        self._commits: list[Commit] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False

    def start(self) -> None:
        """Begin to tell etcd that this host is here."""
        vital_thread("registry", self._run).start()

    def stop(self) -> None:
        """Tell nothing any more; the lease ends by itself, for a daemon that starts again is not gone."""
        self._stopping = True
        self._wake.set()

    def promise(self, target: str, wish: Hold) -> Held:
        """See `Registry.promise`; while etcd is silent the target alone decides."""
        try:
            return self._promise(target, wish)
        except LifeboatError as error:
            _log.warning("a promise of %s is not in the registry: %s", target, error)
            return Held(memory_bytes=wish.memory_bytes)

    def record(self, commit: Commit) -> None:
        """See `Registry.record`."""
        with self._lock:
            self._commits.append(commit)
        self._wake.set()

    def decision(self, migration: str, source: str, target: str) -> Decision | None:
        """See `Registry.decision`; a source that is there is to be asked itself: a human may have spoken since."""
        if self.lost_for_s(source) is None:
            return None
        key = self._key("commits", migration)
        try:
            entry = self._gateway.get(key)
            if entry is None:
                return None
            commit = self._seal.open(key, entry.value, source, Commit)
        except LifeboatError as error:
            _log.warning("the registry tells nothing of the migration %s: %s", migration, error)
            return None
        mine = (commit.migration, commit.source, commit.target) == (migration, source, target)
        return Decision.COMMIT if mine else None

    def lost_for_s(self, host: str) -> float | None:
        """See `Registry.lost_for_s`; no word of etcd's is older than a lease."""
        with self._lock:
            now = time.monotonic()
            if host in self._there or host not in self._seen or now - self._looked_at > self._settings.lease_s:
                return None
            return now - self._seen[host]

    def standing(self) -> Standing:
        """See `Registry.standing`."""
        lost = {host: self.lost_for_s(host) for host in list(self._seen)}
        with self._lock:
            return Standing(
                kind="etcd",
                answers=self._answers,
                hosts=tuple(self._there.values()),
                lost_s={host: round(since, 1) for host, since in lost.items() if since is not None},
            )

    def _run(self) -> None:
        while not self._stopping:
            self._turn()
            self._wake.wait(self._settings.lease_s / TURNS_A_LEASE)
            self._wake.clear()

    def _turn(self) -> None:
        """Say that we are here, look who else is, write down what waits."""
        try:
            self._write_commits()
            self._announce()
            self._look()
        except LifeboatError as error:
            if self._answers:
                _log.warning("the registry is silent, migrations go on without it: %s", error)
            self._answers = False
        else:
            if not self._answers:
                _log.info("the registry answers again")
            self._answers = True

    def _announce(self) -> None:
        key = self._key("hosts", self._host)
        if not self._lease or not self._gateway.keep_alive(self._lease):
            self._lease = self._gateway.grant(self._settings.lease_s)
        self._gateway.put(key, self._seal.sign(key, self._presence()), self._lease)

    def _look(self) -> None:
        prefix = self._key("hosts", "")
        there = {}
        for entry in self._gateway.read(prefix):
            host = entry.key.removeprefix(prefix)
            try:
                there[host] = self._seal.open(entry.key, entry.value, host, Presence)
            except LifeboatError as error:
                _log.warning("%s", error)
        with self._lock:
            now = time.monotonic()
            self._there, self._looked_at = there, now
            self._seen.update(dict.fromkeys(there, now))

    def _write_commits(self) -> None:
        while self._commits:
            commit = self._commits[0]
            key = self._key("commits", commit.migration)
            lease = self._gateway.grant(COMMIT_KEPT_S)
            write = {"request_put": put(key, self._seal.sign(key, commit), lease)}
            self._gateway.transact([unchanged(key, 0)], [write])
            with self._lock:
                self._commits.remove(commit)

    def _promise(self, target: str, wish: Hold) -> Held:
        key, guard = self._key("holds", target, wish.source), self._key("guards", target)
        for _ in range(TRIES):
            guarded = self._gateway.get(guard)
            spare = self._spare_bytes(target)
            others = self._held(target, besides=wish.source)
            if wish.memory_bytes and spare is not None and wish.memory_bytes > spare - others:
                free = max(0, spare - others) >> 20
                return Held(memory_bytes=0, reason=f"{wish.memory_bytes >> 20} MiB asked for, {free} MiB are free")
            lease = self._gateway.grant(max(1, int(wish.seconds)))
            write = [{"request_put": put(key, self._seal.sign(key, wish), lease)}]
            write.append({"request_put": put(guard, self._host.encode())})
            done, _ = self._gateway.transact([unchanged(guard, guarded.revision if guarded else 0)], write)
            if done:
                return Held(memory_bytes=wish.memory_bytes)
            self._gateway.revoke(lease)
        return Held(memory_bytes=0, reason=f"too many hosts ask {target} at once")

    def _spare_bytes(self, target: str) -> int | None:
        key = self._key("hosts", target)
        entry = self._gateway.get(key)
        return self._seal.open(key, entry.value, target, Presence).spare_bytes if entry else None

    def _held(self, target: str, besides: str) -> int:
        prefix = self._key("holds", target, "")
        total = 0
        for entry in self._gateway.read(prefix):
            source = entry.key.removeprefix(prefix)
            if source != besides:
                total += self._seal.open(entry.key, entry.value, source, Hold).memory_bytes
        return total

    def _key(self, *parts: str) -> str:
        return "/".join((self._settings.prefix, *parts))
