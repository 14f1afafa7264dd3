"""Signals of disks, of what is put together from disks, and of file systems.

Sources of the words: smartmontools' drivedb and JSON keys (7.x), NVMe Base Specification (SMART / Health
Information log), SPC/SBC log pages as smartctl shows them; the kernel's md, btrfs and ext4 sysfs, zpool(8),
lvs(8); the kernel's own messages.
"""

from __future__ import annotations

from watchdog.signals.model import DeviceKind

SMART = {
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
    "smart.logged_errors": ("counter", "count", "ATA error log: commands that failed in the drive's whole life"),
    "smart.read_errors": ("counter", "count", "ATA 1 of Seagate drives: upper 16 of 48 bits, the errors"),
    "smart.seek_errors": ("counter", "count", "ATA 7 of Seagate drives: upper 16 of 48 bits, the errors"),
}
DISK = {
    "disk.missing": ("flag", "bool", "a disk that was there has vanished"),
    "disk.offline": ("flag", "bool", "the kernel has given the disk up: SCSI offline, NVMe controller dead"),
    "disk.timeouts": ("counter", "count", "commands that timed out since boot (SCSI and SATA: iotmo_cnt)"),
}
KERNEL_DISK = {
    "kernel.io_errors": ("counter", "count", "requests to a disk that failed"),
    "kernel.medium_errors": (
        "counter",
        "count",
        "sectors of a disk that cannot be read; the same sector is counted once",
    ),
    "kernel.disk_failures": (
        "counter",
        "count",
        "times the kernel gave a disk up: controller down, hardware error, thrown out of an array",
    ),
    "kernel.link_errors": (
        "counter",
        "count",
        "resets of a disk's link and damaged transfers; the cable more often than the disk",
    ),
}
MEMBER = {
    "array.member_errors": (
        "counter",
        "count",
        "errors that an array, pool or file system counted on one of its disks (md, ZFS, btrfs)",
    ),
}
ARRAY = {
    "array.degraded": ("flag", "bool", "not every member of an array, mirror or pool is there and in step"),
    "array.not_rebuilding": ("flag", "bool", "degraded, and no rebuild runs"),
    "array.no_redundancy": (
        "flag",
        "bool",
        "degraded, and the next member that fails takes data with it; not set for what never had redundancy",
    ),
    "array.failed": ("flag", "bool", "more members are gone than it can bear: data is out of reach"),
}
FILE_SYSTEM = {
    "filesystem.read_only": ("flag", "bool", "mounted to be written, and the kernel has made it read-only"),
    "filesystem.errors": ("counter", "count", "errors that ext4 counted in its super block"),
}
KERNEL_FILE_SYSTEM = {
    "kernel.filesystem_errors": ("counter", "count", "errors of a file system that the kernel reported"),
    "kernel.filesystem_shutdowns": (
        "counter",
        "count",
        "times the kernel made a file system read-only, or shut it down",
    ),
}

TABLES = (
    (DeviceKind.DISK, "smart", SMART),
    (DeviceKind.DISK, "disks", DISK),
    (DeviceKind.DISK, "kernel", KERNEL_DISK),
    (DeviceKind.MEMBER, "arrays", MEMBER),
    (DeviceKind.ARRAY, "arrays", ARRAY),
    (DeviceKind.FILE_SYSTEM, "mounts", FILE_SYSTEM),
    (DeviceKind.FILE_SYSTEM, "kernel", KERNEL_FILE_SYSTEM),
)
"""What a signal is about, the reader that tells it, and the signals: name -> kind, unit, description."""
