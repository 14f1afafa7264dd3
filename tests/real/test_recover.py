"""What a human does where a migration cannot end by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.crash import ADDRESS, Cell
from tests.lab.lab import Lab
from tests.lab.stops import Turnstile, stop_named
from tests.lab.traffic import ask

pytestmark = pytest.mark.real


@pytest.fixture
def cell(request: pytest.FixtureRequest, lab: Lab, tmp_path: Path) -> Iterator[Cell]:
    """A stage; options of the cell come from the test's parameter."""
    found = Cell(lab, tmp_path, **getattr(request, "param", {}))
    try:
        yield found
    finally:
        found.put_away()


def test_a_human_resumes_it_when_the_target_is_dead(cell: Cell) -> None:
    cell.prepare()
    turnstile = Turnstile(cell.source, stop_named("source: drain"), 60)
    cell.move()
    with turnstile.hold():
        cell.target.kill()
    assert cell.wait(lambda: bool(cell.entries(cell.source)), 60), "nobody was called"
    told = cell.unsettled(cell.source)[0]
    resume = ["lifeboat", "recover", told["migration"], "--resume-here"]
    refused = cell.source.run(resume, check=False)
    assert refused.status == 6, refused.errors
    assert "nobody said that it is dead" in refused.errors
    done = cell.source.run([*resume, "--target-is-dead"], check=False)
    assert done.status == 0, done.errors
    verified = ask(cell.lab, ADDRESS, "verify")
    assert (verified["wrong_now"], cell.seen()["boots"]) == (0, [verified["boot"]])
    assert not cell.unsettled(cell.source)
    cell.lab.boot("beta")
    cell.target.wait_booted()
    cell.target.run(["systemctl", "start", "podman-restart.service", "lifeboatd.service"], check=False)
    assert cell.wait(lambda: not cell.unsettled(cell.target), 60), "the target does not give way"
    assert cell.runs_on() == ["alpha"]
