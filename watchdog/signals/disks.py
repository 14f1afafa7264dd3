"""What sysfs tells about a disk without asking the disk: whether it is there, and what the kernel thinks of it.

Sources: Documentation/ABI/stable/sysfs-block, drivers/scsi/scsi_sysfs.c (state, iotmo_cnt),
drivers/nvme/host/sysfs.c (state).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from watchdog.signals.model import Reading
from watchdog.signals.reader import KnownDisk, sight
from watchdog.signals.sysfs import read_text

GIVEN_UP = ("offline", "transport-offline", "dead")
"""States of a SCSI device or an NVMe controller in which the kernel has given it up."""


SECOND_LOOK_S = 0.25
"""A disk that has just vanished is looked for once more: some come back at once under another name."""


class DisksReader:
    """Looks after the disks that the reader of SMART knows, quickly and without asking them."""

    name = "disks"

    def __init__(
        self,
        poll_s: float,
        inventory: Callable[[], Mapping[str, KnownDisk]],
        *,
        sysfs: Path = Path("/sys"),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.poll_s = poll_s
        self._inventory, self._sysfs, self._pause = inventory, sysfs, pause
        self._missing: frozenset[str] = frozenset()

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return `disk.missing` of every disk that may be missed, and the kernel's word for each that is there."""
        readings = self._look(now)
        gone = frozenset(item.device.identity for item in readings if item.signal == "disk.missing" and item.value)
        if gone - self._missing:
            self._pause(SECOND_LOOK_S)
            readings += self._look(now + SECOND_LOOK_S)
        self._missing = gone
        return (*readings, sight(self.name, now)) if readings else ()  # without disks SMART is blind, and says so

    def _look(self, now: float) -> list[Reading]:
        inventory = self._inventory()
        readings: list[Reading] = []
        for identity, known in inventory.items():
            there = is_there(inventory, identity)
            if not known.pluggable:
                remark = "" if there else "its device file is gone, or another disk has taken its place"
                readings.append(Reading("disk.missing", known.device, now, float(not there), remark))
            if there:
                readings += _told_by_kernel(known, self._sysfs, now)
        return readings


def is_there(inventory: Mapping[str, KnownDisk], identity: str) -> bool:
    """Say whether a disk's device file is there, and no other disk has answered under its name since."""
    known = inventory[identity]
    name = known.device.name
    newest = max((other for other in inventory.values() if other.device.name == name), key=lambda o: o.read_at)
    return newest is known and Path(name.split(" ")[0]).exists()


def _told_by_kernel(known: KnownDisk, sysfs: Path, now: float) -> list[Reading]:
    path = known.device.name
    readings = []
    if word := state(path, sysfs):
        given_up = word in GIVEN_UP
        readings.append(Reading("disk.offline", known.device, now, float(given_up), word if given_up else ""))
    timeouts = read_text(sysfs / "class/block" / Path(path).name / "device/iotmo_cnt")
    if timeouts:
        readings.append(Reading("disk.timeouts", known.device, now, float(int(timeouts, 16))))
    return readings


def is_pluggable(path: str, sysfs: Path) -> bool:
    """Say whether a disk may be pulled at any time: a USB disk that goes is not a failure."""
    block = sysfs / "class/block" / Path(path).name
    return read_text(block / "removable") == "1" or "/usb" in str(block.resolve())


def state(path: str, sysfs: Path) -> str:
    """Return the kernel's word for the state of a disk; empty where there is none, as behind a RAID controller."""
    name = Path(path).name
    return read_text(sysfs / "class/block" / name / "device/state") or read_text(
        sysfs / "class/nvme" / name / "state"
    )
