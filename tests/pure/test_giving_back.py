"""A target gives back what came in a drill, to whom it came from, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from migrator.errors import PrerequisiteError
from migrator.model import Method, MigrationOutcome, Phase
from migrator.protocol.journal import Journal, Side
from migrator.protocol.messages import Proposal
from migrator.target.giving_back import give_back
from tests.pure.values import container


def outcome(phase: Phase, source: str = "alpha", target: str = "beta") -> MigrationOutcome:
    """Return how a migration ended."""
    return MigrationOutcome(
        migration="m1",
        container="web",
        source=source,
        target=target,
        method=Method.LAZY,
        phase=phase,
        freeze_ms=300,
    )


def arrived(path: Path, *, drill: bool, phase: Phase | None = Phase.DONE, side: Side = Side.TARGET) -> Journal:
    """Return a journal with one migration from alpha."""
    journal = Journal(path / "journal.db")
    proposal = Proposal(
        epoch=1,
        migration="m1",
        source="alpha",
        container=container(),
        method=Method.LAZY,
        copy_image=True,
        drill=drill,
    )
    journal.begin("m1", side, "web", proposal.model_dump_json())
    if phase is not None:
        journal.finish(outcome(phase))
    return journal


def test_the_canary_goes_home(tmp_path: Path) -> None:
    moves: list[tuple[str, str]] = []

    def move(name: str, host: str) -> MigrationOutcome:
        moves.append((name, host))
        return outcome(Phase.DONE, "beta", "alpha")

    found = give_back(arrived(tmp_path, drill=True), "m1", "alpha", move)
    assert (found.error, found.freeze_ms) == ("", 300)
    assert moves == [("web", "alpha")]


@pytest.mark.parametrize(
    ("changes", "migration", "asker"),
    [
        ({"drill": False}, "m1", "alpha"),  # a real migration is nobody's to take back
        ({"drill": True}, "m1", "gamma"),  # nor is another host's
        ({"drill": True, "phase": None}, "m1", "alpha"),  # nor one that is under way
        ({"drill": True, "phase": Phase.ABORTED}, "m1", "alpha"),
        ({"drill": True, "side": Side.SOURCE}, "m1", "alpha"),
        ({"drill": True}, "m2", "alpha"),
    ],
)
def test_nothing_else_does(tmp_path: Path, changes: dict[str, object], migration: str, asker: str) -> None:
    def move(*_: str) -> MigrationOutcome:
        raise AssertionError("it was moved")

    with pytest.raises(PrerequisiteError):
        give_back(arrived(tmp_path, **changes), migration, asker, move)  # type: ignore[arg-type]
