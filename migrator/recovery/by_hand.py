"""What a human decides about a migration that did not end by itself: `lifeboat recover`.

Nothing here happens by itself. Before a container may run, the other host has promised that it never runs it from
this migration, or a human has said that the other host is dead, and sees to it that it stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from migrator.container import removal
from migrator.container.settle import start_anew, tell_neighbours
from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.model import Method, MigrationOutcome, Phase, Value
from migrator.peers.membership import PeerDirectory
from migrator.protocol.journal import Entry, Fate, Side
from migrator.protocol.messages import Report, Standing
from migrator.protocol.steps import Place, Sight, may_resume, may_take_over, place
from migrator.recovery.incoming import ask_source
from migrator.recovery.outgoing import SourceRecovery
from migrator.recovery.revival import Revival, not_proved, told_of
from migrator.runtime import podman, tombstone
from migrator.source.company import remove_empty
from migrator.source.departure import Departure
from migrator.target.checkpoints import Kept
from migrator.target.reception import Reception
from migrator.terms import Wish

ASK_WAIT_S = 15.0


class Situation(Value):
    """A migration that has no end, as this host sees it."""

    migration: str
    container: str
    side: Side
    peer: str
    peer_says: str  # how it stands there; empty when the peer does not answer
    place: Place
    here: str  # what is here
    resume_loses: str  # what is lost when it is resumed here
    forget_loses: str
    resume_refused: str  # why it may not be resumed here now; empty when it may


class Settlement:
    """The human's deeds."""

    def __init__(
        self,
        shared: Departure,
        peers: PeerDirectory,
        reception: Callable[[str], Reception],
        revival: Revival,
    ) -> None:
        """`reception` returns an incoming migration by its id."""
        self._revival = revival
        self._shared = shared
        self._peers = peers
        self._reception = reception

    def situations(self) -> tuple[Situation, ...]:
        """Tell of every migration that has no end yet, and of the checkpoints whose hosts do not answer."""
        entries = self._shared.journal.entries(unfinished=True)
        orphans = self._revival.orphans()
        return tuple(
            [self._situation_told(entry) for entry in entries]
            + [_orphaned(kept, refused) for kept, refused in orphans]
        )

    def settle(self, migration: str, wish: Wish, *, dead: Side | None) -> MigrationOutcome:
        """Do what a human decided; `dead` is the end that was declared dead.

        Raises `CallAHumanError` when it could let two copies run.
        """
        if (kept := self._revival.find(migration)) is not None:
            return self._settle_kept(kept, wish, declared_dead=dead is Side.SOURCE)
        entry = self._shared.journal.entry(migration)
        if entry is None:
            raise PrerequisiteError(
                f"there is no migration {migration!r} in the journal",
                code="no-such-migration",
                hint="lifeboat recover",
            )
        if entry.settled:
            raise PrerequisiteError(f"the migration {migration} has ended", code="settled", hint="lifeboat history")
        if dead is entry.side:
            raise PrerequisiteError(f"this host is the {dead} of {migration}", code="not-dead")
        declared_dead = dead is not None
        if entry.side is Side.TARGET:
            return self._settle_here(self._reception(migration), entry, wish, declared_dead=declared_dead)
        recovery = SourceRecovery(self._shared, entry, self._peers)
        if wish is Wish.FORGET:
            return self._forget(recovery, entry)
        return self._resume(recovery, entry, declared_dead=declared_dead)

    # --- at the source

    def _resume(self, recovery: SourceRecovery, entry: Entry, *, declared_dead: bool) -> MigrationOutcome:
        """Let it run here again, and all of its pod: first every target's promise, then the row, then the deeds."""
        together = self._together(recovery, entry)
        if entry.fate is Fate.RELEASE:
            raise ExecutionError(f"{recovery.client.name} has all it needs of its pod", code="sealed")
        for each, its in together:
            standing = self._let_target_yield(each, its)
            _refuse(may_resume(its.decision, standing, declared_dead=declared_dead))
        if recovery.migration.company.seal(Fate.RESUME) is not Fate.RESUME:
            raise ExecutionError("it was thrown away here already", code="sealed")
        if (pod := recovery.journey.container.pod) is not None:
            tombstone.lift_infra(self._shared.state, pod.infra)
        return _each([partial(self._run_again, each) for each, _ in together])

    def _together(self, recovery: SourceRecovery, entry: Entry) -> list[tuple[SourceRecovery, Entry]]:
        """Return a migration and behind it those of its pod that have no end yet."""
        found = [(recovery, entry)]
        for other in recovery.journey.company:
            known = self._shared.journal.entry(other)
            if known is not None and other != entry.migration and not known.settled:
                found.append((SourceRecovery(self._shared, known, self._peers), known))
        return found

    def _run_again(self, recovery: SourceRecovery) -> MigrationOutcome:
        container = recovery.journey.container
        self._shared.journal.learn_epoch(container.id, recovery.journey.epoch + 1)
        recovery.migration.holding.adopt()
        frozen = recovery.migration.holding.memory_is_here
        if not frozen:
            tombstone.lift(self._shared.state, container)
        recovery.migration.holding.resume()
        tombstone.lift(self._shared.state, container)
        if frozen:
            tell_neighbours(container.name)
        else:
            start_anew(container.name)
        how = "with the memory of the switchover" if frozen else "anew from its files, for its memory was lost"
        error = ExecutionError(f"a human let it run here again, {how}", code="resumed")
        return recovery.migration.end(Phase.ABORTED, error)

    def _let_target_yield(self, recovery: SourceRecovery, entry: Entry) -> Standing | None:
        """Ask the target to promise that it never runs the container; return how it stands there then."""
        path = f"/v1/migrations/{entry.migration}/yield"
        try:
            return recovery.client.call("POST", path, None, Report, timeout_s=ASK_WAIT_S).standing
        except LifeboatError:
            return recovery.ask_target()

    def _forget(self, recovery: SourceRecovery, entry: Entry) -> MigrationOutcome:
        if not entry.decision:
            raise PrerequisiteError("it was not committed: the container is in use here", code="not-committed")
        if recovery.migration.company.seal(Fate.FORGET) is Fate.RESUME:
            raise ExecutionError("it was resumed here already", code="sealed")
        return _each([partial(self._throw_away, each) for each, _ in self._together(recovery, entry)])

    def _throw_away(self, recovery: SourceRecovery) -> MigrationOutcome:
        container = recovery.journey.container
        self._shared.journal.learn_epoch(container.id, recovery.journey.epoch)
        tombstone.leave(self._shared.state, container, recovery.journey.target, recovery.migration.id)
        recovery.migration.holding.adopt()
        recovery.migration.holding.release()
        removal.remove(container.id, container.name)
        tombstone.lift(self._shared.state, container)
        if container.pod is not None:
            remove_empty(self._shared.state, container.pod, recovery.migration.company)
        error = ExecutionError("a human threw away what was here", code="forgotten")
        return recovery.migration.end(Phase.LOST, error)

    # --- at the target

    def _settle_here(
        self, reception: Reception, entry: Entry, wish: Wish, *, declared_dead: bool
    ) -> MigrationOutcome:
        report = reception.report()
        together = self._receptions_together(reception)
        if wish is Wish.FORGET:
            for each in together:
                each.check_lost()
            for each in together:
                each.forget()
            return reception.record.outcome(Phase.LOST, "a human threw away what was here")
        if report.unwritten:  # it runs here: that is all there is to say
            reception.delivery.trust_files()
            return reception.record.outcome(Phase.DONE, "")
        for each in together:
            self._check_take_over(each, entry, declared_dead=declared_dead)
        for each in together:
            if each.delivery.trouble:
                each.delivery.trust_files()
            each.claim()
        for each in together:
            each.take_over()
        return reception.record.outcome(Phase.LOST, "a human let it start anew here, from its files")

    def _receptions_together(self, reception: Reception) -> list[Reception]:
        """Return a reception and behind it those of its pod that have no end yet."""
        others = [item for item in reception.proposal.company if item != reception.proposal.migration]
        entries = filter(None, map(self._shared.journal.entry, others))
        return [reception, *(self._reception(item.migration) for item in entries if not item.settled)]

    def _check_take_over(self, reception: Reception, entry: Entry, *, declared_dead: bool) -> None:
        told = ask_source(self._peers, reception.proposal)
        report = reception.report()
        torn = _is_torn(reception, report)
        _refuse(may_take_over(report.standing, entry.decision, told, declared_dead=declared_dead, torn=torn))

    def _settle_kept(self, kept: Kept, wish: Wish, *, declared_dead: bool) -> MigrationOutcome:
        if wish is Wish.RESUME:
            outcome = self._revival.start(kept, declared_dead=declared_dead)
            return outcome.model_copy(update={"error": f"it runs here from {told_of(kept)}"})
        self._revival.forget(kept)
        return MigrationOutcome(
            migration=kept.checkpoint,
            container=kept.container.name,
            source=kept.source,
            target=self._shared.host,
            method=Method.FULL,
            phase=Phase.ABORTED,
            error="a human threw the checkpoint away",
        )

    # --- telling

    def _situation_told(self, entry: Entry) -> Situation:
        """As `_situation`; one that nobody can judge now keeps no other from being told."""
        try:
            return self._situation(entry, declared_dead=False)
        except LifeboatError as error:
            return Situation(
                migration=entry.migration,
                container=entry.container,
                side=entry.side,
                peer="",
                peer_says="",
                place=Place.UNKNOWN,
                here="not known yet",
                resume_loses="",
                forget_loses="",
                resume_refused=str(error),
            )

    def _situation(self, entry: Entry, *, declared_dead: bool) -> Situation:
        if entry.side is Side.SOURCE:
            return self._source_situation(entry, declared_dead=declared_dead)
        return self._target_situation(entry, declared_dead=declared_dead)

    def _source_situation(self, entry: Entry, *, declared_dead: bool) -> Situation:
        recovery = SourceRecovery(self._shared, entry, self._peers)
        container, epoch = recovery.journey.container, recovery.journey.epoch
        standing = recovery.ask_target()
        frozen = recovery.migration.holding.memory_is_here
        runs = entry.decision is None and podman.is_running(container.id)
        there = None if standing is None else Sight(standing in RUNS, epoch if standing in RUNS else 0)
        since = "everything since the switchover: what it did and promised there"
        return Situation(
            migration=entry.migration,
            container=container.name,
            side=entry.side,
            peer=recovery.client.name,
            peer_says=standing or "",
            place=place(Sight(runs, self._shared.journal.epoch(container.id)), there, epoch),
            here="frozen, with the memory of the switchover" if frozen else "without its memory",
            resume_loses=since if frozen else f"{since}, and all that was only in memory",
            forget_loses=f"the memory of the switchover; {recovery.client.name} must have all it needs",
            resume_refused=may_resume(entry.decision, standing, declared_dead=declared_dead),
        )

    def _target_situation(self, entry: Entry, *, declared_dead: bool) -> Situation:
        reception = self._reception(entry.migration)
        report = reception.report()
        container, standing, torn = reception.proposal.container, report.standing, _is_torn(reception, report)
        told = ask_source(self._peers, reception.proposal)
        refused = may_take_over(standing, entry.decision, told, declared_dead=declared_dead, torn=torn)
        loses = "all that was only in memory: it starts anew from its files"
        loses += ", of which this host may have lost some when it was down" if torn else ""
        loses += f"; {reception.delivery.trouble}" if reception.delivery.trouble else ""
        if report.unwritten:
            refused, loses = "", f"what is on no disk, should the power fail: {report.unwritten}"
        runs, epoch = standing in RUNS, reception.proposal.epoch
        says = "" if told is None else (told.decision or "undecided")
        home = None if told is None else Sight(says in ("undecided", "abort"), 0)
        return Situation(
            migration=entry.migration,
            container=container.name,
            side=entry.side,
            peer=reception.proposal.source,
            peer_says=says,
            place=place(home, Sight(runs, epoch if runs else 0), epoch),
            here=standing,
            resume_loses=loses,
            forget_loses="the container and its files here",
            resume_refused=refused,
        )


def _each(deeds: Sequence[Callable[[], MigrationOutcome]]) -> MigrationOutcome:
    """Do the same for all of a pod, whatever one of them comes to; return, or raise, what became of the first."""
    first: MigrationOutcome | None = None
    failed: LifeboatError | None = None
    for number, deed in enumerate(deeds):
        try:
            outcome = deed()
            first = outcome if number == 0 else first
        except LifeboatError as error:
            failed = failed or error
    if failed is not None or first is None:
        raise failed or ExecutionError("nothing was to be done", code="no-such-migration")
    return first


def _is_torn(reception: Reception, report: Report) -> bool:
    """Say whether its host was down before the files were on disk."""
    return report.standing is Standing.LOST and not reception.remains and not reception.record.was_written


RUNS = frozenset({Standing.DRAINING, Standing.DRAINED, Standing.COMPLETE, Standing.FELL_BACK})


def _refuse(why: str) -> None:
    if why:
        raise not_proved("the other host", why)


def _orphaned(kept: Kept, refused: str) -> Situation:
    return Situation(
        migration=kept.checkpoint,
        container=kept.container.name,
        side=Side.TARGET,
        peer=kept.source,
        peer_says="",
        place=Place.UNKNOWN,
        here=told_of(kept),
        resume_loses="all since then: what it did, wrote and promised; its connections are over",
        forget_loses="the checkpoint",
        resume_refused=refused,
    )
