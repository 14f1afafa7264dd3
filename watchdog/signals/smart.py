"""Disks: pySMART finds them and their interface types, `smartctl --json` tells how they are.

Why both: pySMART parses text, has no time-out and takes a drive that does not answer for one without
trouble (docs/decisions/0002). A drive that hangs delays no other: each is read in a thread of its own.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pySMART import Device as SmartDevice
from pySMART import DeviceList

from migrator.command import run
from migrator.errors import CommandError
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import unreadable
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart_decode import ESSENTIAL, decode, device_of

NOT_WOKEN = "standby,3"  # see smart_decode.STANDBY_STATUS
AT_ONCE = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drive:
    """A drive as smartctl is called for it."""

    path: str
    type: str


class SmartReader:
    """Reads every drive of the host."""

    name = "smart"

    def __init__(self, settings: SignalSettings) -> None:
        self.poll_s = settings.smart_poll_s
        self._timeout_s = settings.smart_timeout_s
        self._extra = tuple(Drive(extra.device, extra.type) for extra in settings.drives)
        self._known: dict[Drive, Device] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of all drives, and `disk.missing` for each that was there before."""
        drives = (*discover(), *self._extra)
        with ThreadPoolExecutor(max_workers=AT_ONCE) as workers:
            results = list(workers.map(lambda drive: self._read_drive(drive, now), drives))
        readings = [reading for result in results for reading in result]
        return (*readings, *self._missing(drives, now))

    def _read_drive(self, drive: Drive, now: float) -> tuple[Reading, ...]:
        argv = ["smartctl", "--json=c", "-n", NOT_WOKEN, "-d", drive.type, "-x", drive.path]
        before = self._known.get(drive) or Device(DeviceKind.DISK, f"disk:{drive.path}", drive.path)
        try:
            answer = json.loads(run(argv, timeout_s=self._timeout_s, check=False).output)
        except CommandError as error:
            return unreadable(ESSENTIAL, before, now, error.message)
        except ValueError:
            return unreadable(ESSENTIAL, before, now, "smartctl answered something that is not JSON")
        device = device_of(answer, drive.path) if "serial_number" in answer else before
        readings = decode(answer, device, now)
        if any(reading.readable for reading in readings):
            self._known[drive] = device
        return readings

    def _missing(self, drives: Sequence[Drive], now: float) -> list[Reading]:
        present = {self._known[drive].identity for drive in drives if drive in self._known}
        known = {device.identity: device for device in self._known.values()}
        return [
            Reading("disk.missing", device, now, float(identity not in present))
            for identity, device in known.items()
        ]


def discover() -> tuple[Drive, ...]:
    """Return the drives pySMART finds, with the interface type smartctl needs."""
    try:
        found: Any = DeviceList(init=False)
        found.initialize()
    except (OSError, IndexError, ValueError) as error:
        _log.warning("scanning for drives failed: %s", error)
        return ()
    return tuple(Drive(_path(device.name), device.smartctl_interface or "auto") for device in found.devices)


def self_test(device: str, kind: str = "short") -> str:
    """Start a drive's self-test (`short` or `long`) and return what the drive said."""
    _, message, _ = SmartDevice(device).run_selftest(kind)
    return str(message)


def _path(name: str) -> str:
    return name if name.startswith("/") else str(Path("/dev") / name)
