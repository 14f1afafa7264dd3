"""The target's desk: the peer API's routes and streams for incoming migrations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from anyio import to_thread
from fastapi import APIRouter, Request

from migrator.admission import admit
from migrator.admission.rules import Joined, Terms
from migrator.errors import LifeboatError, NotAllowedError, PrerequisiteError
from migrator.model import Method, Phase
from migrator.names import MigrationId
from migrator.peers.limits import IMAGES_BYTES
from migrator.peers.server import Member
from migrator.peers.stream_server import StreamHandler
from migrator.protocol.journal import Decision, Entry, Fate, Side
from migrator.protocol.messages import (
    Accepted,
    DecisionTold,
    InFlight,
    Opened,
    ParkRequest,
    Proposal,
    Report,
    Standing,
)
from migrator.protocol.steps import Reply, answer_proposal
from migrator.runtime import podman
from migrator.settings import BindMounts
from migrator.source.migration import Journey
from migrator.target.checkpoint_desk import routes as checkpoint_routes
from migrator.target.hall import Hall
from migrator.target.intake import Intake
from migrator.target.reception import Reception
from migrator.target.reservations import Held, Hold, Reservations
from migrator.target.staging_desk import StagingDesk


class Desk:
    """All receptions of this host."""

    def __init__(self, hall: Hall, accepting: Callable[[], str], spare_bytes: Callable[[], int]) -> None:
        """`accepting` returns why this host takes nothing now, or an empty text.

        `spare_bytes` returns the memory nobody uses, less the headroom; promises are not yet subtracted.
        """
        self._hall = hall
        self._accepting = accepting
        self._spare_bytes = spare_bytes
        self._reservations = Reservations()
        self._stagings = StagingDesk(hall, self._check_accepting)
        self._receptions: dict[str, Reception] = {}
        self._lock = threading.Lock()
        self._intake = Intake(hall, self._stagings, self.reception, self._knows)

    def get_ready(self) -> None:
        """Find out early what takes long when a container is parked here; a failure shows when it is needed."""
        with suppress(LifeboatError):
            podman.places()

    @property
    def reserved_bytes(self) -> int:
        """Return the memory promised to migrations under way."""
        with self._lock:
            return self._reserved_bytes()

    @property
    def held(self) -> dict[str, int]:
        """Return the memory held for evacuations of other hosts, by host."""
        return self._reservations.held(time.monotonic())

    def receptions(self) -> tuple[Reception, ...]:
        """Return all receptions known to this process."""
        with self._lock:
            return tuple(self._receptions.values())

    def reserve(self, proposal: Proposal) -> Accepted:
        """Take a proposal, or refuse it with a reason; a repeated one is answered again."""
        return self._entered(proposal, stale=False).reserve()

    def revivable(self, proposal: Proposal, request: ParkRequest) -> ParkRequest:
        """Return what podman may be given to revive a container; raises `PrerequisiteError` when it may not."""
        self._check_method(proposal)
        self._check_accepting()
        return self.admitted(proposal, request)

    def revive(self, proposal: Proposal) -> Reception:
        """Begin what a human on this host wants from a checkpoint that waits here; its source is dead."""
        reception = self._entered(proposal, stale=True)
        reception.reserve()
        return reception

    def _entered(self, proposal: Proposal, *, stale: bool) -> Reception:
        self._check_method(proposal)
        self._check_company(proposal)
        if self._answer_proposal(proposal, self._receptions.get(proposal.migration)) is Reply.DO:
            self._drop_earlier(proposal)
        with self._lock:
            reception = self._receptions.get(proposal.migration)
            reply = self._answer_proposal(proposal, reception)
            if reply is Reply.DO:
                self._check_accepting()
                self._check_unique(proposal)
                self._check_room(proposal)
                reception = Reception(self._hall, proposal, stale=stale)
                self._receptions[proposal.migration] = reception
                self._reservations.take(proposal.source, proposal.container.memory_bytes)
        if reply is Reply.REFUSE or reception is None or reception.proposal.source != proposal.source:
            raise PrerequisiteError(
                f"{self._hall.host} has settled this migration, or knows a later one of {proposal.container.name}",
                code="old-epoch",
            )
        return reception

    def _drop_earlier(self, proposal: Proposal) -> None:
        """A source that offers a container again has given up on what it began before, and that is not restored."""
        for other in in_the_way(proposal, self.receptions()):
            if _is_same(proposal, other) and other.record.decision is not Decision.COMMIT:
                other.abandon("its source begins anew")

    def _check_unique(self, proposal: Proposal) -> None:
        """Refuse a second one of a name or an id; podman does so only when it is parked, with both at risk."""
        for other in in_the_way(proposal, self._receptions.values()):
            again = _is_same(proposal, other)
            raise PrerequisiteError(
                f"{other.proposal.container.name} of {other.proposal.source} is on its way to {self._hall.host}",
                code="target-busy" if again else "target-name-taken",  # busy: it is settled in a moment
                temporary=True,
                hint=f"see there: lifeboat recover {other.proposal.migration}",
            )

    def _check_method(self, proposal: Proposal) -> None:
        """A cold migration creates the container by the source's words, which nobody can look through."""
        if proposal.method is Method.COLD and not self._hall.settings.accept_privileged:
            raise PrerequisiteError(
                f"{self._hall.host} creates no containers by the words of other hosts",
                code="cold-not-accepted",
                hint="set migrator.accept_privileged = true there, if its peers are trusted that far",
            )

    def _check_company(self, proposal: Proposal) -> None:
        """One decision is written for all that a proposal names, and it itself: they must be its source's own."""
        for entry in filter(None, map(self._hall.journal.entry, {proposal.migration, *proposal.company})):
            if entry.side is not Side.TARGET or _source(entry) != proposal.source:
                raise PrerequisiteError(f"{entry.migration} is no migration of {proposal.source}", code="not-yours")

    def _answer_proposal(self, proposal: Proposal, reception: Reception | None) -> Reply:
        entry = self._hall.journal.entry(proposal.migration)
        return answer_proposal(
            reception.standing if reception else None,
            self._hall.journal.decision(proposal.migration),
            ended=entry is not None and entry.settled,
            epoch=proposal.epoch,
            known_epoch=self._hall.journal.epoch(proposal.container.id),
        )

    def hold(self, wish: Hold) -> Held:
        """Hold memory for an evacuation of another host, or refuse with a reason."""
        if wish.memory_bytes:
            self._check_accepting()
        with self._lock:
            free = self._spare_bytes() - self._reserved_bytes()
            return self._reservations.hold(wish, free, time.monotonic())

    def _check_accepting(self) -> None:
        if refusal := self._accepting():
            raise PrerequisiteError(
                f"{self._hall.host} takes no container: {refusal}", code="target-refuses", temporary=True
            )

    def _check_room(self, proposal: Proposal) -> None:
        """Refuse what would overbook this host, whatever the source read in facts that are old by now."""
        most = self._hall.settings.incoming_at_once
        under_way = {item.proposal.together[0] for item in self._receptions.values() if not item.ended}
        if len(under_way - {proposal.together[0]}) >= most:  # a pod is as one: it comes whole, or not at all
            raise PrerequisiteError(
                f"{self._hall.host} takes {most} migrations at once and has as many",
                code="target-busy",
                temporary=True,
            )
        others = self._reservations.held_for_others(proposal.source, time.monotonic())
        free = self._spare_bytes() - self._reserved_bytes() - others
        if proposal.container.memory_bytes > free:
            raise PrerequisiteError(
                f"{self._hall.host} has {max(0, free) >> 20} MiB left to promise, "
                f"{proposal.container.name} needs {proposal.container.memory_bytes >> 20} MiB",
                code="target-lacks-memory",
                temporary=True,
            )

    def _reserved_bytes(self) -> int:
        return sum(reception.reserved_bytes for reception in self._receptions.values())

    def reception(self, migration: str, source: str) -> Reception:
        """Return one reception; raises `PrerequisiteError` for an unknown one, also when it is another host's."""
        with self._lock:
            found = self._receptions.get(migration)
        if found is None or found.proposal.source != source:
            raise PrerequisiteError(
                f"{self._hall.host} knows nothing of the migration {migration}", code="unknown-migration"
            )
        found.touch()
        return found

    def reception_here(self, migration: str) -> Reception:
        """Return one reception, for a human on this host; raises `PrerequisiteError` for an unknown one."""
        with self._lock:
            found = self._receptions.get(migration)
        if found is None:
            raise PrerequisiteError(f"there is no incoming migration {migration}", code="unknown-migration")
        return found

    def take_up(self, reception: Reception) -> None:
        """Know a reception that an earlier daemon began."""
        with self._lock:
            self._receptions[reception.proposal.migration] = reception

    def forget(self, migration: str) -> None:
        """Drop a reception that has ended."""
        with self._lock:
            self._receptions.pop(migration, None)

    def routes(self) -> APIRouter:
        """Return the routes; see migrator/protocol/messages.py."""
        router = APIRouter(prefix="/v1/migrations")

        @router.post("")
        def reserve(proposal: Proposal, member: Member) -> Accepted:
            if proposal.source != member:
                raise NotAllowedError(f"{member} offers a container of {proposal.source}", code="not-yours")
            return self.reserve(proposal)

        @router.post("/{migration}/park")
        def park(migration: MigrationId, request: ParkRequest, member: Member) -> Report:
            reception = self.reception(migration, member)
            reception.park(self.admitted(reception.proposal, request, reception.joined()))
            return reception.report()

        @router.post("/{migration}/restore")
        async def restore(migration: MigrationId, request: Request, member: Member) -> Report:
            images = await _body(request)
            return await _in_thread(lambda: self._restore(migration, member, images))

        @router.post("/{migration}/commit")
        def commit(migration: MigrationId, member: Member, in_flight: InFlight | None = None) -> Opened:
            return self.reception(migration, member).commit(in_flight.packets if in_flight else ())

        @router.post("/{migration}/complete")
        def complete(migration: MigrationId, member: Member) -> Report:
            reception = self.reception(migration, member)
            reception.complete()
            return reception.report()

        @router.get("/{migration}")
        def report(migration: MigrationId, member: Member) -> Report:
            return self._report(migration, member)

        @router.delete("/{migration}")
        def abort(migration: MigrationId, member: Member) -> Report:
            reception = self.reception(migration, member)
            reception.abort("the source withdrew")
            return reception.report()

        self._add_words(router)
        return router

    def staging_routes(self) -> APIRouter:
        """Return the routes by which suspect hosts let files wait here."""
        return self._stagings.routes()

    def checkpoint_routes(self) -> APIRouter:
        """Return the routes by which suspect hosts let complete checkpoints wait here."""
        return checkpoint_routes(self._hall, self._check_accepting)

    def _add_words(self, router: APIRouter) -> None:
        """Add what is said when something went wrong."""

        @router.post("/{migration}/yield")
        def yield_container(migration: MigrationId, member: Member) -> Report:
            self._yield(migration, member)
            return self._report(migration, member)

        @router.get("/{migration}/decision")
        def decision(migration: MigrationId, member: Member) -> DecisionTold:
            return self.decision(migration, member)

    def decision(self, migration: str, target: str) -> DecisionTold:
        """Tell a target what was decided here; nothing of a migration to another host, as if there were none."""
        entry = self._hall.journal.entry(migration)
        if entry is None or entry.side is not Side.SOURCE or _target(entry) != target:
            return DecisionTold(migration=migration, decision="")
        word = self._hall.journal.decision(migration)
        return DecisionTold(
            migration=migration, decision=word or "", ended=entry.settled, resumed=entry.fate is Fate.RESUME
        )

    def streams(self) -> Mapping[str, StreamHandler]:
        """Return what takes bulk data: trees by rsync, container images, complete process images."""
        return self._intake.streams()

    def _knows(self, migration: str) -> bool:
        with self._lock:
            return migration in self._receptions

    def admitted(self, proposal: Proposal, request: ParkRequest, joined: Joined | None = None) -> ParkRequest:
        """Return what podman may be given of a request; raises `PrerequisiteError` where that is not clear.

        `joined` is the pod that was made here for it.
        """
        if proposal.method is Method.COLD:
            return request  # see _check_method
        settings = self._hall.settings
        terms = Terms(
            settings.accept_privileged,
            settings.shared_paths,
            sync=settings.bind_mounts is BindMounts.SYNC,
            joined=joined,
        )
        return admit(proposal.container, request, terms, podman.places())

    def _report(self, migration: str, source: str) -> Report:
        """Tell how a migration stands; of one that is over, or was never heard of, the journal tells."""
        with self._lock:
            reception = self._receptions.get(migration)
        if reception is not None and reception.proposal.source == source:
            reception.touch()
            return reception.report()
        journal = self._hall.journal
        entry = journal.entry(migration)
        if entry is not None and (entry.side is not Side.TARGET or _source(entry) != source):
            return Report(migration=migration, standing=Standing.UNKNOWN)
        return Report(migration=migration, standing=standing_in(entry, journal.decision(migration)))

    def _yield(self, migration: str, source: str) -> None:
        """A human resumes the container at the source; of what was never heard of here nothing will ever come."""
        with self._lock:
            reception = self._receptions.get(migration)
        if reception is not None and reception.proposal.source == source:
            reception.yield_container()
        elif self._hall.journal.entry(migration) is None:
            self._hall.journal.decide(migration, Decision.ABORT)

    def _restore(self, migration: str, source: str, images: bytes) -> Report:
        reception = self.reception(migration, source)
        reception.restore(images or None)
        return reception.report()


def in_the_way(proposal: Proposal, receptions: Iterable[Reception]) -> list[Reception]:
    """Return what comes here, and has no end yet, under the name or the id of a container that is offered."""
    own, mine = proposal.migration, {proposal.container.name, proposal.container.id}
    others = [item for item in receptions if item.proposal.migration != own and not item.ended]
    return [item for item in others if mine & {item.proposal.container.name, item.proposal.container.id}]


def _is_same(proposal: Proposal, other: Reception) -> bool:
    """Say whether the same source offers the same container as before."""
    return (other.proposal.source, other.proposal.container.id) == (proposal.source, proposal.container.id)


def _target(entry: Entry) -> str:
    return Journey.model_validate_json(entry.request).target


def _source(entry: Entry) -> str:
    return Proposal.model_validate_json(entry.request).source


def standing_in(entry: Entry | None, decision: Decision | None) -> Standing:
    """Return how a migration stands of which nothing but what the journal has is left."""
    if decision is Decision.ABORT:
        return Standing.ABORTED
    if entry is None:
        return Standing.UNKNOWN
    if entry.fate is Fate.FALL_BACK:
        return Standing.FELL_BACK
    if entry.fate is Fate.YIELD:
        return Standing.YIELDED
    return Standing.COMPLETE if entry.outcome and entry.outcome.phase is Phase.DONE else Standing.LOST


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > IMAGES_BYTES:
            raise PrerequisiteError("the images are too large", code="images-too-large")
        parts.append(part)
    return b"".join(parts)


async def _in_thread(work: Callable[[], Report]) -> Report:
    return await to_thread.run_sync(work)
