"""A mistake of ours, or of the system's, in the middle of a migration: that ends like any other."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

import pytest

from migrator.errors import ExecutionError, PeerError
from migrator.model import Method, MigrationOutcome, Phase
from migrator.peers import membership
from migrator.peers.client import PeerClient
from migrator.peers.membership import PeerDirectory
from migrator.protocol.journal import Decision, Journal, Side
from migrator.protocol.messages import ParkRequest
from migrator.recovery import outgoing
from migrator.recovery.incoming import Caretaker
from migrator.recovery.outgoing import SourceRecovery
from migrator.recovery.revival import Revival
from migrator.settings import MigratorSettings
from migrator.source.checkpoint import Checkpoint
from migrator.source.departure import Departure
from migrator.source.holding import StoppedContainer
from migrator.source.migration import Journey, SourceMigration
from migrator.target.reception import Reception
from tests.pure.cluster import make_cluster
from tests.pure.halls import hall_in
from tests.pure.values import container

Kind = TypeVar("Kind", bound=SourceMigration)


class Beta:
    """A target that agrees to everything."""

    name = "beta"

    def reach(self) -> nullcontext[None]:
        """See `PeerClient.reach`."""
        return nullcontext()


class Failing(SourceMigration):
    """One whose steps do nothing, but one of them fails by an error that is not ours."""

    where = ""
    undone = False

    def _prepare(self) -> None:
        self._undo.callback(self._note)
        self._fail("prepare")

    def _wait_for_freeze(self) -> None:
        self._fail("wait")

    def _freeze_and_restore(self) -> None:
        self._fail("freeze")

    def _commit(self) -> None:
        self.company.decide(Decision.COMMIT)
        self._undo.pop_all()
        self.handover.tell = lambda: self._fail("drain")  # type: ignore[method-assign]

    def _note(self) -> None:
        self.undone = True

    def _fail(self, where: str) -> None:
        if where == self.where:
            raise KeyError(where)


def made(kind: type[Kind], place: Path, journal: Journal) -> Kind:
    """Return a migration of a kind."""
    return kind(
        Departure("alpha", MigratorSettings(), place, place, place, journal),
        migration="0a0a",
        container=container("web"),
        target=cast(PeerClient, Beta()),
        method=Method.COLD,
        observe=lambda _: None,
    )


def begun(kind: type[Failing], place: Path, journal: Journal, where: str) -> Failing:
    """Return a migration that is about to fail there."""
    migration = made(kind, place, journal)
    migration.where = where
    return migration


@pytest.mark.parametrize(
    ("where", "phase"),
    [("prepare", Phase.ABORTED), ("wait", Phase.ABORTED), ("freeze", Phase.ABORTED), ("drain", Phase.LOST)],
)
def test_what_nobody_foresaw_ends_in_the_journal(
    tmp_path: Path, where: str, phase: Phase, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path / "journal.db")
    migration = begun(Failing, tmp_path, journal, where)
    outcome = migration.run()
    assert (outcome.phase, outcome.error_code) == (phase, "unexpected")
    assert outcome.error.startswith(f"unexpected: KeyError('{where}')")
    assert migration.undone == (phase is Phase.ABORTED)
    assert bool(journal.entries(unfinished=True)) == (phase is Phase.LOST)
    assert "KeyError" in caplog.text, "a traceback is what it is found by"


class Stuck(Failing):
    """One that cannot be given back at first."""

    def _prepare(self) -> None:
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        self._fail("prepare")


def test_what_was_not_given_back_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alpha, _ = make_cluster(tmp_path / "etc", "alpha", "beta")
    journal = Journal(tmp_path / "journal.db")
    migration = begun(Stuck, tmp_path, journal, "prepare")
    failing = iter([OSError("too many open files"), ExecutionError("no podman", code="command-failed")])

    def give_back(_: object) -> None:
        for error in failing:
            raise error

    monkeypatch.setattr(StoppedContainer, "give_back", give_back)
    monkeypatch.setattr(outgoing, "AGAIN_S", 0.0)
    outcome = migration.run()
    assert (outcome.phase, outcome.error_code) == (Phase.LOST, "not-taken-back"), "it does not run here"
    assert "KeyError('prepare')" in outcome.error, "why it did not leave"
    assert "too many open files" in outcome.error, "why it is not back"
    (entry,) = journal.entries(unfinished=True)
    outcomes: list[MigrationOutcome] = []
    told: list[str] = []
    SourceRecovery(migration._shared, entry, alpha).run(outcomes.append, told.append)
    assert [item.phase for item in outcomes] == [Phase.ABORTED]
    assert "now it runs here" in outcomes[0].error
    assert ["no podman" in text for text in told] == [True]
    assert not journal.entries(unfinished=True)


class Kept(Checkpoint):
    """A checkpoint whose container cannot be given back after its dump."""

    def _get_ready(self) -> ParkRequest:
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        return cast(ParkRequest, None)

    def _wait_for_freeze(self) -> None:
        pass

    def _dump(self) -> Path:
        return Path("/nowhere")

    def _bring(self, images: Path, request: ParkRequest) -> None:
        raise AssertionError("it is not of a container that runs on")

    def _withdraw(self) -> None:
        pass


def test_a_checkpoint_of_what_was_not_given_back_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def give_back(_: object) -> None:
        raise ExecutionError("it stands frozen here", code="still-frozen")

    monkeypatch.setattr(StoppedContainer, "give_back", give_back)
    journal = Journal(tmp_path / "journal.db")
    outcome = made(Kept, tmp_path, journal).run()
    assert (outcome.phase, outcome.error_code) == (Phase.LOST, "not-taken-back")
    assert [entry.migration for entry in journal.entries(unfinished=True)] == ["0a0a"]


def break_journal(journal: Journal) -> None:
    """Let a journal take nothing, and tell nothing, from now on."""

    def refuse(*_: object, **__: object) -> None:
        raise ExecutionError("disk I/O error", code="journal")

    for name in ("decide_all", "write", "finish", "learn_epoch", "entry"):
        setattr(journal, name, refuse)


class Broken(Failing):
    """One whose journal breaks in the freeze, or at the commit."""

    def _freeze_and_restore(self) -> None:
        self._taking_back.owe()
        self._undo.callback(self._taking_back.attempt)
        if self.where == "freeze":
            break_journal(self._shared.journal)
            self._fail("freeze")

    def _commit(self) -> None:
        break_journal(self._shared.journal)
        self.company.decide(Decision.COMMIT)


@pytest.mark.parametrize(("where", "phase"), [("freeze", Phase.ABORTED), ("commit", Phase.LOST)])
def test_a_dead_journal_keeps_only_frozen_what_may_be_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, phase: Phase
) -> None:
    """Nobody but the migration itself writes a commit; once it has tried to, only the disk knows."""
    done: list[bool] = []
    monkeypatch.setattr(StoppedContainer, "give_back", lambda _: done.append(True))
    migration = begun(Broken, tmp_path, Journal(tmp_path / "journal.db"), where)
    assert migration.run().phase is phase
    assert bool(done) == (phase is Phase.ABORTED)
    if done:
        assert migration.company.decide(Decision.COMMIT) is Decision.ABORT, "whoever tries"


def test_a_committed_one_is_followed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outgoing, "AGAIN_S", 0.0)
    alpha, _ = make_cluster(tmp_path / "etc", "alpha", "beta")
    journal = Journal(tmp_path / "journal.db")
    journey = Journey(container=container("web"), target="beta", method=Method.COLD, epoch=1)
    journal.begin("0a0a", Side.SOURCE, "web", journey.model_dump_json())
    journal.decide("0a0a", Decision.COMMIT)
    shared = Departure("alpha", MigratorSettings(), tmp_path, tmp_path, tmp_path, journal)
    entry = journal.entry("0a0a")
    assert entry is not None
    recovery = SourceRecovery(shared, entry, alpha)
    failing = iter([KeyError("once"), KeyError("twice")])

    def follow(_: object) -> None:
        for error in failing:
            raise error

    monkeypatch.setattr(recovery.migration.handover, "follow", follow)
    outcomes: list[MigrationOutcome] = []
    recovery.follow(outcomes.append)
    assert [(outcome.phase, outcome.error_code) for outcome in outcomes] == [
        (Phase.LOST, "unexpected"),
        (Phase.DONE, ""),
    ], "a human hears of it once, and then of the end"
    assert "KeyError: 'twice'" in caplog.text


def test_a_migration_to_a_host_that_was_removed_is_taken_up_too(tmp_path: Path) -> None:
    alpha, _ = make_cluster(tmp_path / "etc", "alpha", "beta")
    journal = Journal(tmp_path / "journal.db")
    journey = Journey(container=container("web"), target="beta", method=Method.COLD, epoch=1)
    journal.begin("0a0a", Side.SOURCE, "web", journey.model_dump_json())
    (entry,) = journal.entries()
    assert alpha.known("beta") == alpha.peer("beta")
    membership.remove(alpha.directory, "beta")
    shared = Departure("alpha", MigratorSettings(), tmp_path, tmp_path, tmp_path, journal)
    recovery = SourceRecovery(shared, entry, alpha)
    assert recovery.client.name == "beta"
    assert recovery.ask_target() is None
    with pytest.raises(PeerError) as silent:
        recovery.client.facts()
    assert silent.value.code == "no-member", "nobody is called"


class Quiet:
    """An incoming migration whose source is quiet; what it asks first may be a mistake."""

    def __init__(self, *, mistaken: bool) -> None:
        self.mistaken = mistaken
        self.asked = False
        self.adopted = True
        self.proposal = SimpleNamespace(migration="0a0a")

    @property
    def quiet_s(self) -> float:
        self.asked = True
        if self.mistaken:
            raise KeyError("quiet")
        raise PeerError("nobody answers", code="silent")


def test_an_incoming_one_that_cannot_be_settled_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = [Quiet(mistaken=True), Quiet(mistaken=False)]
    Caretaker(
        hall_in(tmp_path, MigratorSettings()),
        cast(PeerDirectory, None),
        lambda: cast(list[Reception], both),
        forget=lambda _: None,
        tell=lambda _: None,
        revival=cast(Revival, None),
    ).look()
    assert both[1].asked
    assert "KeyError: 'quiet'" in caplog.text
