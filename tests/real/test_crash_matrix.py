"""A part of the crash matrix, in the gate; all of it is `./run soak matrix`, its table docs/failures.md.

The cells are those at which something irrevocable has just been written, and each kind of fault is in one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.crash import FAULTS, Cell
from tests.lab.lab import Lab
from tests.lab.stops import STOPS

pytestmark = pytest.mark.real

THAWED_WITHIN_S = 10  # 2 on a host of its own; the peer's patience is 30

CELLS = (
    ("source: freeze", "source daemon", {"source"}),
    ("source: restore", "source shim", {"source"}),
    ("source: restore", "target host", {"source"}),
    ("source: restore", "network between them, 20 s", {"source"}),
    ("source: COMMIT", "source daemon", {"target"}),
    ("source: COMMIT", "target daemon", {"target"}),
    ("source: COMMIT", "target shim", {"target"}),
    ("target: gate open", "target shim", {"target"}),
    ("source: drain", "network between them, 3 s", {"target"}),
    ("source: drain", "source shim", {"target"}),
    ("target: all memory here", "target host", {"anew on the target", "human"}),  # called before it is up again
    ("target: all memory here", "disk full at the target", {"target"}),
    ("source: release", "source host", {"target"}),
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """One stage for all cells; what one leaves unclean is made anew."""
    with Lab(2, name="crash") as lab:
        found = Cell(lab, Path(tmp_path_factory.mktemp("crash")))
        try:
            yield found
        finally:
            found.close()


@pytest.mark.parametrize(("stop", "fault", "outcomes"), CELLS, ids=lambda value: str(value).replace(" ", "-"))
def test_nothing_is_lost_doubled_or_corrupted(cell: Cell, stop: str, fault: str, outcomes: set[str]) -> None:
    chosen_stop = next(item for item in STOPS if item.name == stop)
    chosen_fault = next(item for item in FAULTS if item.name == fault)
    try:
        verdict = cell.run(chosen_stop, chosen_fault)
    finally:
        cell.put_away()
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome in outcomes, verdict
    assert (verdict.thawed_s or 0) < THAWED_WITHIN_S, verdict
