"""Where a human is told that a container is; a host that is silent is no proof of anything."""

from __future__ import annotations

import pytest

from migrator.protocol.steps import Place, Sight, place

EPOCH = 5
RUNS, STANDS, KNOWS_A_LATER_ONE = Sight(True, EPOCH), Sight(False, EPOCH), Sight(False, EPOCH + 1)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (RUNS, STANDS, Place.SOURCE),
        (RUNS, None, Place.SOURCE),
        (STANDS, RUNS, Place.TARGET),
        (None, RUNS, Place.TARGET),
        (RUNS, RUNS, Place.BOTH),
        (STANDS, KNOWS_A_LATER_ONE, Place.ELSEWHERE),
        (KNOWS_A_LATER_ONE, None, Place.ELSEWHERE),
        (STANDS, STANDS, Place.NOWHERE),
        (STANDS, None, Place.UNKNOWN),
        (None, STANDS, Place.UNKNOWN),
        (None, None, Place.UNKNOWN),
    ],
)
def test_where_it_is(source: Sight | None, target: Sight | None, expected: Place) -> None:
    assert place(source, target, EPOCH) is expected
