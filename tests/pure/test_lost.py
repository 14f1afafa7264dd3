"""A container that is lost in a move, or stands frozen: whoever asked is told that a human must look, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from migrator.container.known import Moving
from migrator.model import EvacuationPlan, Method, MigrationOutcome, Phase
from migrator.outlook import under_way
from tests.pure.test_daemon import FakeEngine, House, drill_house, drilled
from tests.pure.test_evacuation import StageEngine, containers, run
from tests.pure.values import container
from watchdog.alerts.model import Kind
from watchdog.daemon.evacuation import migration_end, migration_event
from watchdog.daemon.order import Cause, Order


def ended(name: str, phase: Phase, error: str = "") -> MigrationOutcome:
    """Return how a migration ended."""
    return MigrationOutcome(
        migration=f"of-{name}",
        container=name,
        source="alpha",
        target="beta",
        method=Method.LAZY,
        phase=phase,
        error=error,
        error_code="x" if error else "",
    )


class Losing(FakeEngine):
    """An engine that loses some; the others go."""

    def __init__(self, *lost: str, **targets: str | None) -> None:
        super().__init__(**targets)
        self.lost = lost

    def migrate(self, container: str, *words: Any, **also: Any) -> MigrationOutcome:
        if container in self.lost:
            return ended(container, Phase.LOST, "beta is gone after the commit")
        return super().migrate(container, *words, **also)


def last(house: House, order: Order | None = None) -> dict[str, Any]:
    """Move one container, or evacuate, and return the last line of the job."""
    job = house.daemon.evacuate(order) if order else house.daemon.migrate("web", "beta", None)
    return list(job.follow())[-1]


def test_a_lost_container_calls_for_a_human_and_one_that_stays_does_not(tmp_path: Path) -> None:
    house = House(tmp_path, Losing("web", web="beta", db="beta"))
    assert last(house)["status"] == 6
    assert last(house, Order(cause=Cause.ADMIN))["status"] == 6
    assert house.engine is not None
    cast(Losing, house.engine).lost = ()
    house.engine.fails.add("web")
    assert last(house)["status"] == 4
    assert last(house, Order(cause=Cause.ADMIN))["status"] == 4


def test_a_drill_that_loses_a_container_calls_for_a_human(tmp_path: Path) -> None:
    engine = Losing("web", web="beta")
    engine.canaries.add("web")
    assert drilled(drill_house(tmp_path, engine))["status"] == 6


def test_a_pod_is_as_well_as_its_worst_member() -> None:
    moved, aborted, lost = ended("a", Phase.DONE), ended("b", Phase.ABORTED, "no"), ended("c", Phase.LOST, "gone")
    assert migration_end(moved, [])["status"] == 0
    assert migration_end(moved, [aborted])["status"] == 4
    told = migration_end(moved, [aborted, lost])
    assert (told["status"], told["code"]) == (6, "x")
    assert told["error"] == "c of its pod: gone"
    assert told["hint"] == "see: lifeboat recover of-c"


def test_a_lost_fellow_counts_in_an_evacuation() -> None:
    engine = StageEngine(containers("one", "two"))
    engine.pods = {"one": ("two",)}
    engine.act = lambda name, *_: Phase.LOST if name == "two" else Phase.DONE
    assert run(engine).lost == {"two"}


def test_what_an_earlier_migration_lost_is_lost_to_an_evacuation_too() -> None:
    line = under_way(Moving(container("web"), here=True, began_at=0.0, target="b", lost=True))
    engine = StageEngine([])
    engine.plan = lambda *_, **__: EvacuationPlan(source="a", migrations=(line,))  # type: ignore[method-assign]
    moves = run(engine)
    assert (set(moves.left), moves.lost) == ({"web"}, {"web"})


@pytest.mark.parametrize(
    ("error", "end"),
    [
        ("it is gone", "it is gone; see: lifeboat recover of-web"),
        ("it is gone (lifeboat recover of-web --resume-here)", "--resume-here)"),
        ("started anew; see: lifeboat show of-web", "see: lifeboat show of-web"),
    ],
)
def test_who_is_called_is_told_the_command_once(error: str, end: str) -> None:
    event = migration_event("alpha", ended("web", Phase.LOST, error))
    assert event.kind is Kind.CALL_A_HUMAN
    assert event.text.endswith(end)
    assert event.text.count("lifeboat ") == 1
