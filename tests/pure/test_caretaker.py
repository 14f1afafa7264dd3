"""Incoming migrations whose source is quiet: nothing committed is thrown away, nothing uncommitted opened."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from migrator.protocol.journal import Decision
from migrator.protocol.messages import DecisionTold, Standing
from migrator.protocol.steps import Step, may_take_over, next_step
from migrator.recovery import incoming
from migrator.shim.order import CONTROL, HANDED_OVER
from migrator.target.arrival import SHIM_AGAIN_S

SILENT = None
UNDECIDED = DecisionTold(migration="m", decision="")
ABORTED = DecisionTold(migration="m", decision="abort", ended=True)
COMMITTED = DecisionTold(migration="m", decision="commit")
ENDED = DecisionTold(migration="m", decision="commit", ended=True)
WORDS = (SILENT, UNDECIDED, ABORTED, COMMITTED, ENDED)


@pytest.mark.parametrize(
    ("standing", "own", "told", "patient", "step"),
    [
        (Standing.PARKED, None, SILENT, True, Step.WAIT),
        (Standing.PARKED, None, SILENT, False, Step.ABORT),
        (Standing.RESERVED, None, UNDECIDED, False, Step.WAIT),  # it may copy an image for an hour
        (Standing.RESERVED, None, ABORTED, True, Step.ABORT),
        (Standing.RESTORED, None, SILENT, False, Step.WAIT),  # it may have been committed
        (Standing.RESTORED, None, UNDECIDED, False, Step.WAIT),
        (Standing.RESTORED, None, ABORTED, True, Step.ABORT),
        (Standing.RESTORED, None, COMMITTED, True, Step.COMMIT),
        (Standing.RESTORED, Decision.COMMIT, SILENT, True, Step.COMMIT),
        (Standing.DRAINING, Decision.COMMIT, SILENT, False, Step.WAIT),
        (Standing.DRAINED, Decision.COMMIT, COMMITTED, False, Step.WAIT),  # it will release
        (Standing.DRAINED, Decision.COMMIT, ENDED, True, Step.COMPLETE),
        (Standing.DRAINED, Decision.COMMIT, SILENT, False, Step.COMPLETE),
        (Standing.LOST, Decision.COMMIT, ENDED, True, Step.FALL_BACK),
        (Standing.LOST, None, UNDECIDED, True, Step.ABORT),  # its shim died: it can never be opened
        (Standing.PARKED, Decision.ABORT, COMMITTED, True, Step.ABORT),
    ],
)
def test_what_follows(
    standing: Standing, own: Decision | None, told: DecisionTold | None, *, patient: bool, step: Step
) -> None:
    assert next_step(standing, own, told, patient=patient) is step


@pytest.mark.parametrize("told", WORDS)
def test_nothing_starts_by_itself_from_files_that_a_power_cut_may_have_torn(told: DecisionTold | None) -> None:
    def step(*, remains: bool, durable: bool) -> Step:
        return next_step(
            Standing.LOST, Decision.COMMIT, told, patient=False, remains=remains, opened=True, durable=durable
        )

    if told is None or not told.resumed:
        assert step(remains=True, durable=False) is Step.FALL_BACK  # what is in the page cache is whole
        assert step(remains=False, durable=True) is (Step.FALL_BACK if told else Step.CALL_A_HUMAN)
        assert step(remains=False, durable=False) is Step.CALL_A_HUMAN


def test_a_human_is_sent_to_the_source_that_has_the_better_files() -> None:
    for torn, told in product((True, False), WORDS):
        why = may_take_over(Standing.LOST, Decision.COMMIT, told, declared_dead=False, torn=torn)
        assert bool(why) == (torn and told is not None)


@pytest.mark.parametrize(("standing", "own", "told"), list(product(Standing, (None, *Decision), WORDS)))
def test_never_commit_without_the_word_nor_abort_against_it(
    standing: Standing, own: Decision | None, told: DecisionTold | None
) -> None:
    steps = {next_step(standing, own, told, patient=patient) for patient in (True, False)}
    words = {own, told.decision if told else None}
    if Decision.COMMIT not in words:
        assert Step.COMMIT not in steps
    lost = standing in (Standing.LOST, Standing.FALLING_BACK)  # it can never be opened, so it may be aborted
    if own is Decision.COMMIT or (told == COMMITTED and own is None and not lost):
        assert Step.ABORT not in steps
    if standing is Standing.RESTORED and Decision.ABORT not in words:
        assert Step.ABORT not in steps


def test_nobody_waits_for_a_shim_that_cannot_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a boot nothing is left in /run; a shim that is only late in a directory that is there is waited for."""
    waited: list[float] = []

    class Late:
        def __init__(self, path: Path, *, timeout_s: float, what: str) -> None:
            waited.append(timeout_s)
            assert (path, what) == (tmp_path / "there" / CONTROL, "the parked podman")

    monkeypatch.setattr(incoming, "ControlClient", Late)
    assert (incoming._shim(tmp_path / "gone"), waited) == (None, [])
    (tmp_path / "there").mkdir()
    assert isinstance(incoming._shim(tmp_path / "there"), Late)
    assert waited == [SHIM_AGAIN_S]
    (tmp_path / "there" / HANDED_OVER).touch()
    assert (incoming._shim(tmp_path / "there"), len(waited)) == (None, 1)
