"""Memory error counters: the kernel's EDAC subsystem (Documentation/admin-guide/ras.rst)."""

from __future__ import annotations

from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import unreadable

SIGNALS = ("edac.ce_count", "edac.ue_count")
PLACE = Path("devices/system/edac/mc")


class EdacReader:
    """Reads corrected and uncorrected errors of each DIMM, and of each controller those without a DIMM."""

    name = "edac"

    def __init__(self, poll_s: float, sysfs: Path = Path("/sys")) -> None:
        self.poll_s = poll_s
        self._root = sysfs / PLACE

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return all counters; without a controller the host's memory is unreadable, not healthy."""
        controllers = sorted(self._root.glob("mc[0-9]*"))
        if not controllers:
            host = Device(DeviceKind.HOST, "memory", "memory")
            reason = "no memory controller: no ECC, no driver, a virtual machine, or the firmware keeps it"
            return unreadable(SIGNALS, host, now, reason)
        readings: list[Reading] = []
        for controller in controllers:
            readings += self._of_controller(controller, now)
        return tuple(readings)

    def _of_controller(self, controller: Path, now: float) -> list[Reading]:
        number = controller.name
        about = {"controller": _text(controller / "mc_name")}
        device = Device(DeviceKind.MEMORY_CONTROLLER, f"edac:{number}", f"{number} (no DIMM named)", about)
        readings = _counts(device, controller, ("ce_noinfo_count", "ue_noinfo_count"), now)
        for dimm in sorted([*controller.glob("dimm[0-9]*"), *controller.glob("rank[0-9]*")]):
            label = _text(dimm / "dimm_label")
            about = {
                "label": label,
                "location": _text(dimm / "dimm_location"),
                "size_mb": _text(dimm / "size"),
            }
            identity = f"edac:{number}/{dimm.name}"
            named = Device(DeviceKind.DIMM, identity, label or f"{number}/{dimm.name}", about)
            readings += _counts(named, dimm, ("dimm_ce_count", "dimm_ue_count"), now)
        return readings


def _counts(device: Device, directory: Path, files: tuple[str, str], now: float) -> list[Reading]:
    readings = []
    for signal, name in zip(SIGNALS, files, strict=True):
        try:
            readings.append(Reading(signal, device, now, float(int((directory / name).read_text()))))
        except (OSError, ValueError) as error:
            readings.append(Reading(signal, device, now, None, f"{name}: {error}"))
    return readings


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
