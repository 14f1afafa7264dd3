"""Memory error counters: the kernel's EDAC subsystem (Documentation/admin-guide/ras.rst)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import is_ignored, sight, unreadable

SIGNALS = ("edac.ce_count", "edac.ue_count")
PLACE = Path("devices/system/edac/mc")
COLLECTOR = Path("kernel/debug/ras/cec")
"""Directory of the kernel's collector of corrected errors, made only when it is active (drivers/ras/cec.c).

It takes corrected errors before EDAC sees them, so a count of 0 then means nothing.
"""

NO_CONTROLLER = "no memory controller: no ECC, no driver, a virtual machine, or the firmware keeps it"
GONE = "its memory controller's driver is gone"
COLLECTED = "the kernel's RAS_CEC collects corrected errors before they are counted (ras=cec_disable ends that)"


class EdacReader:
    """Reads corrected and uncorrected errors of each DIMM, and of each controller those without a DIMM."""

    name = "edac"

    def __init__(self, poll_s: float, sysfs: Path = Path("/sys"), ignored: Sequence[str] = ()) -> None:
        self.poll_s = poll_s
        self._sysfs = sysfs
        self._ignored = tuple(ignored)
        self._known: dict[str, Device] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return all counters; without a controller the memory is unreadable, not healthy."""
        controllers = sorted((self._sysfs / PLACE).glob("mc[0-9]*"))
        readings = [reading for controller in controllers for reading in _of_controller(controller, now)]
        if (self._sysfs / COLLECTOR).is_dir():
            readings = [_collected(reading) for reading in readings]
        present = {reading.device.identity: reading.device for reading in readings}
        for identity, device in self._known.items():
            if identity not in present:
                readings += unreadable(SIGNALS, device, now, GONE)
        self._known |= present
        kept = [reading for reading in readings if not is_ignored(reading.device, self._ignored)]
        return (*kept, sight(self.name, now, "" if controllers else NO_CONTROLLER))


def _of_controller(controller: Path, now: float) -> list[Reading]:
    """Return the counters of one controller; `noinfo` are errors that name no DIMM, and easily missed."""
    number = controller.name
    about = {"controller": _text(controller / "mc_name")}
    device = Device(DeviceKind.MEMORY_CONTROLLER, f"edac:{number}", f"{number} (no DIMM named)", about)
    readings = _counts(device, controller, ("ce_noinfo_count", "ue_noinfo_count"), now)
    dimms = sorted([*controller.glob("dimm[0-9]*"), *controller.glob("rank[0-9]*")])
    for dimm in dimms:
        readings += _counts(_dimm(number, dimm), dimm, ("dimm_ce_count", "dimm_ue_count"), now)
    for row in () if dimms else sorted(controller.glob("csrow[0-9]*")):
        readings += _counts(_row(number, row), row, ("ce_count", "ue_count"), now)
    return readings


def _dimm(controller: str, directory: Path) -> Device:
    label = _text(directory / "dimm_label")
    about = {
        "label": label,
        "location": _text(directory / "dimm_location"),
        "size_mb": _text(directory / "size"),
    }
    place = f"{controller}/{directory.name}"
    return Device(DeviceKind.DIMM, f"edac:{place}", label or place, about)


def _row(controller: str, directory: Path) -> Device:
    """Return a chip-select row: the layout of kernels and drivers without DIMM directories."""
    labels = sorted({_text(path) for path in directory.glob("ch[0-9]*_dimm_label")} - {""})
    place = f"{controller}/{directory.name}"
    return Device(DeviceKind.DIMM, f"edac:{place}", place, {"label": ", ".join(labels)})


def _counts(device: Device, directory: Path, files: tuple[str, str], now: float) -> list[Reading]:
    readings = []
    for signal, name in zip(SIGNALS, files, strict=True):
        try:
            readings.append(Reading(signal, device, now, float(int((directory / name).read_text()))))
        except (OSError, ValueError) as error:
            readings.append(Reading(signal, device, now, None, f"{name}: {error}"))
    return readings


def _collected(reading: Reading) -> Reading:
    if reading.signal != "edac.ce_count" or reading.value:
        return reading
    return Reading(reading.signal, reading.device, reading.at, None, COLLECTED)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
