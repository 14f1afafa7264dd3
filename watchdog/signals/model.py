"""What a host can tell about itself: signals, the devices they are about, and their readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class SignalKind(StrEnum):
    """How the values of a signal behave over time."""

    GAUGE = "gauge"  # goes up and down: a temperature
    COUNTER = "counter"  # only grows, except for a reset: corrected errors since the driver was loaded
    FLAG = "flag"  # 0 (fine) or 1 (not fine): the drive's own health status failed


class DeviceKind(StrEnum):
    """What part of the host a signal is about; from it follows what is affected."""

    DISK = "disk"
    MEMBER = "member"  # a disk, or a part of it, as the member of an array, pool or file system
    ARRAY = "array"  # md, LVM, a ZFS pool, btrfs
    FILE_SYSTEM = "file-system"
    DIMM = "dimm"
    MEMORY_CONTROLLER = "memory-controller"
    PROCESSOR = "processor"  # a socket
    PCIE = "pcie"
    SENSOR = "sensor"
    POWER_SUPPLY = "power-supply"
    UPS = "ups"
    SCRIPT = "script"  # an admin's own program
    HOST = "host"  # no part of it, or the host as a whole


@dataclass(frozen=True)
class SignalType:
    """One entry of the catalogue of signals that policies may name.

    `name` is dotted (`smart.pending_sectors`), `unit` one of `count`, `percent`, `celsius`, `rpm`, `volt`, `watt`,
    `bytes`, `bool`, `hours`, `seconds`; `counter` values may fall only by a reset. `source` is the reader that
    tells it, by name; empty when every reader does.
    """

    name: str
    kind: SignalKind
    unit: str
    device_kind: DeviceKind
    description: str
    source: str


@dataclass(frozen=True, slots=True)
class Device:
    """A part of the host. `identity` survives reboots: serial number or WWN, EDAC location, sensor's bus path.

    `name` is what an admin calls it today (`/dev/sda`, `mc0/dimm3`, `coretemp temp1`).
    `about` carries what a person wants to see: model, label, type (`hdd`, `ssd`, `nvme`).
    """

    kind: DeviceKind
    identity: str
    name: str
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of a signal of one device at one time.

    `at` is Unix time in seconds. `value` is None when the signal is *unreadable*, and then `reason` says
    why: that is a state of its own, and never the same as healthy. With a value, `reason` may carry a
    remark: which attribute stands below its threshold.
    """

    signal: str
    device: Device
    at: float
    value: float | None
    reason: str = ""

    @property
    def readable(self) -> bool:
        """Say whether there is a value to judge."""
        return self.value is not None
