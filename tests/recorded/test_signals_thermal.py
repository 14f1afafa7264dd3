"""Thermal zones with their trip points, and the throttling of processors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.recorded.signal_data import plant, values
from watchdog.signals.thermal import ThermalReader

COUNTER = "devices/system/cpu/cpu0/thermal_throttle/package_throttle_total_time_ms"


@pytest.fixture
def reader(tmp_path: Path) -> ThermalReader:
    """A reader of a host with two sockets and four zones."""
    plant("thermal/zones.txt", tmp_path)
    return ThermalReader(60, tmp_path)


def test_only_fatal_trip_points_are_limits(reader: ThermalReader) -> None:
    found = values(reader.read(1.0))
    assert found["zone acpitz", "thermal.temperature"] == 41.0
    assert found["zone acpitz", "thermal.critical_margin"] == 64.0
    assert found["zone acpitz", "thermal.critical"] == 0.0
    assert found["zone acpitz #2", "thermal.critical"] == 1.0


def test_a_zone_that_says_nothing_or_nonsense_is_unreadable(reader: ThermalReader) -> None:
    found = values(reader.read(1.0))
    assert found["zone iwlwifi_1", "thermal.temperature"] is None
    assert found["zone INT3400 Thermal", "thermal.temperature"] is None


def test_throttling_is_told_per_socket_and_not_summed_over_threads(reader: ThermalReader) -> None:
    found = values(reader.read(1.0))
    assert found["socket 0", "cpu.throttle_events"] == 9
    assert found["socket 1", "cpu.throttle_events"] == 0
    assert ("socket 0", "cpu.throttled_percent") not in found


def test_the_share_of_time_is_that_since_the_last_reading(reader: ThermalReader, tmp_path: Path) -> None:
    reader.read(100.0)
    (tmp_path / COUNTER).write_text("6100\n")
    assert values(reader.read(160.0))["socket 0", "cpu.throttled_percent"] == 10.0
    (tmp_path / COUNTER).write_text("3\n")  # the host has rebooted
    assert values(reader.read(220.0))["socket 0", "cpu.throttled_percent"] == 0.0
    assert ("socket 1", "cpu.throttled_percent") not in values(reader.read(280.0))


def test_a_zone_that_vanishes_is_unreadable(reader: ThermalReader, tmp_path: Path) -> None:
    reader.read(1.0)
    shutil.rmtree(tmp_path / "class/thermal/thermal_zone1")
    found = values(reader.read(2.0))
    assert found["zone acpitz #2", "thermal.temperature"] is None
    assert found["zone acpitz #2", "thermal.critical"] is None


def test_a_host_without_any_has_nothing_to_tell(tmp_path: Path) -> None:
    assert ThermalReader(60, tmp_path).read(1.0) == ()
