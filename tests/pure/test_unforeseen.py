"""A mistake of ours, or of the system's, in the middle of a migration: that ends like any other."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest

from migrator.model import Method, Phase
from migrator.peers.client import PeerClient
from migrator.protocol.journal import Decision, Journal
from migrator.settings import MigratorSettings
from migrator.source.departure import Departure
from migrator.source.migration import SourceMigration
from tests.pure.values import container


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


def begun(kind: type[Failing], place: Path, journal: Journal, where: str) -> Failing:
    """Return a migration that is about to fail there."""
    migration = kind(
        Departure("alpha", MigratorSettings(), place, place, place, journal),
        migration="0a0a",
        container=container("web"),
        target=cast(PeerClient, Beta()),
        method=Method.COLD,
        observe=lambda _: None,
    )
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
    """One that cannot be given back."""

    def _prepare(self) -> None:
        self._owe_back()
        self._fail("prepare")

    def _give_back(self) -> None:
        raise OSError("too many open files")


def test_what_was_not_given_back_is_not_settled(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    migration = begun(Stuck, tmp_path, journal, "prepare")
    assert migration.run().phase is Phase.ABORTED
    assert [entry.migration for entry in journal.entries(unfinished=True)] == ["0a0a"], (
        "the next start gives it back"
    )
