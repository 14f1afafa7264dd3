"""Memory error counters: the kernel's EDAC subsystem (Documentation/admin-guide/ras.rst)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import THIS_HOST, sight, unreadable
from watchdog.signals.sysfs import SysfsReader, load, read_text

SIGNALS = ("edac.ce_count", "edac.ue_count")
PLACE = Path("devices/system/edac/mc")
COLLECTOR = Path("kernel/debug/ras/cec")
"""Directory of the kernel's collector of corrected errors, made only when it is active (drivers/ras/cec.c).

It takes corrected errors before EDAC sees them, so a count of 0 then means nothing.
"""

HEST = Path("firmware/acpi/tables/HEST")
"""ACPI's table of error sources (ACPI 6.5, 18.3.2): where it is, the firmware sees errors first."""

FIRMWARE_DRIVER = "ghes_edac"
NO_CONTROLLER = "no memory controller: no ECC, no driver, or a virtual machine"
FIRMWARE_KEEPS_IT = (
    "no memory controller, and the firmware handles errors first (ACPI HEST): only what it reports to the kernel "
    "log (firmware.*) and the BMC's log (sel.*) is seen"
)
FIRMWARE_COUNTS = (
    "the firmware handles errors first (GHES), and tells only those it thinks worth it: 0 means nothing"
)
GONE = "its memory controller's driver is gone"
COLLECTED = "the kernel's RAS_CEC collects corrected errors before they are counted (ras=cec_disable ends that)"


class EdacReader(SysfsReader):
    """Reads corrected and uncorrected errors of each DIMM, and of each controller those without a DIMM."""

    name = "edac"

    def __init__(
        self,
        poll_s: float,
        sysfs: Path = Path("/sys"),
        ignored: Sequence[str] = (),
        meminfo: Path = Path("/proc/meminfo"),
    ) -> None:
        super().__init__(poll_s, sysfs, ignored)
        self._meminfo = meminfo
        self._known: dict[str, Device] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return all counters; without a controller the memory is unreadable, not healthy."""
        controllers = sorted((self._sysfs / PLACE).glob("mc[0-9]*"))
        readings = [reading for controller in controllers for reading in _of_controller(controller, now)]
        hidden = self._hidden(controllers)
        readings = [_without_zero(reading, hidden) if hidden else reading for reading in readings]
        present = {reading.device.identity: reading.device for reading in readings}
        for identity, device in self._known.items():
            if identity not in present:
                readings += unreadable(SIGNALS, device, now, GONE)
        self._known |= present
        kept = self._kept(readings)
        blind = FIRMWARE_KEEPS_IT if (self._sysfs / HEST).exists() else NO_CONTROLLER
        return (*kept, *_poisoned(self._meminfo, now), sight(self.name, now, "" if controllers else blind))

    def _hidden(self, controllers: Sequence[Path]) -> str:
        """Say why corrected errors may never reach the counters; empty when they do."""
        if (self._sysfs / COLLECTOR).is_dir():
            return COLLECTED
        drivers = {read_text(controller / "mc_name") for controller in controllers}
        return FIRMWARE_COUNTS if any(name.startswith(FIRMWARE_DRIVER) for name in drivers) else ""


def _of_controller(controller: Path, now: float) -> list[Reading]:
    """Return the counters of one controller; `noinfo` are errors that name no DIMM, and easily missed."""
    number = controller.name
    about = {"controller": read_text(controller / "mc_name")}
    device = Device(DeviceKind.MEMORY_CONTROLLER, f"edac:{number}", f"{number} (no DIMM named)", about)
    readings = _counts(device, controller, ("ce_noinfo_count", "ue_noinfo_count"), now)
    dimms = sorted([*controller.glob("dimm[0-9]*"), *controller.glob("rank[0-9]*")])
    for dimm in dimms:
        readings += _counts(_dimm(number, dimm), dimm, ("dimm_ce_count", "dimm_ue_count"), now)
    for row in () if dimms else sorted(controller.glob("csrow[0-9]*")):
        readings += _counts(_row(number, row), row, ("ce_count", "ue_count"), now)
    return readings


def _dimm(controller: str, directory: Path) -> Device:
    label = read_text(directory / "dimm_label")
    about = {
        "label": label,
        "location": read_text(directory / "dimm_location"),
        "size_mb": read_text(directory / "size"),
    }
    place = f"{controller}/{directory.name}"
    return Device(DeviceKind.DIMM, f"edac:{place}", label or place, about)


def _row(controller: str, directory: Path) -> Device:
    """Return a chip-select row: the layout of kernels and drivers without DIMM directories."""
    labels = sorted({read_text(path) for path in directory.glob("ch[0-9]*_dimm_label")} - {""})
    place = f"{controller}/{directory.name}"
    return Device(DeviceKind.DIMM, f"edac:{place}", place, {"label": ", ".join(labels)})


def _counts(device: Device, directory: Path, files: tuple[str, str], now: float) -> list[Reading]:
    readings = []
    for signal, name in zip(SIGNALS, files, strict=True):
        try:
            readings.append(Reading(signal, device, now, float(int(load(directory / name)))))
        except (OSError, ValueError) as error:
            readings.append(Reading(signal, device, now, None, f"{name}: {error}"))
    return readings


def _without_zero(reading: Reading, reason: str) -> Reading:
    if reading.signal != "edac.ce_count" or reading.value:
        return reading
    return Reading(reading.signal, reading.device, reading.at, None, reason)


def _poisoned(meminfo: Path, now: float) -> list[Reading]:
    """Return how much memory is out of use; nothing where the kernel does not count it (CONFIG_MEMORY_FAILURE)."""
    found = re.search(r"^HardwareCorrupted:\s+(\d+) kB", read_text(meminfo), re.MULTILINE)
    return [Reading("memory.poisoned", THIS_HOST, now, float(found.group(1)) * 1024)] if found else []
