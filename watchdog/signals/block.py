"""Which disk a kernel's name stands for: sda1, nvme0n1, ata3, 2:0:0:0.

Sources: Documentation/ABI/stable/sysfs-block; SPC-4 vital product data page 80h (the unit's serial number);
drivers/nvme/host/{sysfs,multipath}.c.
"""

from __future__ import annotations

import re
from pathlib import Path

from watchdog.signals.disks import is_pluggable
from watchdog.signals.model import Device, DeviceKind
from watchdog.signals.sysfs import read_text

DISK_NAME = re.compile(r"^(?:(?:sd|hd|vd|xvd)[a-z]+|nvme\d+|mmcblk\d+|dasd[a-z]+)(?=\d*$|n\d|p\d|$)")
"""Names of real disks; not sr0, fd0, loop0, zram0, dm-0 and md0, which are something else or made of disks."""

PORT = re.compile(r"/(ata\d+)/")
SCSI_ADDRESS = re.compile(r"^\d+:\d+:\d+:\d+$")
SERIAL_PAGE_HEADER_BYTES = 4


class BlockDevices:
    """The disks of this host by every name the kernel's messages use; those that are gone stay known."""

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._class = sysfs / "class"
        self._sysfs = sysfs
        self._names: tuple[str, ...] = ()
        self._disks: dict[str, Device | None] = {}

    def learn(self) -> None:
        """Look who is there; costs next to nothing while no device comes or goes."""
        names = tuple(sorted(_names(self._class / "block") + _names(self._class / "nvme")))
        if names == self._names:
            return
        self._names = names
        for name in names:
            self._learn(name)

    def disk(self, name: str) -> Device | None:
        """Return the disk that a name stands for; None for what is no disk, or may be pulled at any time."""
        name = name.removeprefix("/dev/")
        if name not in self._disks:
            self._disks[name] = self._unknown(name)
        return self._disks[name]

    def _unknown(self, name: str) -> Device | None:
        match = DISK_NAME.match(name)
        if match is None:
            return None
        whole = match.group(0)
        if whole in self._disks:
            return self._disks[whole]
        path = f"/dev/{whole}"
        return Device(DeviceKind.DISK, f"disk:{path}", path)

    def _learn(self, name: str) -> None:
        place = self._class / ("nvme" if (self._class / "nvme" / name).exists() else "block") / name
        whole = place.resolve().parent if (place / "partition").exists() else place.resolve()
        controller = _controller(whole)
        if controller is not None:
            whole = controller
        if not DISK_NAME.match(whole.name):
            self._disks[name] = None
            return
        device = None if is_pluggable(f"/dev/{whole.name}", self._sysfs) else _device(whole)
        self._disks[name] = self._disks[whole.name] = device
        port = PORT.search(str(whole))
        if port is not None:
            self._disks[port.group(1)] = device
        address = (whole / "device").resolve().name
        if SCSI_ADDRESS.match(address):
            self._disks[address] = device


def _controller(whole: Path) -> Path | None:
    """Return the controller of an NVMe namespace; with multipath, the first one of its subsystem."""
    if not re.match(r"^nvme\d+(c\d+)?n\d+$", whole.name):
        return None
    above = (whole / "device").resolve()
    if re.match(r"^nvme\d+$", above.name):
        return above
    found = sorted(path.resolve() for path in above.glob("nvme[0-9]*") if re.match(r"^nvme\d+$", path.name))
    return found[0] if found else None


def _device(whole: Path) -> Device:
    path = f"/dev/{whole.name}"
    serial = _serial(whole)
    is_nvme = whole.name.startswith("nvme")
    rotates = read_text(whole / "queue/rotational")
    kind = "nvme" if is_nvme else {"1": "hdd", "0": "ssd"}.get(rotates, "")
    about = {"model": read_text(whole / ("model" if is_nvme else "device/model")), "serial": serial, "type": kind}
    told = {key: value for key, value in about.items() if value}
    return Device(DeviceKind.DISK, f"disk:{serial or path}", path, told)


def _serial(whole: Path) -> str:
    for place in ("serial", "device/serial"):
        if found := read_text(whole / place):
            return found
    try:
        page = (whole / "device/vpd_pg80").read_bytes()
    except OSError:
        return ""
    return page[SERIAL_PAGE_HEADER_BYTES:].decode("ascii", "replace").strip("\0 ")


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []
