"""Self-tests of drives: which is due, one an hour, over restarts, and drives that refuse."""

from __future__ import annotations

from pathlib import Path

from migrator.errors import ExecutionError
from watchdog.signals.readers import readers_of_host
from watchdog.signals.self_tests import DAY_S, SelfTests, due
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart_answer import Drive

SDA, SDB = Drive("/dev/sda", "sat"), Drive("/dev/bus/0", "megaraid,4")
EVERY = {"long": 30 * DAY_S, "short": 7 * DAY_S}
NOW = 1e9


class Drives:
    """Drives that note what they are told to do."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, str]] = []
        self.refuse: set[str] = set()

    def start(self, drive: Drive, kind: str) -> str:
        """Start a test."""
        if drive.name in self.refuse:
            raise ExecutionError("not supported", code="self-test-failed")
        self.begun.append((drive.name, kind))
        return "Testing has begun."

    def tests(self, directory: Path) -> SelfTests:
        """Return what starts them."""
        return SelfTests(
            lambda: (SDA, SDB),
            directory / "tests.json",
            short_s=EVERY["short"],
            long_s=EVERY["long"],
            start=self.start,
        )


def test_one_drive_an_hour_and_then_none_for_a_week(tmp_path: Path) -> None:
    drives = Drives()
    tests = drives.tests(tmp_path)
    for hour in range(7 * 24):
        assert tests.read(NOW + hour * 3600) == ()
        assert len(drives.begun) == min(hour + 1, 2)
    assert {kind for _, kind in drives.begun} == {"long"}
    drives.tests(tmp_path).read(NOW + 8 * DAY_S)  # after a restart
    assert drives.begun[2:] == [("/dev/sda", "short")]


def test_a_drive_that_refuses_holds_up_no_other_and_is_asked_again_after_a_day(tmp_path: Path) -> None:
    drives = Drives()
    drives.refuse.add(SDA.name)
    tests = drives.tests(tmp_path)
    tests.read(NOW)
    assert drives.begun == [(SDB.name, "long")]
    drives.refuse.clear()
    tests.read(NOW + DAY_S / 2)
    assert len(drives.begun) == 1
    tests.read(NOW + DAY_S)
    assert drives.begun[1] == (SDA.name, "long")


def test_the_most_overdue_comes_first() -> None:
    started = {
        SDA.name: {"long": NOW - 31 * DAY_S, "short": NOW - DAY_S},
        SDB.name: {"long": NOW - DAY_S, "short": NOW - 30 * DAY_S},
    }
    assert due((SDA, SDB), started, EVERY, NOW) == [(SDB, "short"), (SDA, "long")]


def test_a_start_in_the_future_is_none() -> None:
    started = {SDA.name: {"long": NOW + DAY_S, "short": NOW + DAY_S}}
    assert due((SDA,), started, EVERY, NOW) == [(SDA, "long")]


def test_a_damaged_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "tests.json").write_text('{"a": 3}')
    drives = Drives()
    drives.tests(tmp_path).read(NOW)
    assert len(drives.begun) == 1


def test_they_are_off_unless_asked_for() -> None:
    assert "self-tests" not in [reader.name for reader in readers_of_host(SignalSettings())]
    assert "self-tests" in [reader.name for reader in readers_of_host(SignalSettings(self_tests=True))]
