"""A target that answers, and does not get on after the commit: a human is called, in time and not too early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from migrator.errors import ExecutionError, PeerError
from migrator.model import Value
from migrator.peers.client import PeerClient
from migrator.protocol.journal import Journal
from migrator.protocol.messages import InFlight, Report, Standing
from migrator.protocol.timeline import Timeline
from migrator.settings import MigratorSettings
from migrator.source import handover
from migrator.source.company import Company
from migrator.source.departure import Departure
from migrator.source.handover import STUCK_S, Handover, Patience
from migrator.source.holding import Holding
from tests.pure.values import container

LIMIT_S = 60.0
END_S = 3000.0  # of every test, by its own clock


class Clock:
    """In the place of the module `time`: it goes on only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """See `time`."""
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        """See `time`."""
        self.now += seconds


class Beta:
    """A target that stands as the test says, and takes no commit."""

    name = "beta"

    def __init__(self, stands: Callable[[], Report]) -> None:
        self.stands = stands
        self.asked = 0

    def call(self, method: str, path: str, _: Value | None, __: type[Value], *, timeout_s: float) -> Report:
        """See `PeerClient.call`."""
        assert timeout_s > 0
        if method == "GET":
            return self.stands()
        assert path == "/v1/migrations/0a0a/commit"
        self.asked += 1
        raise PeerError("its disk is full", code="journal")


class Frozen:
    """What stands still at the source."""

    memory_is_here = True

    def in_flight(self) -> InFlight:
        """See `Holding`."""
        return InFlight(packets=())

    def look_after(self) -> None:
        """See `Holding`."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock of the handover, and of the test."""
    found = Clock()
    monkeypatch.setattr(handover, "time", found)
    monkeypatch.setattr(handover, "POLL_S", 1.0)
    return found


def follow(place: Path, clock: Clock, beta: Beta) -> Journal:
    """Follow a committed migration until the test's end; return the journal."""
    journal = Journal(place / "journal.db")
    Handover(
        Departure("alpha", MigratorSettings(reconnect_limit_s=LIMIT_S), place, place, place, journal),
        migration="0a0a",
        container=container("web"),
        target=cast(PeerClient, beta),
        holding=cast(Holding, Frozen()),
        timeline=Timeline(journal, "0a0a", "web", lambda _: None),
        company=Company(journal, ("0a0a",)),
        epoch=1,
    ).follow(lambda: clock.now < END_S)
    return journal


def report(standing: Standing, drained_bytes: int = 0) -> Report:
    """Return how it stands."""
    return Report(migration="0a0a", standing=standing, drained_bytes=drained_bytes)


def test_who_does_not_take_the_commit_is_told_with_its_words(tmp_path: Path, clock: Clock) -> None:
    beta = Beta(lambda: report(Standing.RESTORED))
    with pytest.raises(
        ExecutionError, match="web is restored on beta and does not get on: its disk is full"
    ) as stuck:
        follow(tmp_path, clock, beta)
    assert stuck.value.code == "target-stuck"
    assert LIMIT_S < clock.now <= LIMIT_S + 2
    assert beta.asked > LIMIT_S / 2, "it is asked on"
    said = [event.message for event in Journal(tmp_path / "journal.db").events("0a0a")]
    assert said == ["beta does not take the commit: its disk is full"]


@pytest.mark.parametrize("drained_bytes", [0, 7])
def test_who_drains_no_further_is_waited_for_longer(tmp_path: Path, clock: Clock, drained_bytes: int) -> None:
    with pytest.raises(ExecutionError, match="does not get on") as stuck:
        follow(tmp_path, clock, Beta(lambda: report(Standing.DRAINING, drained_bytes)))
    assert (stuck.value.code, stuck.value.message) == (
        "target-stuck",
        "web is draining on beta and does not get on",
    )
    assert STUCK_S < clock.now <= STUCK_S + 2


def test_who_gets_on_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    """It takes the commit just in time, and then some memory comes now and then."""

    def stands() -> Report:
        late = clock.now >= LIMIT_S
        return report(Standing.DRAINING, int(clock.now // (STUCK_S - 10))) if late else report(Standing.RESTORED)

    follow(tmp_path, clock, Beta(stands))
    assert clock.now >= END_S


def test_who_was_away_has_as_long_as_before(tmp_path: Path, clock: Clock) -> None:
    """A target whose daemon is started again stands as it stood."""

    def stands() -> Report:
        if LIMIT_S - 10 < clock.now < LIMIT_S + 10:
            raise PeerError("nobody listens", code="peer-unreachable")
        return report(Standing.RESTORED)

    with pytest.raises(ExecutionError) as stuck:
        follow(tmp_path, clock, Beta(stands))
    assert stuck.value.code == "target-stuck"
    assert 2 * LIMIT_S + 9 < clock.now <= 2 * LIMIT_S + 12


def test_patience_begins_anew_with_every_step(clock: Clock) -> None:
    patience = Patience(LIMIT_S)
    seen = []
    for standing, drained, waited_s in [
        (Standing.RESTORED, 0, LIMIT_S),
        (Standing.RESTORED, 0, 1.0),
        (Standing.DRAINING, 0, STUCK_S),
        (Standing.DRAINING, 1, STUCK_S),
        (Standing.DRAINING, 1, 1.0),
    ]:
        patience.over(report(standing, drained))
        clock.sleep(waited_s)
        seen.append(patience.over(report(standing, drained)))
    assert seen == [False, True, False, False, True]
