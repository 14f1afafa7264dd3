"""PCIe: error counters (AER) and lanes of each device (Documentation/ABI/testing/sysfs-bus-pci-devices-aer)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import NOTHING_REMEMBERED, Remembered, sight, unreadable
from watchdog.signals.sysfs import SysfsReader, read_number, read_text

PLACE = Path("bus/pci/devices")
COUNTS = {
    "pcie.correctable_errors": ("aer_dev_correctable", "TOTAL_ERR_COR"),
    "pcie.nonfatal_errors": ("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL"),
    "pcie.fatal_errors": ("aer_dev_fatal", "TOTAL_ERR_FATAL"),
}
NO_FAULT = "UnsupReq"  # software asked for what the device does not have, as when a host wakes up
CARRYING = {"0x01": "storage", "0x02": "network"}
"""First byte of the class: devices on which the host's work hangs, watched from the first reading on."""

UNKNOWN_LANES = 255
NOTHING_COUNTED = "no device counts its errors: no PCIe, a virtual machine, pci=noaer, or the firmware keeps them"
GONE = "the device is gone"


class PcieReader(SysfsReader):
    """Reads the counters of storage and network devices, and of all others that ever had an error."""

    name = "pcie"

    def __init__(
        self,
        poll_s: float,
        sysfs: Path = Path("/sys"),
        ignored: Sequence[str] = (),
        remembered: Remembered = NOTHING_REMEMBERED,
    ) -> None:
        super().__init__(poll_s, sysfs, ignored, remembered)
        self._told_before = {device.identity for signal, device in remembered.told if signal in COUNTS}
        self._known: dict[str, tuple[Device, tuple[str, ...]]] = {}
        self._lanes: dict[str, int] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the counters; a device that had some and is gone is unreadable."""
        readings: list[Reading] = []
        counted = False
        for place in sorted((self._sysfs / PLACE).glob("*")):
            counts = {signal: _count(place / file, total) for signal, (file, total) in COUNTS.items()}
            counted = counted or any(count is not None for count in counts.values())
            readings += self._of_device(place, counts, now)
        present = {item.device.identity for item in readings}
        for identity, (device, signals) in self._known.items():
            if identity not in present:
                readings += unreadable(signals, device, now, GONE)
        kept = self._kept(readings)
        return (*kept, sight(self.name, now, "" if counted else NOTHING_COUNTED))

    def _of_device(self, place: Path, counts: dict[str, int | None], now: float) -> list[Reading]:
        device = _device(place)
        is_watched = device.identity in self._known or "carries" in device.about
        is_watched = is_watched or device.identity in self._told_before  # it had errors before the host was booted
        if not is_watched and not any(counts.values()):
            return []
        readings = [
            Reading(signal, device, now, float(count)) for signal, count in counts.items() if count is not None
        ]
        if not is_watched:
            # errors of a device nobody looked at before: there were none then
            readings = [*(Reading(item.signal, device, now - 0.001, 0.0) for item in readings), *readings]
        readings += self._link(place, device, now)
        if readings:
            self._known[device.identity] = (device, tuple(dict.fromkeys(item.signal for item in readings)))
        return readings

    def _link(self, place: Path, device: Device, now: float) -> Iterator[Reading]:
        lanes = read_number(place / "current_link_width")
        if not lanes or lanes == UNKNOWN_LANES:
            return
        self._lanes[device.identity] = max(lanes, self._lanes.get(device.identity, 0))
        ends = [read_number(end / "max_link_width") for end in (place, place.resolve().parent)]
        both = [width for width in ends if width and width != UNKNOWN_LANES]
        best = max(self._lanes[device.identity], min(both) if len(both) == len(ends) else 0)
        remark = f"{lanes} of {best} lanes" if lanes < best else ""
        yield Reading("pcie.link_narrow", device, now, float(lanes < best), remark)


def _device(place: Path) -> Device:
    driver = (place / "driver").resolve().name if (place / "driver").exists() else ""
    carries = CARRYING.get(read_text(place / "class")[:4], "")
    about = {"driver": driver, "carries": carries}
    told = {key: value for key, value in about.items() if value}
    return Device(DeviceKind.PCIE, f"pcie:{place.name}", f"{place.name} {driver}".strip(), told)


def _count(path: Path, total: str) -> int | None:
    """Return the sum of a file of `NAME count` lines, without what is no fault; None when it cannot be read."""
    lines = [line.split() for line in read_text(path).splitlines()]
    found = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    if total not in found:
        return None
    return max(found[total] - found.get(NO_FAULT, 0), 0)
