"""`./run soak twenty`: five hosts, twenty containers of mixed kinds; the first host fails and is emptied.

Too much for two processors to be part of every run of the tests: podman itself takes longer than its time-outs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest

from tests.lab.fleet import Fleet, mixed_boxes
from tests.lab.lab import Lab


def main(arguments: Sequence[str]) -> int:
    """Run it; arguments go to pytest."""
    return int(pytest.main([__file__, "--override-ini=python_files=*.py", *arguments]))


@pytest.fixture
def five() -> Iterator[Lab]:
    """Five hosts."""
    with Lab(5, name=f"fleet-{os.getpid()}") as lab:
        yield lab


@pytest.mark.timeout(900)  # two busy processors carry five hosts and twenty containers
def test_twenty_containers_leave_a_failing_host(five: Lab) -> None:
    fleet, source = Fleet(five), five.host("alpha")
    fleet.fill(source, mixed_boxes())
    plan = fleet.lifeboat(source, "plan")
    fleet.break_disk(source)
    fleet.wait("the evacuation", lambda: fleet.state(source) == "evacuated", 480)
    assert fleet.harms() == []
    places = fleet.places()
    assert all(hosts != ["alpha"] for hosts in places.values())
    apart = [places[box.name][0] for box in fleet.boxes if "lifeboat.apart" in box.labels]
    assert len(set(apart)) == len(apart) == 4
    history = fleet.lifeboat(source, "history")
    assert {item["phase"] for item in history} == {"done"}
    began = [item["container"] for item in sorted(history, key=lambda item: item["phases"][0]["began_at"])]
    priorities = [
        int(next(box for box in fleet.boxes if box.name == name).labels["lifeboat.priority"]) for name in began
    ]
    assert priorities == sorted(priorities, reverse=True)
    freezes = sorted(
        (phase["began_at"], item["container"])
        for item in history
        for phase in item["phases"]
        if phase["phase"] == "freeze"
    )
    took_s = max(item["phases"][-1]["began_at"] for item in history) - min(
        item["phases"][0]["began_at"] for item in history
    )
    print(f"planned {plan['ends_s']} s, took {took_s:.0f} s, {len(freezes)} freezes")
    status = fleet.lifeboat(source, "status")
    assert status["cordoned"]
