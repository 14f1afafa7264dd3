"""Temperatures, fans, voltages and powers: the kernel's hwmon class (Documentation/hwmon/sysfs-interface.rst).

The chip's limits are trusted only where they make sense, for many boards ship garbage (0, minimum above
maximum, alarms that are always set): limits must be in order, the reading plausible, and a voltage must have
been inside its limits once before it can leave them. Alarm files are not read: they say what the limits say,
garbage included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import is_ignored, sight
from watchdog.signals.sysfs import SysfsReader, load, read_text

PLACE = Path("class/hwmon")
CHANNEL = re.compile(r"^(temp|fan|in|power)(\d+)_(input|average)$")
MICRO = 1_000_000.0  # powers come in microwatts
FILES = ("input", "average", "lcrit", "min", "max", "crit", "emergency", "fault")
MILLI = 1000.0  # temperatures come in thousandths of a degree, voltages in millivolts
PLAUSIBLE_CELSIUS = (1.0, 125.0)
"""Below and above stand unconnected thermistors, -128, 127, 255 and the like; silicon does not live beyond 125."""

PLAUSIBLE_CRITICAL_CELSIUS = (40.0, 130.0)
TOLD_BY_SMART = ("drivetemp",)  # asking it may keep a disk from sleeping, and smartctl tells the same
NO_SENSOR = "no sensor: a virtual machine, or no driver"


@dataclass(frozen=True)
class Channel:
    """The files of one channel, read: name without prefix -> number; an unreadable one has its error.

    `stopped_on_purpose` is a fan whose control (pwmN) stands at 0.
    """

    kind: str
    device: Device
    values: dict[str, float]
    error: str
    stopped_on_purpose: bool = False


class HwmonReader(SysfsReader):
    """Reads all sensors of all chips."""

    name = "hwmon"

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now; a chip that vanished simply has none."""
        readings: list[Reading] = []
        for channel in channels(self._sysfs / PLACE):
            if not is_ignored(channel.device, self._ignored):
                readings += judge(channel, now, trusted=channel.device.identity in self._trusted)
        self._trusted |= {
            reading.device.identity
            for reading in readings
            if reading.signal in ("hwmon.fan_failed", "hwmon.voltage_out_of_range")
        }
        return (*readings, sight(self.name, now, "" if readings else NO_SENSOR))


def judge(channel: Channel, now: float, *, trusted: bool) -> list[Reading]:
    """Return the readings of one channel. Pure.

    `trusted` says that it was seen in order before: a fan that turned, a voltage inside its limits. Only then
    it can fail, for a header without a fan reads 0 for ever, and many limits never fitted.
    """
    tell = {"temp": _temperature, "fan": _fan, "in": _voltage, "power": _power}[channel.kind]
    found = tell(channel, trusted)
    return [Reading(signal, channel.device, now, value, reason) for signal, value, reason in found]


def limits_in_order(channel: Channel) -> bool:
    """Say whether the chip's limits can be meant: lcrit < min < max <= crit, as far as there are any. Pure."""
    low_to_high = [channel.values[name] for name in ("lcrit", "min", "max") if name in channel.values]
    ordered = all(low < high for low, high in pairwise(low_to_high))
    critical = channel.values.get("crit")
    return ordered and (critical is None or not low_to_high or low_to_high[-1] <= critical)


Found = Iterator[tuple[str, float | None, str]]


def _temperature(channel: Channel, trusted: bool) -> Found:
    celsius = _scaled(channel, "input")
    if celsius is None or channel.values.get("fault"):
        yield "hwmon.temperature", None, channel.error or "the sensor reports a fault"
        return
    if not PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]:
        yield "hwmon.temperature", None, "a temperature that cannot be: probably nothing is connected"
        return
    yield "hwmon.temperature", celsius, ""
    critical = _scaled(channel, "crit") or _scaled(channel, "emergency")
    low, high = PLAUSIBLE_CRITICAL_CELSIUS
    if critical is not None and low <= critical <= high and limits_in_order(channel):
        over = celsius >= critical
        yield "hwmon.temperature_margin", critical - celsius, ""
        yield "hwmon.temperature_critical", float(over), f"its critical limit is {critical:g}" if over else ""


def _fan(channel: Channel, trusted: bool) -> Found:
    speed = channel.values.get("input")
    if speed is None:
        yield "hwmon.fan_speed", None, channel.error
        return
    yield "hwmon.fan_speed", speed, ""
    fault = bool(channel.values.get("fault"))
    if speed > 0 or trusted:
        stopped = speed == 0 and not channel.stopped_on_purpose
        yield "hwmon.fan_failed", float(stopped or fault), "its sensor reports a fault" if fault else ""


def _voltage(channel: Channel, trusted: bool) -> Found:
    volts = _scaled(channel, "input")
    if volts is None:
        yield "hwmon.voltage", None, channel.error
        return
    yield "hwmon.voltage", volts, ""
    for low_name, high_name in (("lcrit", "crit"), ("min", "max")):
        low, high = _scaled(channel, low_name), _scaled(channel, high_name)
        if low is not None and high is not None and low < high and limits_in_order(channel):
            inside = low <= volts <= high
            if inside or trusted:
                remark = "" if inside else f"its limits are {low:g} and {high:g}"
                yield "hwmon.voltage_out_of_range", float(not inside), remark
            return


def _power(channel: Channel, trusted: bool) -> Found:
    raw = channel.values.get("average", channel.values.get("input"))
    yield "hwmon.power", None if raw is None else raw / MICRO, channel.error if raw is None else ""


def _scaled(channel: Channel, name: str) -> float | None:
    raw = channel.values.get(name)
    return None if raw is None else raw / MILLI


def channels(root: Path) -> Iterator[Channel]:
    """Read all channels of all chips below /sys/class/hwmon.

    hwmonN changes from boot to boot, so a sensor is known by its device's path, its chip's name and its
    channel, and by a number where all three are the same.
    """
    seen: Counter[str] = Counter()
    for chip in sorted(root.glob("hwmon[0-9]*"), key=lambda path: (len(path.name), path.name)):
        name = read_text(chip / "name") or "nameless"
        if name in TOLD_BY_SMART:
            continue
        place = f"{(chip / 'device').resolve() if (chip / 'device').exists() else 'virtual'}:{name}"
        seen[place] += 1
        identity = place if seen[place] == 1 else f"{place}#{seen[place]}"
        yield from _of_chip(chip, name, identity)


def _of_chip(chip: Path, name: str, identity: str) -> Iterator[Channel]:
    try:
        files = sorted(path.name for path in chip.iterdir())
    except OSError:
        return
    names = frozenset(files)
    channels_found = dict.fromkeys(match.groups()[:2] for match in map(CHANNEL.match, files) if match)
    for kind, number in channels_found:
        prefix = f"{kind}{number}"
        label = read_text(chip / f"{prefix}_label") if f"{prefix}_label" in names else ""
        device = Device(
            DeviceKind.SENSOR,
            f"hwmon:{identity}:{prefix}",
            f"{name} {label or prefix}",
            {"chip": name, "channel": prefix},
        )
        values, error = _numbers(chip, [part for part in FILES if f"{prefix}_{part}" in names], prefix)
        yield Channel(kind, device, values, error, kind == "fan" and read_text(chip / f"pwm{number}") == "0")


def _numbers(chip: Path, parts: Sequence[str], prefix: str) -> tuple[dict[str, float], str]:
    """Read the files of a channel; a busy or suspended chip answers EAGAIN, EIO, ENODATA or ETIMEDOUT."""
    values: dict[str, float] = {}
    error = ""
    for part in parts:
        name = f"{prefix}_{part}"
        try:
            values[part] = float(load(f"{chip}/{name}"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else "not a number"
            error = error or f"{name}: {reason}"
    return values, error
