"""The engine: everything `watchdog` may ask of `migrator`."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fastapi import APIRouter

from migrator.caretaker import Caretaker, adopted
from migrator.choice import reject
from migrator.desk import Desk
from migrator.errors import LifeboatError, PrerequisiteError
from migrator.facts import FactsReader, Standing
from migrator.hall import Hall
from migrator.health import Verdict
from migrator.journal import Entry, Journal, Side
from migrator.model import (
    ContainerFacts,
    EvacuationPlan,
    HostFacts,
    Method,
    MigrationEvent,
    MigrationOutcome,
    Rejection,
)
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.peers.streams import StreamHandler
from migrator.plan import plan_evacuation, supported_method
from migrator.recovery import recover_source
from migrator.runtime import podman
from migrator.runtime.cgroup import Cgroup
from migrator.settings import MigratorSettings
from migrator.source import Departure, Journey, SourceMigration
from migrator.timeline import Observer

JOURNAL = "journal.db"


class Engine:
    """Moves containers of this host away, and takes those of others."""

    def __init__(
        self,
        *,
        host: str,
        settings: MigratorSettings,
        state: Path,
        runtime: Path,
        peers: PeerDirectory,
        health: Callable[[], tuple[Verdict, bool]] = lambda: (Verdict.HEALTHY, False),
    ) -> None:
        """`health` returns this host's verdict and whether it is cordoned."""
        self._settings = settings
        self._peers = peers
        self._health = health
        self._journal = Journal(state / JOURNAL)
        self._departure = Departure(
            host=host,
            settings=settings,
            directory=peers.directory,
            state=state,
            runtime=runtime,
            journal=self._journal,
        )
        self._hall = Hall(
            host=host, settings=settings, state=state, runtime=runtime, pki=peers.pki, journal=self._journal
        )
        self._desk = Desk(self._hall, self._refusal)
        self._facts = FactsReader(host, self._standing)
        self._moving: set[str] = set()
        self._lock = threading.Lock()

    def containers(self) -> tuple[ContainerFacts, ...]:
        """Return the running containers of this host."""
        return podman.running_containers()

    def facts(self) -> HostFacts:
        """Return what this host tells its peers."""
        return self._facts.read()

    def peer_facts(self) -> tuple[tuple[HostFacts, ...], tuple[Rejection, ...]]:
        """Ask all peers; return the facts of those that answered, and why the others did not."""
        found, silent = [], []
        for peer in self._peers.peers():
            try:
                found.append(self._client(peer.name).facts())
            except LifeboatError as error:
                silent.append(Rejection(host=peer.name, code="peer-unreachable", reason=str(error)))
        return tuple(found), tuple(silent)

    def plan(
        self, containers: tuple[ContainerFacts, ...] | None = None, method: Method | None = None
    ) -> EvacuationPlan:
        """Plan to move the given containers, or all that run here."""
        targets, silent = self.peer_facts()
        chosen = self.containers() if containers is None else containers
        plan = plan_evacuation(
            self.facts(),
            chosen,
            targets,
            method or self._settings.method,
            headroom_percent=self._settings.memory_headroom_percent,
        )
        if not silent:
            return plan
        migrations = tuple(
            item.model_copy(update={"rejections": (*item.rejections, *silent)}) for item in plan.migrations
        )
        return plan.model_copy(update={"migrations": migrations})

    def check(self, container: ContainerFacts, target: str, method: Method) -> tuple[Rejection, ...]:
        """Return every reason why a container cannot go to a target by a rung; empty when it can."""
        if reason := container.unsupported.get(method):
            return (Rejection(host=target, code="container-unsupported", reason=reason),)
        facts = self._client(target).facts()
        headroom = self._settings.memory_headroom_percent
        return reject(container, self.facts(), facts, method, headroom_percent=headroom)

    def migrate(self, container: str, target: str, method: Method | None, observe: Observer) -> MigrationOutcome:
        """Move one container; blocks until it has ended.

        Raises `PrerequisiteError` or `PeerError` when it cannot even begin; after that the outcome tells.
        """
        facts = podman.container(container)
        if not facts.running:
            raise PrerequisiteError(f"{facts.name} is not running", code="not-running")
        with self._claimed(facts.id, facts.name):
            return self._migrate(facts, target, method, observe)

    def _migrate(
        self, facts: ContainerFacts, target: str, method: Method | None, observe: Observer
    ) -> MigrationOutcome:
        if Cgroup.of_process(podman.first_pid(facts.id)).frozen:
            raise PrerequisiteError(
                f"{facts.name} stands frozen here: its last migration was committed but did not end",
                code="container-frozen",
                hint="find out whether it runs on the target (lifeboat history), then remove one of the two",
            )
        rung = supported_method(facts, method or self._settings.method)
        if rung is None:
            reasons = "; ".join(sorted(set(facts.unsupported.values()))) or "no such rung"
            raise PrerequisiteError(f"{facts.name} cannot be moved: {reasons}", code="container-unsupported")
        rejections = self.check(facts, target, rung)
        if rejections:
            first = rejections[0]
            raise PrerequisiteError(
                f"{target} cannot take {facts.name}: {'; '.join(item.reason for item in rejections)}",
                code=first.code,
            )
        client = self._client(target)
        migration = new_id()
        return SourceMigration(
            self._departure, migration=migration, container=facts, target=client, method=rung, observe=observe
        ).run()

    def take_up(self) -> None:
        """After a restart, before peers may call: know the incoming migrations that have no end yet."""
        for reception in adopted(self._hall, self._journal):
            self._desk.take_up(reception)

    def recover(self, ended: Callable[[MigrationOutcome], None], failed: Callable[[str], None]) -> None:
        """After a restart, when peers may call: bring to an end, in threads, what has none yet.

        `ended` takes how each migration away from here ended, and what was lost here; `failed` takes the
        words for a human where that could not be done.
        """
        for entry in self._journal.entries(unfinished=True):
            if entry.side is Side.SOURCE:
                work = (entry, ended, failed)
                threading.Thread(target=self._recover, args=work, name="recovery", daemon=True).start()
        Caretaker(self._hall, self._peers, self._desk.receptions, self._desk.forget, ended).start()

    def _recover(
        self, entry: Entry, ended: Callable[[MigrationOutcome], None], failed: Callable[[str], None]
    ) -> None:
        container = Journey.model_validate_json(entry.request).container
        try:
            with self._claimed(container.id, container.name):
                ended(recover_source(self._departure, entry, self._peers))
        except (LifeboatError, OSError) as error:
            failed(f"the migration {entry.migration} of {container.name} could not be brought to an end: {error}")

    def history(self, limit: int = 50) -> tuple[MigrationOutcome, ...]:
        """Return the latest migrations that have ended, newest first."""
        entries = self._journal.entries(limit=limit)
        return tuple(entry.outcome for entry in entries if entry.outcome is not None)

    def events(self, migration: str) -> tuple[MigrationEvent, ...]:
        """Return the journalled course of one migration."""
        return self._journal.events(migration)

    def peer_routes(self) -> APIRouter:
        """Return the target's side of the peer API."""
        return self._desk.routes()

    def stream_handlers(self) -> Mapping[str, StreamHandler]:
        """Return the target's side of the streams."""
        return self._desk.streams()

    @contextmanager
    def _claimed(self, container: str, name: str) -> Iterator[None]:
        """Hold a container against a second migration of it."""
        with self._lock:
            if container in self._moving:
                raise PrerequisiteError(
                    f"{name} is being moved already", code="already-moving", hint="lifeboat history", temporary=True
                )
            self._moving.add(container)
        try:
            yield
        finally:
            with self._lock:
                self._moving.discard(container)

    def _client(self, name: str) -> PeerClient:
        return PeerClient(self._peers.peer(name), self._peers.pki)

    def _standing(self) -> Standing:
        verdict, cordoned = self._health()
        return Standing(verdict, cordoned, self._desk.reserved_bytes)

    def _refusal(self) -> str:
        verdict, cordoned = self._health()
        if verdict is not Verdict.HEALTHY:
            return f"its own verdict is {verdict}"
        return "it is cordoned" if cordoned else ""


def new_id() -> str:
    """Return a new migration's id."""
    return uuid.uuid4().hex[:12]
