"""The readings of the past: what is kept, for how long, and what a broken file costs."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.store import DAY_S, ReadingStore

DISK = Device(DeviceKind.DISK, "disk:S1", "/dev/sda", {"type": "hdd", "serial": "S1"})
FAN = Device(DeviceKind.SENSOR, "hwmon:x:fan1", "nct fan1")
PENDING = "smart.pending_sectors"


def reading(at: float, value: float | None, signal: str = PENDING, device: Device = DISK) -> Reading:
    return Reading(signal, device, at, value, "" if value is not None else "asleep")


def test_what_is_stored_comes_back_as_it_was(tmp_path: Path) -> None:
    readings = (reading(1.0, 3.0), reading(2.0, None), reading(2.0, 1.0, "hwmon.fan_speed", FAN))
    ReadingStore(tmp_path / "readings.db", 90).append(readings)
    assert ReadingStore(tmp_path / "readings.db", 90).since(0.0) == readings


def test_every_change_is_kept_and_a_value_that_stands_still_once_an_hour(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for minute in range(0, 180, 5):
        store.append([reading(minute * 60.0, 0.0 if minute < 120 else 7.0)])
    found = [(item.at / 60, item.value) for item in store.since(0.0)]
    assert found == [(0, 0), (5, 0), (10, 0), (70, 0), (120, 7), (125, 7), (130, 7)]


def test_growth_over_a_window_comes_out_the_same(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    everything = [reading(hour * 3600.0, float(hour // 24 * 4)) for hour in range(24 * 10)]
    for item in everything:
        store.append([item])
    kept = [item.value for item in store.since(3 * DAY_S) if item.value is not None]
    assert max(kept) - min(kept) == (9 - 3) * 4


def test_restless_signals_are_thinned_out(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for second in range(0, 3600, 30):
        store.append([reading(float(second), 40.0 + second % 7, "smart.temperature")])
    assert len(store.since(0.0)) == 12


def test_becoming_unreadable_is_a_change_also_for_restless_signals(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(1.0, 40.0, "smart.temperature")])
    store.append([reading(2.0, None, "smart.temperature")])
    assert [item.value for item in store.since(0.0)] == [40.0, None]


def test_what_is_too_old_is_forgotten(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(0.0, 1.0)])
    store.append([reading(91 * DAY_S, 2.0)])
    assert [item.value for item in store.since(0.0)] == [2.0]


def test_restless_signals_are_forgotten_sooner(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(0.0, 1.0), reading(0.0, 40.0, "smart.temperature")])
    store.append([reading(8 * DAY_S, 2.0), reading(8 * DAY_S, 41.0, "smart.temperature")])
    assert [(item.signal, item.value) for item in store.since(0.0)] == [
        (PENDING, 1.0),
        (PENDING, 2.0),
        ("smart.temperature", 41.0),
    ]


def test_one_series_can_be_asked_for(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(1.0, 1.0), reading(2.0, 5.0, "hwmon.fan_speed", FAN), reading(3.0, 2.0)])
    assert [item.value for item in store.series(PENDING, "disk:S1")] == [1.0, 2.0]
    assert [item.value for item in store.series(PENDING, "disk:S1", since=2.0)] == [2.0]


def test_disks_and_fans_are_remembered(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(100.0, 0.0), reading(100.0, 0.0, "disk.missing"), reading(200.0, None)])
    store.append([reading(200.0, 60.0, "smart.reading_age"), reading(100.0, 0.0, "hwmon.fan_failed", FAN)])
    remembered = store.remembered(300.0)
    (known,) = remembered.disks
    assert (known.device, known.read_at, known.signals) == (DISK, 100.0, frozenset({PENDING}))
    assert remembered.trusted == {FAN.identity}


def test_a_disk_that_may_go_is_not_remembered(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(100.0, 0.0)])  # of a USB disk there is no disk.missing
    assert store.remembered(300.0).disks == ()


def test_a_disk_is_forgotten_after_a_week(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(100.0, 0.0, "disk.missing")])
    assert store.remembered(100.0 + 8 * DAY_S).disks == ()


@pytest.mark.parametrize("layout", ["garbage", "foreign"])
def test_a_damaged_file_is_put_aside(tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "readings.db"
    if layout == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    else:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE reading (at REAL)")
        other.close()
    store = ReadingStore(path, 90)
    store.append([reading(1.0, 1.0)])
    assert len(store.since(0.0)) == 1
    assert (tmp_path / "readings.db.damaged").exists()
    assert "put aside" in caplog.text


def test_a_store_that_cannot_write_costs_the_past_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    rival = sqlite3.connect(tmp_path / "readings.db")
    rival.execute("DROP TABLE reading")
    rival.commit()
    with caplog.at_level(logging.ERROR):
        store.append([reading(1.0, 1.0)])
        store.append([reading(2.0, 2.0)])
        assert store.since(0.0) == ()
    assert caplog.text.count("cannot be stored") == 1
    rival.close()
