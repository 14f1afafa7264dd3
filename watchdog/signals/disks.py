"""What sysfs tells about a disk without asking the disk.

Sources: Documentation/ABI/stable/sysfs-block, drivers/scsi/scsi_sysfs.c (state), drivers/nvme/host/sysfs.c
(state).
"""

from __future__ import annotations

from pathlib import Path

GIVEN_UP = ("offline", "transport-offline", "dead")
"""States of a SCSI device or an NVMe controller in which the kernel has given it up."""


def is_pluggable(path: str, sysfs: Path) -> bool:
    """Say whether a disk may be pulled at any time: a USB disk that goes is not a failure."""
    block = sysfs / "class/block" / Path(path).name
    return _text(block / "removable") == "1" or "/usb" in str(block.resolve())


def state(path: str, sysfs: Path) -> str:
    """Return the kernel's word for the state of a disk; empty where there is none, as behind a RAID controller."""
    name = Path(path).name
    return _text(sysfs / "class/block" / name / "device/state") or _text(sysfs / "class/nvme" / name / "state")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
