"""`./run soak fallback`: the source dies in the drain and the target starts the container anew from its files.

Not in the gate: in its first full run the container was started anew but did not answer in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.crash import FAULTS, Cell
from tests.lab.lab import Lab
from tests.lab.stops import STOPS


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
