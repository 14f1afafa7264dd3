"""Temperatures, fans and voltages: the kernel's hwmon class (Documentation/hwmon/sysfs-interface.rst).

The chip's limits are trusted only where they make sense, for many boards ship garbage: an alarm counts
only together with a plausible reading that bears it out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading

PLACE = Path("class/hwmon")
CHANNEL = re.compile(r"^(temp|fan|in)(\d+)_input$")
MILLI = 1000.0
PLAUSIBLE_CELSIUS = (1.0, 125.0)
"""Below and above stand unconnected thermistors, 127, 255 and the like; silicon does not live beyond 125."""

PLAUSIBLE_CRITICAL_CELSIUS = (40.0, 130.0)


@dataclass(frozen=True)
class Channel:
    """The files of one channel, read: name without prefix -> number; an unreadable one has its error."""

    kind: str
    device: Device
    values: dict[str, float]
    error: str


class HwmonReader:
    """Reads all sensors of all chips."""

    name = "hwmon"

    def __init__(self, poll_s: float, sysfs: Path = Path("/sys")) -> None:
        self.poll_s = poll_s
        self._root = sysfs / PLACE
        self._seen_turning: set[str] = set()

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now; a chip that vanished simply has none."""
        readings: list[Reading] = []
        for chip in sorted(self._root.glob("hwmon[0-9]*")):
            for channel in _channels(chip):
                readings += self._of_channel(channel, now)
        return tuple(readings)

    def _of_channel(self, channel: Channel, now: float) -> list[Reading]:
        if channel.kind == "fan":
            return self._fan(channel, now)
        return _temperature(channel, now) if channel.kind == "temp" else _voltage(channel, now)

    def _fan(self, channel: Channel, now: float) -> list[Reading]:
        """A header without a fan reads 0 for ever, so only a fan that was seen turning can fail."""
        speed = channel.values.get("input")
        if speed is None:
            return [Reading("hwmon.fan_speed", channel.device, now, None, channel.error)]
        if speed > 0:
            self._seen_turning.add(channel.device.identity)
        turned = channel.device.identity in self._seen_turning
        failed = turned and (speed == 0 or bool(channel.values.get("fault")))
        return [
            Reading("hwmon.fan_speed", channel.device, now, speed),
            Reading("hwmon.fan_failed", channel.device, now, float(failed)),
        ]


def _temperature(channel: Channel, now: float) -> list[Reading]:
    if channel.values.get("fault"):
        return [Reading("hwmon.temperature", channel.device, now, None, "the sensor reports a fault")]
    raw = channel.values.get("input")
    if raw is None:
        return [Reading("hwmon.temperature", channel.device, now, None, channel.error)]
    celsius = raw / MILLI
    if not PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]:
        return [Reading("hwmon.temperature", channel.device, now, None, f"implausible: {celsius:g} C")]
    readings = [Reading("hwmon.temperature", channel.device, now, celsius)]
    critical = channel.values.get("crit", 0.0) / MILLI
    if PLAUSIBLE_CRITICAL_CELSIUS[0] <= critical <= PLAUSIBLE_CRITICAL_CELSIUS[1]:
        readings.append(Reading("hwmon.temperature_critical", channel.device, now, float(celsius >= critical)))
    return readings


def _voltage(channel: Channel, now: float) -> list[Reading]:
    raw = channel.values.get("input")
    if raw is None:
        return [Reading("hwmon.voltage", channel.device, now, None, channel.error)]
    volts = raw / MILLI
    readings = [Reading("hwmon.voltage", channel.device, now, volts)]
    low, high = channel.values.get("lcrit", 0.0) / MILLI, channel.values.get("crit", 0.0) / MILLI
    if 0 < low < high:
        outside = not low <= volts <= high
        readings.append(Reading("hwmon.voltage_out_of_range", channel.device, now, float(outside)))
    return readings


def _channels(chip: Path) -> list[Channel]:
    try:
        names = sorted(path.name for path in chip.iterdir())
    except OSError:
        return []
    found = [match for name in names if (match := CHANNEL.match(name))]
    return [_channel(chip, match.group(1), match.group(2)) for match in found]


def _channel(chip: Path, kind: str, number: str) -> Channel:
    """hwmonN changes from boot to boot, so a sensor is known by its device's path, chip and channel."""
    prefix = f"{kind}{number}"
    chip_name = _text(chip / "name") or chip.name
    place = (chip / "device").resolve() if (chip / "device").exists() else chip.name
    label = _text(chip / f"{prefix}_label")
    device = Device(
        DeviceKind.SENSOR,
        f"hwmon:{place}:{chip_name}:{prefix}",
        f"{chip_name} {label or prefix}",
        {"chip": chip_name, "channel": prefix},
    )
    values: dict[str, float] = {}
    error = ""
    for part in ("input", "crit", "lcrit", "fault"):
        path = chip / f"{prefix}_{part}"
        try:
            values[part] = float(path.read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as failure:
            error = error or f"{path.name}: {failure}"
    return Channel(kind, device, values, error)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
