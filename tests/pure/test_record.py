"""A target's journal of one migration whose disk is full for a while, and the logs that are kept of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from migrator.errors import ExecutionError
from migrator.model import Method, MigrationEvent, Phase
from migrator.protocol import evidence
from migrator.protocol.journal import Journal
from migrator.protocol.messages import Proposal, Report, Standing
from migrator.settings import MigratorSettings
from migrator.target.record import Record
from tests.pure.halls import hall_in
from tests.pure.values import container


class FullJournal(Journal):
    """A journal whose disk may be full."""

    full = False

    def write(self, event: MigrationEvent) -> None:
        """Refuse, as a full disk does."""
        if self.full:
            raise ExecutionError("the journal cannot be written: database or disk is full", code="journal-failed")
        super().write(event)


def test_an_end_that_a_full_disk_did_not_take_is_written_later(tmp_path: Path) -> None:
    journal = FullJournal(tmp_path / "journal.db")
    hall = hall_in(tmp_path, MigratorSettings(), journal)
    facts = container("web")
    record = Record(
        hall,
        Proposal(migration="m1", source="alpha", container=facts, method=Method.LAZY, copy_image=False, epoch=1),
    )
    record.begin()
    journal.full = True
    with pytest.raises(ExecutionError):
        record.end(Phase.DONE, "complete", Report(migration="m1", standing=Standing.DRAINED, drained_bytes=7))
    with pytest.raises(ExecutionError):
        record.finish()
    assert (record.ended, record.ended_as) == (False, None)
    journal.full = False
    record.finish()
    record.finish()
    assert (record.ended, record.ended_as) == (True, Phase.DONE)
    assert [event.phase for event in journal.events("m1")].count(Phase.DONE) == 1


def test_logs_that_cannot_be_kept_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "restore.log").write_text("x")
    monkeypatch.setattr(shutil, "copy2", refuse)
    evidence.keep(tmp_path, tmp_path / "state", "m1")
    monkeypatch.undo()
    evidence.keep(tmp_path, tmp_path / "state", "m1")
    assert (tmp_path / "state/logs/m1/restore.log").read_text() == "x"
