"""`lifeboat drill`: a canary leaves by a marked signal and comes back."""

from __future__ import annotations

import pytest

from tests.lab.fleet import Box, Fleet
from tests.lab.lab import Lab

pytestmark = pytest.mark.real


def test_a_drill_moves_the_canary_and_brings_it_back(lab: Lab) -> None:
    fleet, source = Fleet(lab), lab.host("alpha")
    canary, other = Box("canary", 1, 16, labels={"lifeboat.canary": "yes"}), Box("other", 2)
    fleet.fill(source, [canary, other])
    report = fleet.lifeboat(source, "drill", timeout_s=180)
    assert report["failures"] == []
    assert [step["step"] for step in report["steps"]] == ["marked", "judged", "evacuating", "moved", "back"]
    assert fleet.places() == {"canary": ["alpha"], "other": ["alpha"]}
    assert fleet.harms() == []
    ways = [f"{item['source']} -> {item['target']}" for item in fleet.lifeboat(source, "history")]
    assert sorted(ways) == ["alpha -> beta", "beta -> alpha"]
    fleet.wait("a healthy host", lambda: fleet.state(source) == "healthy", 30)
    assert not fleet.lifeboat(source, "status")["cordoned"]
