"""What starts a container anew from its files on another host: the cold fallback, and the cold rung.

Both leave its address where the neighbours do not expect it, so a client that watches from outside is the judge.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.clean import clean
from tests.lab.crash import ADDRESS, CONTAINER, FAULTS, Cell, Fault, stage
from tests.lab.lab import Lab
from tests.lab.stops import stop_named
from tests.lab.traffic import ask

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ground(shared_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    """One stage for all, on the shared lab, on which the memory's loss ends in a cold start."""
    with stage(shared_lab, tmp_path_factory.mktemp("fallback"), fallback="cold") as found:
        yield found
    clean(shared_lab)


@pytest.fixture
def cell(ground: Cell) -> Iterator[Cell]:
    """Return the stage, on which nothing is when the next test comes."""
    yield ground
    ground.put_away()


def test_the_fallback_starts_it_anew_when_the_source_is_dead(cell: Cell) -> None:
    stop = stop_named("source: drain")
    verdict = cell.run(stop, next(item for item in FAULTS if item.name == "source host"))
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome == "anew on the target", verdict


def forget_neighbours_when_it_runs(cell: Cell) -> None:
    """A container that podman starts again has another MAC address, and podman announces nothing."""
    asked = ["podman", "inspect", "--format", "{{.State.Running}} {{.State.StartedAt.Unix}}", CONTAINER]

    def runs_again() -> bool:
        running, _, at = cell.source.run(asked).output.strip().partition(" ")
        return running == "true" and int(at) >= int(cell.struck_at)

    assert cell.wait(runs_again, 30)
    cell.lab.forget_neighbours()


def test_one_that_ends_while_it_is_banned_starts_again(cell: Cell) -> None:
    """Its process dies between the park and the freeze, when nothing may start it; its policy is made up for."""
    stop = stop_named("source: parked")
    verdict = cell.run(
        stop,
        Fault(
            "its own end",
            lambda cell: cell.kill(cell.source, "/usr/local/bin/workload"),
            forget_neighbours_when_it_runs,
        ),
    )
    assert verdict.struck, verdict.said
    assert verdict.wrong == [], verdict
    assert verdict.outcome == "anew on the source", verdict


def rows_lost(cell: Cell) -> set[int]:
    """Return the acknowledged rows that are not in the database."""
    return set(cell.seen()["acknowledged"]) - set(ask(cell.lab, ADDRESS, "rows")["rows"])


def test_the_cold_rung_moves_files_and_loses_no_row(cell: Cell) -> None:
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
