"""Migrations that have one decision: who waits for whom, and that a word about one is the word about all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from migrator.errors import ExecutionError, LifeboatError
from migrator.model import MigrationOutcome
from migrator.protocol.journal import Decision, Fate, Journal
from migrator.source.company import Companies, Company, Stage, run_together

TOGETHER = ("one", "two", "three")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal that knows nothing."""
    return Journal(tmp_path / "journal.db")


@pytest.mark.parametrize(("first", "then"), [("commit", "abort"), ("abort", "commit")])
def test_one_decision_for_all(journal: Journal, first: str, then: str) -> None:
    assert journal.decide_all(TOGETHER, Decision(first)) is Decision(first)
    assert journal.decide_all(TOGETHER, Decision(then)) is Decision(first)
    assert {journal.decide(migration, Decision(then)) for migration in TOGETHER} == {Decision(first)}


def test_a_shim_that_gives_its_own_back_forbids_the_commit_of_all(journal: Journal) -> None:
    journal.decide("two", Decision.ABORT)
    assert journal.decide_all(TOGETHER, Decision.COMMIT) is Decision.ABORT
    assert {journal.decision(migration) for migration in TOGETHER} == {Decision.ABORT}


def test_one_fate_for_all(journal: Journal) -> None:
    assert journal.seal_all(TOGETHER, Fate.RELEASE) is Fate.RELEASE
    assert journal.seal_all(TOGETHER, Fate.RESUME) is Fate.RELEASE
    assert journal.fate("three") is Fate.RELEASE


def side_by_side(*deeds: Callable[[], object]) -> list[object]:
    """Do all at once; return what each came to, be it an exception."""
    found: list[object] = [None] * len(deeds)

    def do(number: int, deed: Callable[[], object]) -> None:
        try:
            found[number] = deed()
        except LifeboatError as error:
            found[number] = error

    threads = [threading.Thread(target=do, args=pair) for pair in enumerate(deeds)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return found


def test_they_wait_for_each_other_and_who_cannot_go_on_stops_all(journal: Journal) -> None:
    company = Company(journal, ("one", "two"))
    waited = side_by_side(
        *(lambda name=name: company.meet(Stage.PARKED, name, lambda: None) for name in ("one", "two"))
    )
    assert all(isinstance(item, float) for item in waited)

    def fail() -> None:
        with company.marching("db"):
            raise ExecutionError("it hangs", code="freeze-timeout", temporary=True)

    stopped, _ = side_by_side(lambda: company.meet(Stage.STILL, "one", lambda: None), fail)
    assert isinstance(stopped, ExecutionError)
    assert (stopped.code, stopped.temporary) == ("freeze-timeout", True)
    assert "db of its pod stays" in stopped.message


def test_nobody_turns_back_when_all_have_come(journal: Journal) -> None:
    """The others go on at once and commit all; what one sees after that gives nothing back any more."""
    company = Company(journal, ("one", "two"))
    decided: list[Decision] = []

    def other() -> None:
        company.meet(Stage.RESTORED, "one", lambda: None)
        decided.append(company.decide(Decision.COMMIT))

    def look() -> None:
        other()
        raise ExecutionError("the peer is out of reach", code="peer-unreachable")

    company.meet(Stage.RESTORED, "two", look)
    assert decided == [Decision.COMMIT]


def test_who_turns_back_in_time_is_not_counted(journal: Journal) -> None:
    company = Company(journal, ("one", "two"))

    def look() -> None:
        raise ExecutionError("what holds it has died", code="shim-gone")

    with pytest.raises(ExecutionError, match="has died"):
        company.meet(Stage.RESTORED, "two", look)
    with pytest.raises(ExecutionError, match="stopped"), company.marching("web"):
        company.meet(Stage.RESTORED, "one", _stop)


def _stop() -> None:
    raise ExecutionError("it was stopped", code="stopped")


def test_none_is_released_before_all_are_there(journal: Journal) -> None:
    company = Company(journal, ("one", "two"))
    assert not company.may_release("one")
    assert not company.may_release("one")
    assert company.may_release("two")
    assert journal.fate("one") is Fate.RELEASE
    assert Company(journal, ("one", "two")).may_release("one")  # after a restart
    assert Company(journal, ("alone",)).may_release("alone")
    assert journal.fate("alone") is None


def test_none_is_released_that_a_human_has_resumed(journal: Journal) -> None:
    company = Company(journal, ("one", "two"))
    company.may_release("one")
    company.seal(Fate.RESUME)
    assert not company.may_release("two")


def test_who_waits_hears_of_another_ones_trouble(journal: Journal) -> None:
    companies = Companies()
    company = companies.of(journal, ("one", "two"))
    assert companies.of(journal, ("one", "two")) is company
    company.check_trouble()
    company.trouble(ExecutionError("beta is gone", code="target-lost", hint="lifeboat recover"))
    with pytest.raises(ExecutionError, match="not all of its pod does: beta is gone"):
        companies.of(journal, ("one", "two")).check_trouble()


def test_they_run_side_by_side_and_end_in_order() -> None:
    barrier = threading.Barrier(2)

    def run(name: str) -> MigrationOutcome:
        barrier.wait(10)
        told = {
            "migration": name,
            "container": name,
            "source": "a",
            "target": "b",
            "method": "lazy",
            "phase": "done",
        }
        return MigrationOutcome.model_validate(told)

    ends = run_together([lambda: run("one"), lambda: run("two")])
    assert [item.container for item in ends] == ["one", "two"]
