"""Power supplies and UPS: the kernel's (Documentation/ABI/testing/sysfs-class-power), NUT's and apcupsd's."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from migrator.command import CommandResult, run
from migrator.errors import CommandError
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import NOTHING_REMEMBERED, Remembered, is_ignored, unreadable
from watchdog.signals.sysfs import SysfsReader, read_number, read_text

PLACE = Path("class/power_supply")
MAINS, UPS = "Mains", "UPS"
TIMEOUT_S = 10.0
MINUTE_S = 60.0
SUPPLIES = Device(DeviceKind.POWER_SUPPLY, "power:all", "power supplies")
GONE = "it is not there any more"

NUT_FLAGS = {"ups.on_battery": "OB", "ups.battery_low": "LB", "ups.replace_battery": "RB"}
NUT_NUMBERS = {"ups.runtime": "battery.runtime", "ups.charge": "battery.charge", "ups.load": "ups.load"}
"""NUT's status words and variable names (docs/new-drivers.txt, docs/nut-names.txt); runtime in seconds."""

APC_FLAGS = {"ups.on_battery": "ONBATT", "ups.battery_low": "LOWBATT", "ups.replace_battery": "REPLACEBATT"}
APC_NUMBERS = {"ups.runtime": ("TIMELEFT", MINUTE_S), "ups.charge": ("BCHARGE", 1.0), "ups.load": ("LOADPCT", 1.0)}
"""apcupsd's status words and names (its manual, "Status report fields"); TIMELEFT in minutes."""

STATE_OF_UPS = ("ups.on_battery", "ups.battery_low", "ups.replace_battery")

Door = Callable[..., CommandResult]


class PowerReader(SysfsReader):
    """Reads the power_supply class: supplies that were on and are not, and UPS on a serial or USB line."""

    name = "power"

    def __init__(
        self,
        poll_s: float,
        sysfs: Path = Path("/sys"),
        ignored: Sequence[str] = (),
        remembered: Remembered = NOTHING_REMEMBERED,
    ) -> None:
        super().__init__(poll_s, sysfs, ignored, remembered)
        self._known: dict[str, Device] = {}
        self._most = 0

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now; a host whose kernel knows no supplies has none."""
        readings: list[Reading] = []
        online: dict[str, bool] = {}
        for place in sorted((self._sysfs / PLACE).glob("*")):
            kind = read_text(place / "type")
            if read_text(place / "scope") == "Device":
                continue  # the battery of a mouse
            if kind == MAINS:
                online[place.name] = read_number(place / "online") == 1
            elif kind == UPS:
                readings += _kernel_ups(place, now)
        readings += self._supplies(online, now)
        return tuple(item for item in readings if not is_ignored(item.device, self._ignored))

    def _supplies(self, online: Mapping[str, bool], now: float) -> Iterator[Reading]:
        for name, is_on in online.items():
            device = Device(DeviceKind.POWER_SUPPLY, f"power:{name}", f"power supply {name}")
            self._known[name] = device
            if is_on:
                self._trusted.add(device.identity)
            if device.identity in self._trusted:  # one that was never plugged in cannot fail
                yield Reading("power.supply_failed", device, now, float(not is_on))
        for name, device in self._known.items():
            if name not in online:
                yield from unreadable(("power.supply_failed",), device, now, GONE)
        delivering = sum(online.values())
        self._most = max(self._most, delivering)
        if self._most > 1:
            remark = f"{delivering} of {self._most} deliver" if delivering < self._most else ""
            yield Reading("power.redundancy_lost", SUPPLIES, now, float(delivering < self._most), remark)


def _kernel_ups(place: Path, now: float) -> Iterator[Reading]:
    device = Device(DeviceKind.UPS, f"ups:kernel:{place.name}", f"UPS {place.name}")
    status, charge = read_text(place / "status"), read_number(place / "capacity")
    if not status or status == "Unknown":
        yield from unreadable(("ups.on_battery",), device, now, "its status is unknown")
    else:
        yield Reading("ups.on_battery", device, now, float(status == "Discharging"))
    if charge is not None:
        yield Reading("ups.charge", device, now, float(charge))


class UpsReader:
    """Asks the daemons that look after UPS: NUT's upsd by upsc, apcupsd by apcaccess; where they are installed."""

    name = "ups"

    def __init__(
        self,
        poll_s: float,
        ignored: Sequence[str] = (),
        door: Door = run,
        which: Callable[[str], str | None] = shutil.which,
    ) -> None:
        self.poll_s = poll_s
        self._ignored = tuple(ignored)
        self._door, self._which = door, which
        self._known: dict[str, tuple[Device, set[str]]] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return what the daemons tell; a UPS that was told of and is not any more is unreadable."""
        readings: list[Reading] = []
        if self._which("upsc"):
            for name in self._say("upsc", "-l").split():
                device = Device(DeviceKind.UPS, f"ups:nut:{name}", f"UPS {name}")
                readings += in_upsc(self._say("upsc", name), device, now)
        if self._which("apcaccess"):
            readings += in_apcaccess(self._say("apcaccess", "-u"), now)
        told = {item.device.identity for item in readings}
        for item in readings:
            self._known.setdefault(item.device.identity, (item.device, set()))[1].add(item.signal)
        for identity, (device, signals) in self._known.items():
            if identity not in told:
                readings += unreadable(sorted(signals), device, now, "its daemon does not answer")
        return tuple(item for item in readings if not is_ignored(item.device, self._ignored))

    def _say(self, *argv: str) -> str:
        try:
            result = self._door(argv, timeout_s=TIMEOUT_S, check=False)
        except CommandError:
            return ""
        return result.output + (result.errors if "stale" in result.errors.lower() else "")


def in_upsc(text: str, device: Device, now: float) -> list[Reading]:
    """Return the readings in what `upsc NAME` says. Pure."""
    if "data stale" in text.lower():
        return _lost(device, now, "its driver has lost it")
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    if "ups.status" not in values:
        return []
    words = values["ups.status"].split()
    readings = [Reading("ups.unreachable", device, now, 0.0)]
    readings += [Reading(name, device, now, float(word in words)) for name, word in NUT_FLAGS.items()]
    for signal, key in NUT_NUMBERS.items():
        readings += _number(signal, device, now, values.get(key, ""), 1.0)
    return readings


def in_apcaccess(text: str, now: float) -> list[Reading]:
    """Return the readings in what `apcaccess -u` says. Pure."""
    values = {key.strip(): value.strip() for line in text.splitlines() for key, _, value in [line.partition(":")]}
    if "STATUS" not in values:
        return []
    name = values.get("UPSNAME") or "apc"
    device = Device(DeviceKind.UPS, f"ups:apc:{values.get('SERIALNO') or name}", f"UPS {name}")
    words = values["STATUS"].split()
    if "COMMLOST" in words:
        return _lost(device, now, "apcupsd has lost it")
    readings = [Reading("ups.unreachable", device, now, 0.0)]
    readings += [Reading(signal, device, now, float(word in words)) for signal, word in APC_FLAGS.items()]
    for signal, (key, factor) in APC_NUMBERS.items():
        readings += _number(signal, device, now, values.get(key, ""), factor)
    return readings


def _lost(device: Device, now: float, reason: str) -> list[Reading]:
    return [Reading("ups.unreachable", device, now, 1.0, reason), *unreadable(STATE_OF_UPS, device, now, reason)]


def _number(signal: str, device: Device, now: float, text: str, factor: float) -> list[Reading]:
    try:
        return [Reading(signal, device, now, float(text.split(maxsplit=1)[0]) * factor)]
    except (ValueError, IndexError):
        return []
