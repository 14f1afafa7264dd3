"""What was told once and is not any more is unreadable, over restarts too; what is forgotten is not missed."""

from __future__ import annotations

from watchdog.signals.missed import REASON, Missed, teller
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import Remembered

CHIP = Device(DeviceKind.SENSOR, "hwmon:a:temp1", "chip temp1")
OTHER = Device(DeviceKind.SENSOR, "hwmon:b:temp1", "other temp1")
POOL = Device(DeviceKind.ARRAY, "array:zfs:tank", "tank", {"type": "zfs"})
SUPPLY = Device(DeviceKind.POWER_SUPPLY, "power:ipmi:PS1", "BMC PS1")
TOLD = Remembered(
    told=(
        ("hwmon.temperature", CHIP),
        ("array.degraded", POOL),
        ("power.supply_failed", SUPPLY),
        ("gone.signal", CHIP),
    )
)


class Source:
    """A reader that tells what a test says."""

    name, poll_s = "hwmon", 30.0

    def __init__(self, *devices: Device) -> None:
        self.devices = devices

    def read(self, now: float) -> tuple[Reading, ...]:
        """Read."""
        return tuple(Reading("hwmon.temperature", device, now, 40.0) for device in self.devices)


def lost(readings: tuple[Reading, ...]) -> list[str]:
    return [item.device.identity for item in readings if item.value is None and item.reason == REASON]


def test_what_vanishes_is_missed_after_a_grace() -> None:
    source = Source(CHIP, OTHER)
    reader = Missed(source, Remembered())
    assert lost(reader.read(1.0)) == []
    source.devices = (CHIP,)
    assert lost(reader.read(2.0)) == []
    assert lost(reader.read(3.0)) == [OTHER.identity]
    source.devices = (CHIP, OTHER)
    assert lost(reader.read(4.0)) == []


def test_what_was_told_before_a_restart_is_missed_by_its_own_reader_only() -> None:
    reader = Missed(Source(), TOLD)
    reader.read(1.0)
    assert lost(reader.read(2.0)) == [CHIP.identity]
    assert teller("array.degraded", POOL) == "zfs"
    assert teller("power.supply_failed", SUPPLY) == "ipmi"
    assert teller("gone.signal", CHIP) == ""


def test_what_is_ignored_or_forgotten_is_not_missed() -> None:
    reader = Missed(Source(), TOLD, ignored=["chip*"])
    reader.read(1.0)
    assert lost(reader.read(2.0)) == []
    reader = Missed(Source(), TOLD)
    reader.read(1.0)
    reader.forget(CHIP.identity)
    assert lost(reader.read(2.0)) == []


def test_what_the_reader_itself_calls_unreadable_is_left_to_it() -> None:
    class Failing(Source):
        def read(self, now: float) -> tuple[Reading, ...]:
            return (Reading("hwmon.temperature", CHIP, now, None, "busy"),)

    reader = Missed(Failing(), TOLD)
    for now in (1.0, 2.0, 3.0):
        assert [item.reason for item in reader.read(now)] == ["busy"]
