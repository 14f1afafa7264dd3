"""The BMC: sensors, power supplies, its event log, and a BMC that hangs, or goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from migrator.command import CommandResult
from migrator.errors import CommandError
from tests.recorded.signal_data import DATA, reason, values
from watchdog.signals.ipmi import IpmiReader
from watchdog.signals.ipmi_text import log_entries, sensors
from watchdog.signals.model import Reading
from watchdog.signals.reader import Remembered

INFO = (
    "SEL Information\nVersion          : 1.5\nEntries          : {}\nPercent Used     : 2%\nOverflow         : {}\n"
)
TRUSTED = Remembered(trusted=frozenset({"ipmi:CPU2 Temp", "power:ipmi:PS2 Status"}))


class Bmc:
    """A BMC as ipmitool shows it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "ipmi0").touch()
        self.sensor = (DATA / "ipmi/sensor.txt").read_text()
        self.supplies = (DATA / "ipmi/supplies.txt").read_text()
        self.log = (DATA / "ipmi/sel.txt").read_text()
        self.overflow = "false"
        self.hangs = False
        self.asked: list[str] = []

    def door(self, argv: Sequence[str], **_: object) -> CommandResult:
        """Answer."""
        words = " ".join(argv[1:])
        self.asked.append(words)
        if self.hangs:
            raise CommandError("ipmitool did not finish within 60 s", code="command-timeout")
        answers = {
            "sensor": self.sensor,
            "sdr type 0x08": self.supplies,
            "sdr type 0x09": "",
            "sel info": INFO.format(len(self.log.splitlines()), self.overflow),
            "sel elist": self.log,
        }
        return CommandResult(tuple(argv), 0, answers[words], "")

    def reader(self, remembered: Remembered | None = None) -> IpmiReader:
        """Return a reader of it."""
        return IpmiReader(
            120,
            state=self.directory / "log.json",
            devices=self.directory,
            door=self.door,
            remembered=remembered or Remembered(),
        )


@pytest.fixture
def bmc(tmp_path: Path) -> Bmc:
    """A BMC in a directory of its own."""
    return Bmc(tmp_path)


def test_sensors_are_read_in_their_units(bmc: Bmc) -> None:
    found = values(bmc.reader().read(1.0))
    assert found["BMC CPU1 Temp", "ipmi.temperature"] == 45.0
    assert found["BMC CPU1 Temp", "ipmi.critical"] == 0.0
    assert found["BMC FAN1", "ipmi.fan_speed"] == 4200.0
    assert found["BMC 12V", "ipmi.voltage"] == 12.03
    assert found["BMC PW Consumption", "ipmi.power"] == 240.0
    assert found["BMC Temp #2", "ipmi.temperature"] == 34.0
    assert not any("FAN6" in name or "Intrusion" in name for name, _ in found)


def test_only_a_sensor_that_was_in_order_can_pass_a_limit(bmc: Bmc) -> None:
    assert ("BMC FANB", "ipmi.critical") not in values(bmc.reader().read(1.0))
    assert values(bmc.reader(TRUSTED).read(1.0))["BMC CPU2 Temp", "ipmi.critical"] == 1.0
    reader = bmc.reader()
    reader.read(1.0)
    bmc.sensor = bmc.sensor.replace("| 4200.000   | RPM        | ok ", "| 0.000      | RPM        | nr ")
    assert values(reader.read(2.0))["BMC FAN1", "ipmi.critical"] == 1.0


def test_a_low_battery_of_the_clock_and_a_limit_that_cannot_be_meant_are_not_critical() -> None:
    found = {sensor.name: sensor for sensor in sensors((DATA / "ipmi/sensor.txt").read_text())}
    assert found["VBAT"].status == "lcr"
    assert not found["VBAT"].is_critical
    assert found["Temp"].status == "cr"
    assert not found["Temp"].is_critical


def test_supplies_that_failed_and_those_that_lost_their_input_are_told(bmc: Bmc) -> None:
    found = values(bmc.reader(TRUSTED).read(1.0))
    assert found["BMC PS1 Status", "power.supply_failed"] == 0.0
    assert found["BMC PS2 Status", "power.supply_failed"] == 1.0
    assert found["BMC PS3 Status", "power.supply_failed"] == 1.0
    assert found["BMC PS Redundancy", "power.redundancy_lost"] == 0.0


def test_a_supply_that_never_was_plugged_in_has_not_failed(bmc: Bmc) -> None:
    assert ("BMC PS2 Status", "power.supply_failed") not in values(bmc.reader().read(1.0))


def test_redundancy_is_lost_only_where_it_was(bmc: Bmc) -> None:
    reader = bmc.reader()
    reader.read(1.0)
    bmc.supplies = bmc.supplies.replace("Fully Redundant", "Redundancy Lost")
    assert values(reader.read(2.0))["BMC PS Redundancy", "power.redundancy_lost"] == 1.0
    assert ("BMC PS Redundancy", "power.redundancy_lost") not in values(bmc.reader().read(3.0))


def log_of(readings: Sequence[Reading]) -> dict[tuple[str, str], list[float | None]]:
    found: dict[tuple[str, str], list[float | None]] = {}
    for item in readings:
        if item.signal.startswith("sel.") and item.signal != "sel.full":
            found.setdefault((item.device.name, item.signal), []).append(item.value)
    return found


def test_what_the_log_held_at_first_is_no_growth_and_what_comes_is(bmc: Bmc) -> None:
    reader = bmc.reader()
    assert log_of(reader.read(1.0)) == {
        ("BMC log: Memory #0x53", "sel.corrected_memory_errors"): [1],
        ("BMC log: DIMM A1", "sel.uncorrected_memory_errors"): [1],
        ("BMC log: PS2 Status", "sel.power_supply_errors"): [1],
        ("BMC log: CPU1 Status", "sel.processor_errors"): [1],
        ("BMC log: Critical Interrupt #0x04", "sel.bus_errors"): [1],
    }
    bmc.log += "   c | 04/25/2023 | 14:12:13 | DIMM B2 | Correctable ECC | Asserted\n"
    assert log_of(bmc.reader().read(2.0))["BMC log: DIMM B2", "sel.corrected_memory_errors"] == [0, 1]


def test_the_log_is_read_only_when_it_has_changed(bmc: Bmc) -> None:
    reader = bmc.reader()
    reader.read(1.0)
    reader.read(2.0)
    assert bmc.asked.count("sel elist") == 1


def test_a_log_that_was_cleared_begins_anew(bmc: Bmc) -> None:
    reader = bmc.reader()
    reader.read(1.0)
    bmc.log = "   1 | 04/26/2023 | 14:12:13 | Memory #0x53 | Correctable ECC | Asserted\n"
    assert log_of(reader.read(2.0))["BMC log: Memory #0x53", "sel.corrected_memory_errors"] == [2]


def test_a_log_that_is_full_is_told(bmc: Bmc) -> None:
    bmc.overflow = "true"
    assert values(bmc.reader().read(1.0))["this host", "sel.full"] == 1.0


def test_a_bmc_that_hangs_is_blindness_and_is_left_alone_for_longer_and_longer(bmc: Bmc) -> None:
    reader = bmc.reader()
    reader.read(0.0)
    bmc.hangs = True
    bmc.asked.clear()
    readings = reader.read(120.0)
    assert values(readings)["BMC FAN1", "ipmi.fan_speed"] is None
    assert "did not finish" in reason(readings, "reader.blind")
    asked = [now for now in range(120, 3000, 120) if reader.read(float(now)) and _new(bmc)]
    assert asked == [240, 480, 960, 1920]
    bmc.hangs = False
    assert values(reader.read(9000.0))["BMC FAN1", "ipmi.fan_speed"] == 4200.0


def _new(bmc: Bmc) -> bool:
    """Say whether anything was asked since the last call."""
    asked = bool(len(bmc.asked) - bmc.__dict__.get("seen", 1))
    bmc.__dict__["seen"] = len(bmc.asked)
    return asked


def test_a_host_without_a_bmc_has_nothing_to_tell_and_one_that_lost_it_is_blind(bmc: Bmc) -> None:
    reader = bmc.reader()
    reader.read(1.0)
    (bmc.directory / "ipmi0").unlink()
    assert bmc.reader().read(2.0) == ()
    found = values(reader.read(2.0))
    assert found["BMC FAN1", "ipmi.fan_speed"] is None
    assert found["reader ipmi", "reader.blind"] is None


def test_lines_that_are_no_entries_are_left_out() -> None:
    assert (
        list(log_entries("SEL has no entries\n\n | | | | \nzz | a | b | Memory | Correctable ECC | Asserted\n"))
        == []
    )


RECORDED = Path(__file__).parents[3] / "shared/recordings/ipmi"

if RECORDED.is_dir():

    def test_a_recorded_sensor_whose_limit_an_admin_lowered_is_not_critical() -> None:
        (found,) = sensors((RECORDED / "sensor_threshold-set-by-admin.txt").read_text())
        assert found.status == "cr"
        assert not found.is_critical
