"""The engine: everything `watchdog` may ask of `migrator`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter

from migrator.container.known import KnownContainers
from migrator.container.probe import probed
from migrator.container.verdicts import ContainerVerdict
from migrator.container.welcome import routes as fit_routes
from migrator.errors import ExecutionError, LifeboatError, NotAllowedError, PrerequisiteError, failure
from migrator.health import Health
from migrator.host import hardware
from migrator.host.facts import FactsReader, Standing
from migrator.model import (
    ContainerFacts,
    EvacuationPlan,
    HostFacts,
    Method,
    MigrationEvent,
    MigrationOutcome,
    Phase,
    Rejection,
)
from migrator.names import MigrationId, new_id
from migrator.outlook import Outlook
from migrator.peers.membership import PeerDirectory
from migrator.peers.neighbours import HealthTold, Neighbours, Survey
from migrator.peers.server import Member
from migrator.peers.stream_server import StreamHandler
from migrator.protocol.journal import Journal, Side
from migrator.protocol.timeline import Observer
from migrator.recovery.by_hand import Settlement
from migrator.recovery.incoming import Caretaker, adopted
from migrator.recovery.outgoing import Ended, Failed, SourceRecovery, entry_of
from migrator.recovery.revival import Revival
from migrator.registry.opening import open_registry
from migrator.registry.records import Presence
from migrator.registry.records import Standing as RegistryStanding
from migrator.registry.settings import RegistrySettings
from migrator.settings import MigratorSettings
from migrator.source.checkpoint import Checkpoint
from migrator.source.claims import Claims
from migrator.source.company import run_together
from migrator.source.departure import Departure, Place
from migrator.source.migration import SourceMigration
from migrator.source.staging import Stager, Waiting
from migrator.source.turns import Turns
from migrator.target.checkpoints import Checkpoints
from migrator.target.desk import Desk
from migrator.target.giving_back import RETURN_LIMIT_S, Returned, give_back
from migrator.target.hall import Hall
from migrator.target.reservations import Held, Hold
from migrator.target.staging import Stagings
from migrator.vital import unbroken

JOURNAL = "journal.db"
HOLD_S = 120.0  # promises of an evacuation that is cut short are free again after this


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
        health: Callable[[], Health] = Health,
        registry: RegistrySettings | None = None,
    ) -> None:
        """`health` returns how this host is."""
        self._registry = open_registry(registry or RegistrySettings(), host, peers.pki, self._presence)
        self._claims = Claims()
        self._listeners: tuple[Ended, Failed] = (lambda _: None, lambda _: None)
        self._host = host
        self._settings = settings
        self._peers = peers
        self._health = health
        self._journal = Journal(state / JOURNAL)
        self._known = KnownContainers(self._journal, settings)
        self._departure = Departure(
            host=host,
            settings=settings,
            directory=peers.directory,
            state=state,
            runtime=runtime,
            journal=self._journal,
            turns=Turns(settings.limits),
            registry=self._registry,
        )
        self._hall = Hall(
            host=host,
            settings=settings,
            state=state,
            runtime=runtime,
            pki=peers.pki,
            journal=self._journal,
            stagings=Stagings(state),
            checkpoints=Checkpoints(state),
            registry=self._registry,
        )
        self._neighbours = Neighbours(peers, self._registry.lost_for_s)
        self._desk = Desk(self._hall, lambda: self._health().refusal, self._spare_bytes)
        self._revival = Revival(self._hall, self._desk, self._neighbours)
        self._facts = FactsReader(host, self._standing, self._known.census, settings)
        self._stager = Stager(self._departure, self._neighbours.client)
        self._outlook = Outlook(
            settings, self._journal, self._neighbours, self.facts, self._known, staged=lambda: self._stager.targets
        )

    def _presence(self) -> Presence:
        told = self._told_health()
        spare = max(0, self._spare_bytes())
        return Presence(host=self._host, verdict=told.verdict, evacuating=told.evacuating, spare_bytes=spare)

    def registry(self) -> RegistryStanding:
        """Tell how the registry stands."""
        return self._registry.standing()

    def containers(self) -> tuple[ContainerFacts, ...]:
        """Return the running containers of this host."""
        return self._known.running()

    def facts(self) -> HostFacts:
        """Return what this host tells its peers."""
        return self._facts.read()

    def survey(self) -> Survey:
        """Ask all peers how they are."""
        return self._neighbours.survey()

    def plan(
        self,
        containers: tuple[ContainerFacts, ...] | None = None,
        method: Method | None = None,
        *,
        time_left_s: float | None = None,
        avoid: Collection[str] = (),
    ) -> EvacuationPlan:
        """Plan to move the given containers, or all that run here; see `Outlook.plan`."""
        return self._outlook.plan(containers, method, time_left_s=time_left_s, avoid=avoid)

    def examine(self, containers: tuple[ContainerFacts, ...] | None = None) -> tuple[ContainerVerdict, ...]:
        """Say of the given containers, or all, what an evacuation would do with them and what each host says."""
        return self._outlook.examine(containers)

    def rehearse(self, container: str, target: str, method: Method | None) -> tuple[Rejection, ...]:
        """Return all that would keep `migrate` from moving a container, and all of its pod, to a target."""
        return self._outlook.rehearse(container, target, method)

    def hold(self, memory_bytes: Mapping[str, int]) -> tuple[Rejection, ...]:
        """Let targets hold memory for what is planned (0: nothing any more); return who refused, and why."""
        refused = []
        for host, size in memory_bytes.items():
            try:
                wish = Hold(source=self._host, memory_bytes=size, seconds=HOLD_S)
                held = self._registry.promise(host, wish)
                if held.memory_bytes >= size:
                    held = self._neighbours.hold(host, wish)
                if held.memory_bytes < size:
                    refused.append(Rejection(host=host, code="target-lacks-memory", reason=held.reason))
            except LifeboatError as error:
                refused.append(Rejection(host=host, code=error.code, reason=error.message))
        return tuple(refused)

    @property
    def staged(self) -> Mapping[str, str]:
        """Return container id -> the host where its files wait already."""
        return self._stager.targets

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """Return the same for people."""
        return self._stager.waiting

    def stage(self, container: ContainerFacts, target: str, seconds: float, go_on: Callable[[], None]) -> None:
        """Copy a container's image, volumes and layer ahead to a planned target; see `Stager.stage`."""
        self._stager.stage(container, target, seconds, go_on)

    def checkpoint_age_s(self, container: str) -> float:
        """Return how old the complete checkpoint is that waits for a container (its id); infinite without one."""
        kept_at = self._stager.kept_at(container)
        return time.time() - kept_at if kept_at is not None else float("inf")

    def checkpoint(self, container: ContainerFacts, target: str, stopped: threading.Event) -> MigrationOutcome:
        """Put a complete checkpoint of a container at a target; it runs on here."""
        if container.pod is not None:
            raise PrerequisiteError(f"{container.name} belongs to a pod, of which none is kept", code="in-pod")
        began_ns = time.time_ns()
        since_ns = self._stager.kept_since_ns(container.id, target)
        with self._claims.claim(container.id, container.name):
            outcome = Checkpoint(
                self._departure,
                migration=new_id(),
                container=container,
                target=self._neighbours.client(target),
                method=Method.FULL,
                observe=lambda _: None,
                place=Place(stopped=stopped, waiting_since_ns=lambda _: since_ns),
            ).run()
        self._look_after(container.id, outcome)
        if outcome.phase is Phase.KEPT:
            self._stager.kept(container, target, outcome.migration, began_ns)
        return outcome

    def withdraw(self, container: str) -> None:
        """Let what waits for a container (its id) at a target go."""
        self._stager.withdraw(container)

    def ask_back(self, migration: str, target: str) -> float:
        """After a drill: let a target give back what it got; return the freeze in milliseconds."""
        path = f"/v1/migrations/{migration}/return"
        found = self._neighbours.client(target).call("POST", path, None, Returned, timeout_s=RETURN_LIMIT_S)
        if found.error:
            raise ExecutionError(f"{target} could not give it back: {found.error}", code="not-given-back")
        return found.freeze_ms

    def probe(self, target: str) -> MigrationOutcome:
        """Move a throwaway container to a target, and leave nothing of it on either host."""
        name = f"lifeboat-probe-{new_id()}"
        return probed(
            name, self._host, self._hall.state, lambda name: self.migrate(name, target, None, lambda _: None)
        )

    def migrate(
        self,
        container: str,
        target: str,
        method: Method | None,
        observe: Observer,
        *,
        place: Place | None = None,
        planned: bool = False,
        beside: Ended = lambda _: None,
    ) -> MigrationOutcome:
        """Move one container, and with it all of its pod; blocks until that has ended.

        `place` is its place in an evacuation; `planned` says that the target was chosen a moment ago, so that only
        its own word is asked again. `beside` takes how the others of its pod ended. Raises `PrerequisiteError` or
        `PeerError` when it cannot even begin; after that the outcome tells.
        """
        asked_at = time.time()
        together = self._outlook.together(container)
        with ExitStack() as claimed:
            for facts in together:
                claimed.enter_context(self._claims.claim(facts.id, facts.name))
            rungs = [self._outlook.rung(facts, target, method, planned=planned) for facts in together]
            company = [new_id() for _ in together]
            outcomes = run_together(
                [
                    SourceMigration(
                        self._departure,
                        migration=migration,
                        container=facts,
                        target=self._neighbours.client(target),
                        method=rung,
                        observe=observe,
                        place=replace(
                            place or Place(), waiting_since_ns=self._stager.since_ns(facts.id, target).get
                        ),
                        asked_at=asked_at,
                        company=company,
                    ).run
                    for migration, facts, rung in zip(company, together, rungs, strict=True)
                ]
            )
        for facts, outcome in zip(together, outcomes, strict=True):
            self._look_after(facts.id, outcome)
        for outcome in outcomes[1:]:
            beside(outcome)
        return outcomes[0]

    def _look_after(self, container: str, outcome: MigrationOutcome) -> None:
        if not self._is_settled(outcome.migration):  # it was told; the work on it, or the waiting, goes on
            self._follow(outcome.migration)
        elif outcome.phase is Phase.DONE and container in self._stager.targets:
            threading.Thread(target=self._stager.withdraw, args=(container,), name="withdraw", daemon=True).start()

    def _is_settled(self, migration: str) -> bool:
        """Say whether the journal says so; one that cannot be read does not."""
        try:
            entry = self._journal.entry(migration)
        except LifeboatError:
            return False
        return entry is not None and entry.settled

    def take_up(self) -> None:
        """After a restart, before peers may call: know the incoming migrations that have no end yet."""
        for reception in adopted(self._hall, self._journal):
            self._desk.take_up(reception)

    def recover(self, ended: Callable[[MigrationOutcome], None], failed: Callable[[str], None]) -> None:
        """After a restart, when peers may call: bring to an end, in threads, what has none yet.

        `ended` takes how each migration away from here ended, and what was lost here; `failed` takes the
        words for a human where that could not be done.
        """
        self._listeners = (unbroken(ended), unbroken(failed))
        unfinished = self._journal.entries(unfinished=True)  # it fails before anything is begun
        for entry in unfinished:
            if entry.side is Side.SOURCE:
                self._follow(entry.migration)
        self._registry.start()
        threading.Thread(target=self._desk.get_ready, name="desk", daemon=True).start()
        desk = self._desk
        tell, _ = self._listeners
        Caretaker(self._hall, self._peers, desk.receptions, desk.forget, tell=tell, revival=self._revival).start()

    def _follow(self, migration: str) -> None:
        threading.Thread(target=self._recover, args=(migration,), name="recovery", daemon=True).start()

    def _recover(self, migration: str) -> None:
        ended, failed = self._listeners
        try:
            entry = entry_of(self._journal, migration)
            if entry is None:  # it was refused before anything was done
                return
            recovery = SourceRecovery(self._departure, entry, self._peers)
            with self._claims.wait_for(recovery.journey.container.id):
                recovery.run(ended, failed)
        except Exception as raised:  # noqa: BLE001  whatever it is, somebody has to hear of it
            why = f"{failure(raised)}; see: lifeboat recover {migration}"
            failed(f"the migration {migration} could not be brought to an end: {why}")

    @property
    def settlement(self) -> Settlement:
        """Return what a human may do about migrations that did not end by themselves."""
        return Settlement(self._departure, self._peers, self._desk.reception_here, self._revival)

    def history(self, limit: int = 50) -> tuple[MigrationOutcome, ...]:
        """Return the latest migrations that have ended, newest first."""
        entries = self._journal.entries(limit=limit)
        return tuple(entry.outcome for entry in entries if entry.outcome is not None)

    def events(self, migration: str) -> tuple[MigrationEvent, ...]:
        """Return the journalled course of one migration."""
        return self._journal.events(migration)

    def peer_routes(self) -> APIRouter:
        """Return what peers may ask: the target's side of migrations, how this host is, to hold memory."""
        router = APIRouter()
        router.include_router(self._desk.routes())
        router.include_router(fit_routes(self._hall))
        router.include_router(self._desk.staging_routes())
        router.include_router(self._desk.checkpoint_routes())

        @router.get("/v1/health")
        def health() -> HealthTold:
            return self._told_health()

        @router.post("/v1/reservations")
        def hold(wish: Hold, member: Member) -> Held:
            if wish.source != member:
                raise NotAllowedError(f"{member} asks in the name of {wish.source}", code="not-yours")
            return self._desk.hold(wish)

        @router.post("/v1/migrations/{migration}/return")
        def give_back_drilled(migration: MigrationId, member: Member) -> Returned:
            return give_back(
                self._journal, migration, member, lambda name, to: self.migrate(name, to, None, lambda _: None)
            )

        return router

    def stream_handlers(self) -> Mapping[str, StreamHandler]:
        """Return the target's side of the streams."""
        return self._desk.streams()

    def _told_health(self) -> HealthTold:
        health = self._health()
        return HealthTold(
            host=self._host, verdict=health.verdict, since_s=health.since_s, evacuating=health.evacuating
        )

    def _standing(self) -> Standing:
        return Standing(self._health(), self._desk.reserved_bytes, self._desk.held)

    def _spare_bytes(self) -> int:
        """Return the memory that nobody uses, less the headroom."""
        return hardware.spare_bytes(self._settings.memory_headroom_percent)
