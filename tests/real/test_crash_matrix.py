"""A part of the crash matrix, in the gate; all of it is `./run soak matrix`, its table docs/failures.md.

The cells are those at which something irrevocable has just been written, and each kind of fault is in one of them;
for a container by the full and by the cold method some of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.crash import FAULTS, GUARD, Cell, Fault
from tests.lab.lab import Lab
from tests.lab.stops import stop_named

pytestmark = pytest.mark.real

THAWED_WITHIN_S = 10  # 2 on a host of its own; the peer's patience is 30

SOURCE, TARGET, ANEW_HERE, ANEW_THERE = {"source"}, {"target"}, {"anew on the source"}, {"anew on the target"}
BOOTED_LATER = ANEW_THERE | {"human"}  # called before it is up again

CELLS = (
    ("lazy", "source: freeze", "source daemon", SOURCE),
    ("lazy", "source: restore", "source shim", SOURCE),
    ("lazy", "source: restore", "target host", SOURCE),
    ("lazy", "source: restore", "network between them, 20 s", SOURCE),
    ("lazy", "source: COMMIT", "source daemon", TARGET),
    ("lazy", "source: COMMIT", "target daemon", TARGET),
    ("lazy", "source: COMMIT", "target shim", TARGET),
    ("lazy", "target: gate open", "target shim", TARGET),
    ("lazy", "source: drain", "network between them, 3 s", TARGET),
    ("lazy", "source: drain", "source shim", TARGET),
    ("lazy", "target: all memory here", "target host", BOOTED_LATER),
    ("lazy", "target: all memory here", "disk full at the target", TARGET),
    ("lazy", "target: files on disk", "target host", BOOTED_LATER),
    ("lazy", "source: release", "source host", TARGET),
    ("full", "source: restore", "target daemon", SOURCE),
    ("full", "source: COMMIT", "source daemon", TARGET),
    ("cold", "source: restore", "source daemon", ANEW_HERE),
    ("cold", "target: restore parked", "target host", SOURCE),
    ("cold", "source: COMMIT", "target daemon", ANEW_THERE),
    ("cold", "source: COMMIT", "target host", ANEW_THERE),
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Cell]]:
    """One lab for all cells, in it one stage for each method; what a cell leaves unclean is made anew."""
    with Lab(2, name="crash") as lab:
        directory = Path(tmp_path_factory.mktemp("crash"))
        found: dict[str, Cell] = {}

        def on(method: str) -> Cell:
            cell = found.setdefault(method, Cell(lab, directory, method=method))
            for other in found.values():
                if other is not cell:
                    other.leave()
            return cell

        try:
            yield on
        finally:
            for cell in found.values():
                cell.close()


def test_the_guard_outlives_the_whole_scope_of_its_sink(stage: Callable[[str], Cell]) -> None:
    """One who ends a unit ends all that is in it; what holds the missing pages is in two."""
    cell, survived = stage("lazy"), []

    def kill_scope(cell: Cell) -> None:
        cell.target.run(["systemctl", "kill", "--signal=KILL", "lifeboat-sink-*.scope"])
        survived.extend(cell.processes(cell.target, GUARD))

    try:
        # The target was not told yet: with all memory there nothing would be left to guard.
        verdict = cell.run(stop_named("source: COMMIT"), Fault("the sink's scope", kill_scope))
        assert cell.processes(cell.target, "migrator.pager") == []
    finally:
        cell.put_away()
    assert verdict.struck, verdict.said
    assert len(survived) == 1
    assert verdict.wrong == [], verdict
    assert verdict.outcome == "human", verdict


@pytest.mark.parametrize(
    ("method", "stop", "fault", "outcomes"), CELLS, ids=lambda value: str(value).replace(" ", "-")
)
def test_nothing_is_lost_doubled_or_corrupted(
    stage: Callable[[str], Cell], method: str, stop: str, fault: str, outcomes: set[str]
) -> None:
    cell = stage(method)
    chosen_fault = next(item for item in FAULTS if item.name == fault)
    try:
        verdict = cell.run(stop_named(stop), chosen_fault)
    finally:
        cell.put_away()
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome in outcomes, verdict
    assert (verdict.thawed_s or 0) < THAWED_WITHIN_S, verdict
