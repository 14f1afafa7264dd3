"""hwmon trees: a server in order, a Super-I/O chip with garbage limits, fans and voltages that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.recorded.signal_data import plant, reason, values
from watchdog.signals.hwmon import PLACE, HwmonReader
from watchdog.signals.reader import Remembered

FAILURES = ("hwmon.temperature_critical", "hwmon.fan_failed", "hwmon.voltage_out_of_range")


def test_a_server_is_read(tmp_path: Path) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    found = values(HwmonReader(30, tmp_path).read(1.0))
    assert found["coretemp Package id 0", "hwmon.temperature"] == 71.5
    assert found["coretemp Package id 0", "hwmon.temperature_critical"] == 0.0
    assert found["coretemp Core 0", "hwmon.temperature_critical"] == 1.0
    assert found["coretemp Core 0", "hwmon.temperature_margin"] == -1.0
    assert found["k10temp temp1", "hwmon.temperature"] == 26.8
    assert ("k10temp temp1", "hwmon.temperature_critical") not in found
    assert found["nvme Composite", "hwmon.temperature_critical"] == 0.0
    assert ("nvme Sensor 1", "hwmon.temperature_critical") not in found


def test_disks_are_left_asleep(tmp_path: Path) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    assert not any("drivetemp" in name for name, _ in values(HwmonReader(30, tmp_path).read(1.0)))


def test_garbage_limits_raise_no_alarm(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    reader = HwmonReader(30, tmp_path)
    for now in (1.0, 2.0, 3.0):
        found = values(reader.read(now))
        assert {key: value for key, value in found.items() if key[1] in FAILURES and value} == {}
    assert found["nct6776 Vcore", "hwmon.voltage_out_of_range"] == 0.0
    assert found["nct6776 in3", "hwmon.voltage"] == 3.36


def test_impossible_temperatures_are_unreadable(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    found = values(HwmonReader(30, tmp_path).read(1.0))
    assert found["nct6776 AUXTIN", "hwmon.temperature"] is None
    assert found["nct6776 CPUTIN", "hwmon.temperature"] is None
    assert found["nct6776 SYSTIN", "hwmon.temperature"] == 33.0


def test_a_fan_that_turned_can_fail_and_an_empty_header_cannot(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    reader = HwmonReader(30, tmp_path)
    first = values(reader.read(1.0))
    assert first["nct6776 fan1", "hwmon.fan_failed"] == 0.0
    assert ("nct6776 fan2", "hwmon.fan_failed") not in first
    (tmp_path / PLACE / "hwmon0/fan1_input").write_text("0\n")
    assert values(reader.read(2.0))["nct6776 fan1", "hwmon.fan_failed"] == 1.0
    (tmp_path / PLACE / "hwmon0/pwm1").write_text("0\n")
    assert values(reader.read(3.0))["nct6776 fan1", "hwmon.fan_failed"] == 0.0


def test_a_fan_that_stopped_before_a_restart_is_missed_after_it(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    (tmp_path / PLACE / "hwmon0/fan1_input").write_text("0\n")
    remembered = Remembered(trusted=frozenset({"hwmon:virtual:nct6776:fan1"}))
    found = values(HwmonReader(30, tmp_path, remembered=remembered).read(1.0))
    assert found["nct6776 fan1", "hwmon.fan_failed"] == 1.0


def test_a_voltage_that_was_in_order_can_leave_its_limits(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    reader = HwmonReader(30, tmp_path)
    reader.read(1.0)
    (tmp_path / PLACE / "hwmon0/in0_input").write_text("1900\n")
    assert values(reader.read(2.0))["nct6776 Vcore", "hwmon.voltage_out_of_range"] == 1.0


def test_identity_survives_another_number(tmp_path: Path) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    before = {item.device.identity for item in HwmonReader(30, tmp_path).read(1.0)}
    (tmp_path / PLACE / "hwmon0").rename(tmp_path / PLACE / "hwmon12")
    assert {item.device.identity for item in HwmonReader(30, tmp_path).read(2.0)} == before


def test_equal_chips_keep_apart(tmp_path: Path) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    (tmp_path / PLACE / "hwmon1/name").write_text("coretemp\n")
    readings = [item for item in HwmonReader(30, tmp_path).read(1.0) if item.signal == "hwmon.temperature"]
    assert len({item.device.identity for item in readings}) == len(readings)


@pytest.mark.parametrize("content", ["", "fifty\n"])
def test_a_file_that_cannot_be_read_is_a_reading_without_a_value(tmp_path: Path, content: str) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    (tmp_path / PLACE / "hwmon1/temp1_input").write_text(content)
    readings = HwmonReader(30, tmp_path).read(1.0)
    assert values(readings)["k10temp temp1", "hwmon.temperature"] is None
    assert [item.reason for item in readings if item.device.name == "k10temp temp1"] == [
        "temp1_input: not a number"
    ]


def test_without_sensors_the_reader_is_blind(tmp_path: Path) -> None:
    readings = HwmonReader(30, tmp_path).read(1.0)
    assert values(readings) == {("reader hwmon", "reader.blind"): None}
    assert "no sensor" in reason(readings, "reader.blind")


def test_an_ignored_sensor_is_left_out(tmp_path: Path) -> None:
    plant("hwmon/super-io-garbage.txt", tmp_path / PLACE)
    found = values(HwmonReader(30, tmp_path, ignored=["nct6776 AUX*"]).read(1.0))
    assert ("nct6776 AUXTIN", "hwmon.temperature") not in found
    assert ("nct6776 SYSTIN", "hwmon.temperature") in found


def test_a_power_is_read_once_whether_it_is_averaged_or_not(tmp_path: Path) -> None:
    plant("hwmon/server.txt", tmp_path / PLACE)
    meter = tmp_path / PLACE / "hwmon9"
    meter.mkdir()
    for name, text in {"name": "power_meter", "power1_average": "214000000", "power2_input": "80500000"}.items():
        (meter / name).write_text(f"{text}\n")
    found = values(HwmonReader(30, tmp_path).read(1.0))
    assert found["power_meter power1", "hwmon.power"] == 214.0
    assert found["power_meter power2", "hwmon.power"] == 80.5
