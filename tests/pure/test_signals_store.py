"""The readings of the past: what is kept, for how long, and what a broken file costs."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.daemon.readings import Readings
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.series import Run, append, thinned
from watchdog.signals.store import DAY_S, FLUSH_S, ReadingStore

DISK = Device(DeviceKind.DISK, "disk:S1", "/dev/sda", {"type": "hdd", "serial": "S1"})
FAN = Device(DeviceKind.SENSOR, "hwmon:x:fan1", "nct fan1")
PENDING, HOT = "smart.pending_sectors", "smart.temperature"


def reading(at: float, value: float | None, signal: str = PENDING, device: Device = DISK) -> Reading:
    return Reading(signal, device, at, value, "" if value is not None else "asleep")


def runs(store: ReadingStore, signal: str = PENDING) -> list[tuple[float, float, int, float | None]]:
    """Return the stored runs of the disk."""
    found = store.history().series.get((signal, DISK.identity))
    return [run[:4] for run in found.runs] if found else []


def test_what_is_stored_comes_back_after_a_restart(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(1.0, 3.0), reading(2.0, None), reading(2.0, 1.0, "hwmon.fan_speed", FAN)])
    store.close()
    found = ReadingStore(tmp_path / "readings.db", 90).history().series
    assert found[PENDING, "disk:S1"].device == DISK
    assert found[PENDING, "disk:S1"].runs == (Run(1.0, 1.0, 1, 3.0), Run(2.0, 2.0, 1, None, "asleep"))
    assert found["hwmon.fan_speed", FAN.identity].latest == reading(2.0, 1.0, "hwmon.fan_speed", FAN)


def test_a_value_that_stands_still_is_one_run_which_a_restart_continues(tmp_path: Path) -> None:
    path = tmp_path / "readings.db"
    for start in (0, 100):
        store = ReadingStore(path, 90)
        for number in range(start, start + 100):
            store.append([reading(number * 300.0, 0.0)])
        store.close()
    assert runs(ReadingStore(path, 90)) == [(0.0, 199 * 300.0, 200, 0.0)]


def test_a_crash_costs_the_last_confirmations_and_no_change(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for number in range(100):
        store.append([reading(number * 10.0, 0.0 if number < 90 else 7.0)])
    crashed = ReadingStore(tmp_path / "readings.db", 90)  # the first one was never closed
    (first, second) = runs(crashed)
    assert (first[3], second[3], second[0]) == (0.0, 7.0, 900.0)
    assert first[1] >= 890.0 - FLUSH_S


def test_growth_over_a_window_comes_out_the_same(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for hour in range(24 * 10):
        store.append([reading(hour * 3600.0, float(hour // 24 * 4))])
    kept = [run.value or 0 for run in store.history(3 * DAY_S).series[PENDING, "disk:S1"].runs]
    assert kept == [12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 36.0]


def test_what_never_stands_still_is_thinned_out_as_it_ages_and_keeps_its_extremes(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    everything = [reading(30.0 * number, 40.0 + number % 7 + (number == 1000) * 30, HOT) for number in range(8000)]
    for item in everything:
        store.append([item])
    found = runs(store, HOT)
    assert max(run[3] or 0 for run in found) == 40 + 1000 % 7 + 30
    assert sum(run[2] for run in found) == len(everything)
    ages = [everything[-1].at - run[1] for run in found]
    assert len([age for age in ages if age > DAY_S + 14400]) <= 3 * (8000 * 30 - DAY_S) / 7200
    assert len([age for age in ages if age < 3600]) == 120


def test_becoming_unreadable_is_never_thinned_out(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for number in range(10):
        store.append([reading(float(number), None if number == 5 else float(number), HOT)])
    store.append([reading(3 * DAY_S, 1.0, HOT)])
    assert [run[3] for run in runs(store, HOT)] == [0.0, None, 9.0, 1.0]


def test_what_is_too_old_is_forgotten(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(0.0, 1.0)])
    store.append([reading(91 * DAY_S, 2.0)])
    assert [run[3] for run in runs(store)] == [2.0]


def test_what_does_not_fit_is_forgotten_the_oldest_first(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90, keep_mb=1)
    for hour in range(0, 24 * 30, 4):
        at = hour * 3600.0
        store.append([reading(at, at, f"hwmon.fan_speed{number}", FAN) for number in range(200)])
    assert store._used_bytes() < 1.5e6
    newest = max(series.runs[-1].until for series in store.history().series.values())
    assert newest == (24 * 30 - 4) * 3600.0


def test_one_signal_can_be_asked_for(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(1.0, 1.0), reading(2.0, 5.0, "hwmon.fan_speed", FAN), reading(3.0, 2.0)])
    assert set(store.history(0.0, [PENDING]).series) == {(PENDING, "disk:S1")}
    assert [run.value for run in store.history(2.0, [PENDING]).series[PENDING, "disk:S1"].runs] == [2.0]


def test_a_device_that_was_replaced_is_forgotten(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    store.append([reading(1.0, 1.0), reading(2.0, 5.0, "hwmon.fan_speed", FAN)])
    store.forget(DISK.identity)
    assert {key[1] for key in store.history().series} == {FAN.identity}
    store.append([reading(3.0, 1.0)])
    assert runs(store) == [(3.0, 3.0, 1, 1.0)]


def test_a_clock_that_was_set_back_loses_nothing(tmp_path: Path) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    for at, value in ((1e6, 1.0), (1e6 + 60, 2.0), (100.0, 3.0), (160.0, 3.0)):
        store.append([reading(at, value)])
    assert runs(store) == [(100.0, 100.0, 1, 1.0), (100.0, 100.0, 1, 2.0), (100.0, 160.0, 2, 3.0)]


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
    assert len(runs(store)) == 1
    assert (tmp_path / "readings.db.damaged").exists()
    assert "put aside" in caplog.text


def test_a_store_that_cannot_write_costs_the_past_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ReadingStore(tmp_path / "readings.db", 90)
    rival = sqlite3.connect(tmp_path / "readings.db")
    rival.execute("DROP TABLE run")
    rival.commit()
    with caplog.at_level(logging.ERROR):
        store.append([reading(1.0, 1.0)])
        store.append([reading(2.0, 2.0)])
        assert store.history().series == {}
    assert caplog.text.count("cannot be stored") == 1
    rival.close()


STEPS = st.lists(
    st.tuples(st.floats(-7200, 7200), st.one_of(st.none(), st.integers(0, 3).map(float))), min_size=1, max_size=60
)


@given(STEPS)
@settings(max_examples=40, deadline=None)
def test_memory_and_disk_hold_the_same(steps: list[tuple[float, float | None]]) -> None:
    """Whatever is read, and however the clock jumps: what is judged now is what is judged after a restart."""
    store = ReadingStore(Path(":memory:"), 90)
    now, kept = 1e9, list[Run]()
    for step, value in steps:
        now += step
        store.append([reading(now, value)])
        append(kept, reading(now, value))
    found = store.history().series[PENDING, DISK.identity].runs
    if not any(abs(step) > 3600 for step, _ in steps):
        assert [run[:4] for run in found] == [run[:4] for run in kept]
    assert all(run.at <= run.until for run in found)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.one_of(st.none(), st.floats(-50, 50))), max_size=50))
def test_thinning_twice_changes_nothing_and_keeps_extremes_and_counts(
    items: list[tuple[float, float | None]],
) -> None:
    kept = list[Run]()
    for at, value in sorted(items, key=lambda item: item[0]):
        append(kept, reading(at, value))
    once = list(thinned(kept, 9e5, 300.0))
    assert list(thinned(once, 9e5, 300.0)) == once
    for extreme in (min, max):
        assert extreme([r.value for r in once if r.value is not None], default=None) == extreme(
            [r.value for r in kept if r.value is not None], default=None
        )
    assert sum(run.readings for run in once if run.value is not None) == sum(
        run.readings for run in kept if run.value is not None
    )


def test_only_what_rules_look_at_stays_in_memory(tmp_path: Path) -> None:
    held = Readings(tmp_path / "readings.db", 90, 200, now=0.0)
    held.look_back({PENDING: 5 * DAY_S}, 0.0)
    for day in range(20):
        held.take([reading(day * DAY_S, float(day)), reading(day * DAY_S, float(day), HOT)])
    shown = held.history().series
    assert len(shown[HOT, DISK.identity].runs) == 1
    assert [run.value for run in shown[PENDING, DISK.identity].runs] == [14.0, 15.0, 16.0, 17.0, 18.0, 19.0]
    held.look_back({HOT: 3 * DAY_S}, 19 * DAY_S)
    assert [run.value for run in held.history().series[HOT, DISK.identity].runs] == [16.0, 17.0, 18.0, 19.0]
    held.close()
    again = Readings(tmp_path / "readings.db", 90, 200, now=19 * DAY_S)
    again.look_back({HOT: 3 * DAY_S}, 19 * DAY_S)
    assert again.history() == held.history()
