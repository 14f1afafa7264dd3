"""`./run soak fallback`: the source dies in the drain and the target starts the container anew from its files.

And the cold rung, which does the same before the source dies. Neither is in the gate: in their first full runs
the container was started anew on the target, but the client did not reach it within half a minute.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.crash import ADDRESS, CONTAINER, FAULTS, Cell
from tests.lab.lab import Lab
from tests.lab.stops import STOPS
from tests.lab.traffic import ask


def main(arguments: Sequence[str]) -> int:
    """Run it; arguments go to pytest."""
    return int(pytest.main([__file__, "--override-ini=python_files=*.py", *arguments]))


@pytest.fixture
def two() -> Iterator[Lab]:
    """Two hosts."""
    with Lab(2, name="fallback") as lab:
        yield lab


def test_the_fallback_starts_it_anew_when_the_source_is_dead(two: Lab, tmp_path: Path) -> None:
    cell = Cell(two, tmp_path, fallback="cold")
    try:
        stop = next(item for item in STOPS if item.name == "source: drain")
        verdict = cell.run(stop, next(item for item in FAULTS if item.name == "source host"))
    finally:
        cell.put_away()
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome == "anew on the target", verdict


def rows_lost(cell: Cell) -> set[int]:
    """Return the acknowledged rows that are not in the database."""
    return set(cell.seen()["acknowledged"]) - set(ask(cell.lab, ADDRESS, "rows")["rows"])


def test_the_cold_rung_moves_files_and_loses_no_row(two: Lab, tmp_path: Path) -> None:
    cell = Cell(two, tmp_path)
    cell.prepare()
    move = ["lifeboat", "migrate", CONTAINER, "--to", "beta", "--method", "cold"]
    refused = cell.source.run(move, check=False, timeout_s=120)
    assert refused.status == 3, refused.errors
    assert cell.runs_on() == ["alpha"]
    assert len(cell.seen()["boots"]) == 1  # it was not disturbed
    settings = cell.target.read("/etc/lifeboat/lifeboat.toml") + "accept_privileged = true\n"
    cell.target.write("/etc/lifeboat/lifeboat.toml", settings)
    cell.target.run(["systemctl", "restart", "lifeboatd"])
    done = cell.source.run(move, check=False, timeout_s=120)
    assert done.status == 0, done.errors
    assert cell.wait(lambda: len(cell.seen()["boots"]) == 2, 30)
    assert cell.runs_on() == ["beta"]
    assert rows_lost(cell) == set()
