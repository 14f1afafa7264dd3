"""Every signal that a policy may name.

Sources of the words: smartmontools' drivedb and JSON keys (7.x), NVMe Base Specification (SMART / Health
Information log), SPC/SBC log pages as smartctl shows them, the kernel's EDAC and hwmon sysfs ABI.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from watchdog.signals.model import DeviceKind, SignalKind, SignalType

_DISK = {
    "smart.health_failed": ("flag", "bool", "the drive itself says that it is failing, and not only by wear"),
    "smart.wear_failing": ("flag", "bool", "the drive says that it is failing, and the only cause is wear"),
    "smart.prefail_attribute_failing": (
        "flag",
        "bool",
        "a pre-fail attribute other than temperature and wear stands at or below its threshold",
    ),
    "smart.reallocated_sectors": ("counter", "count", "ATA 5: sectors (SSD: blocks) replaced by spare ones"),
    "smart.pending_sectors": ("gauge", "count", "ATA 197 or the pending defects log: unreadable sectors"),
    "smart.offline_uncorrectable": ("gauge", "count", "ATA 198: sectors unreadable in an off-line scan"),
    "smart.reported_uncorrectable": ("counter", "count", "ATA 187: errors reported to the host"),
    "smart.spin_retries": ("counter", "count", "ATA 10: attempts to spin up again"),
    "smart.end_to_end_errors": ("counter", "count", "ATA 184: data damaged inside the drive"),
    "smart.command_timeouts": ("counter", "count", "ATA 188 of spinning drives: commands that timed out"),
    "smart.crc_errors": (
        "counter",
        "count",
        "ATA 199: damaged transfers; the cable more often than the drive",
    ),
    "smart.selftest_failed": ("flag", "bool", "the newest self-test that came to an end failed"),
    "smart.temperature": ("gauge", "celsius", "temperature of the drive"),
    "smart.temperature_margin": ("gauge", "celsius", "how far the drive is below its own operating limit"),
    "smart.grown_defects": ("counter", "count", "SCSI grown defect list"),
    "smart.uncorrected_errors": ("counter", "count", "SCSI uncorrected errors of reads, writes and verifies"),
    "smart.failure_predicted": ("flag", "bool", "SCSI informational exception 5Dh, except for wear"),
    "smart.warning": ("flag", "bool", "SCSI informational exception 0Bh, except for temperature"),
    "smart.spare_below_threshold": ("flag", "bool", "NVMe critical warning bit 0"),
    "smart.temperature_warning": ("flag", "bool", "NVMe critical warning bit 1, or SCSI exception 0Bh/01h"),
    "smart.reliability_degraded": ("flag", "bool", "NVMe critical warning bit 2, not explained by wear"),
    "smart.media_read_only": ("flag", "bool", "NVMe critical warning bit 3"),
    "smart.backup_failed": (
        "flag",
        "bool",
        "NVMe critical warning bit 4, or ATA 175: the power-loss capacitor",
    ),
    "smart.persistent_memory_unreliable": ("flag", "bool", "NVMe critical warning bit 5"),
    "smart.spare_margin": ("gauge", "percent", "available spare above the drive's own threshold"),
    "smart.percentage_used": ("gauge", "percent", "endurance used, by the drive's estimate; may exceed 100"),
    "smart.media_errors": ("counter", "count", "NVMe media and data integrity errors"),
    "smart.controller_failsafe": (
        "flag",
        "bool",
        "the health log is junk: the drive's controller is in failsafe",
    ),
    "smart.unresponsive": ("flag", "bool", "the drive did not answer smartctl in time"),
    "smart.reading_age": (
        "gauge",
        "seconds",
        "how old the drive's other readings are; above 0 while it sleeps",
    ),
    "disk.missing": ("flag", "bool", "a disk that was there has vanished"),
    "disk.offline": ("flag", "bool", "the kernel has given the disk up: SCSI offline, NVMe controller dead"),
}
_DIMM = {
    "edac.ce_count": ("counter", "count", "corrected memory errors since the driver was loaded"),
    "edac.ue_count": ("counter", "count", "uncorrected memory errors since the driver was loaded"),
}
_SENSOR = {
    "hwmon.temperature": ("gauge", "celsius", "a temperature"),
    "hwmon.temperature_critical": ("flag", "bool", "a temperature at or above the chip's own critical limit"),
    "hwmon.fan_speed": ("gauge", "rpm", "a fan's speed"),
    "hwmon.fan_failed": ("flag", "bool", "a fan that turned has stopped, or its sensor reports a fault"),
    "hwmon.voltage": ("gauge", "volt", "a voltage"),
    "hwmon.voltage_out_of_range": ("flag", "bool", "a voltage that has left the chip's own limits"),
}
_HOST = {
    "reader.blind": ("flag", "bool", "unreadable while a reader finds nothing to read, fails or hangs"),
}


def _entries() -> dict[str, SignalType]:
    kinds = (
        (DeviceKind.DISK, _DISK),
        (DeviceKind.DIMM, _DIMM),
        (DeviceKind.SENSOR, _SENSOR),
        (DeviceKind.HOST, _HOST),
    )
    return {
        name: SignalType(name, SignalKind(kind), unit, device, description)
        for device, table in kinds
        for name, (kind, unit, description) in table.items()
    }


CATALOG: Mapping[str, SignalType] = MappingProxyType(_entries())
