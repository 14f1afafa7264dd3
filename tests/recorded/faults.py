"""For each shipped rule what a device with the fault says: recordings of our own, in the formats of the sources.

They are outputs as the programs and the kernel print them (smartctl's text, kernel log lines, ipmitool, listings of
sysfs, machine-check registers), read by the same decoders as on a host. What no program prints, as that a disk has
vanished, is a trace of readings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

HOUR, DAY = 3600.0, 86400.0

Story = Sequence[tuple[float, str]]
"""What is recorded: seconds since the one before, and the text."""


def ata(kind: str = "hdd", *, health: str = "PASSED", test: str = "", below: str = "", **raws: int) -> str:
    """Return smartctl's text of an ATA drive; `raws` are raw values by attribute, as `a5=8`."""
    names = {5: "Reallocated_Sector_Ct", 10: "Spin_Retry_Count", 184: "End-to-End_Error"}
    rows = {5: 0, 10: 0, 187: 0, 194: 35, 197: 0, 198: 0, 199: 0} | {int(key[1:]): raw for key, raw in raws.items()}
    table = [
        f"{number:3} {names.get(number, 'Some_Attribute'):23} PO--CK   100   100   010    -    {raw}"
        for number, raw in rows.items()
    ]
    return "\n".join(
        [
            "smartctl 7.4 2023-08-01 r5530 [x86_64-linux-6.12.0] (local build)",
            "Device Model:     ACME 4000",
            "Serial Number:    S123",
            f"Rotation Rate:    {'7200 rpm' if kind == 'hdd' else 'Solid State Device'}",
            "SMART support is: Enabled",
            f"SMART overall-health self-assessment test result: {health}",
            *table,
            below,
            f"# 1  Extended offline    {test}       90%     50126         123456" if test else "",
        ]
    )


def nvme(warning: int = 0, *, spare: int = 100, used: int = 3, errors: int = 0, hours: int = 5000) -> str:
    """Return smartctl's text of an NVMe drive."""
    return f"""smartctl 7.4 2023-08-01 r5530 [x86_64-linux-6.12.0] (local build)
Model Number:                       ACME NVMe
Serial Number:                      N123
SMART overall-health self-assessment test result: {"FAILED!" if warning else "PASSED"}
SMART/Health Information (NVMe Log 0x02)
Critical Warning:                   {warning:#04x}
Temperature:                        38 Celsius
Available Spare:                    {spare}%
Available Spare Threshold:          10%
Percentage Used:                    {used}%
Data Units Read:                    {hours * 3}
Power On Hours:                     {hours}
Media and Data Integrity Errors:    {errors}
"""


def scsi(health: str = "OK", defects: int = 0, uncorrected: int = 0, celsius: int = 30) -> str:
    """Return smartctl's text of a SAS drive."""
    return f"""smartctl 7.4 2023-08-01 r5530 [x86_64-linux-6.12.0] (local build)
=== START OF INFORMATION SECTION ===
Vendor:               ACME
Product:              SAS4000
Rotation Rate:        10500 rpm
Serial number:        C123
SMART Health Status: {health}
Current Drive Temperature:     {celsius} C
Drive Trip Temperature:        60 C
Elements in grown defect list: {defects}
read:   12345        0         0     12345          0       1234.567           {uncorrected}
"""


def log(*lines: str) -> str:
    """Return kernel log lines."""
    return "\n".join(f"[{100 + number}.000001] {line}" for number, line in enumerate(lines))


def bmc(event: str, times: int = 1) -> str:
    """Return lines of the BMC's event log."""
    return "\n".join(f"{n + 1:4x} | 02/01/2024 | 17:14:54 | {event} | Asserted" for n in range(times))


def memory(corrected: int = 0, uncorrected: int = 0, dimms: int = 1) -> str:
    """Return a listing of EDAC's counters."""
    controller = "/sys/devices/system/edac/mc/mc0"
    place = f"{controller}/dimm"
    return f"{controller}/ce_noinfo_count:0\n{controller}/ue_noinfo_count:0\n" + "\n".join(
        f"{place}{n}/dimm_ce_count:{corrected}\n{place}{n}/dimm_ue_count:{uncorrected}" for n in range(dimms)
    )


def pcie(kind: str, count: int) -> str:
    """Return a listing of the AER counters of a disk's controller."""
    place = "/sys/bus/pci/devices/0000:03:00.0"
    totals = {"correctable": "COR", "nonfatal": "NONFATAL", "fatal": "FATAL"}
    files = [f"{place}/class:0x010802"]
    files += [
        f"{place}/aer_dev_{name}:TOTAL_ERR_{word} {count if name == kind else 0}" for name, word in totals.items()
    ]
    return "\n".join(files)


def chip(celsius: float, critical: float = 100.0) -> str:
    """Return a listing of a temperature sensor."""
    place = "/sys/class/hwmon/hwmon0"
    return (
        f"{place}/name:coretemp\n{place}/temp1_input:{celsius * 1000:.0f}\n{place}/temp1_crit:{critical * 1000:.0f}"
    )


def zone(celsius: float) -> str:
    """Return a listing of a thermal zone."""
    place = "/sys/class/thermal/thermal_zone0"
    trip = f"{place}/trip_point_0_type:critical\n{place}/trip_point_0_temp:105000"
    return f"{place}/type:acpitz\n{place}/temp:{celsius * 1000:.0f}\n{trip}"


def array(
    level: str, disks: int, degraded: int, *, action: str = "idle", state: str = "clean", errors: int = 0
) -> str:
    """Return a listing of an md array."""
    place = "/sys/block/md0/md"
    return (
        f"{place}/level:{level}\n{place}/raid_disks:{disks}\n{place}/degraded:{degraded}\n{place}/array_state:{state}\n"
        f"{place}/sync_action:{action}\n{place}/dev-sda1/state:in_sync\n{place}/dev-sda1/errors:{errors}"
    )


def trace(*readings: tuple[str, float | None], device: str = "/dev/sda", **about: str) -> str:
    """Return a trace of one moment: what readers told that no program prints."""
    return "\n".join(
        json.dumps({"signal": signal, "device": device, "at": 0, "value": value, "about": about})
        for signal, value in readings
    )


def lasting(text: str, hours: float = 0.5, times: int = 4) -> Story:
    """Return the same text again and again."""
    return [(hours * HOUR, text)] * times


def grown(*texts: str, hours: float = 1.0) -> Story:
    """Return one text after the other."""
    return [(hours * HOUR, text) for text in texts]


def several(signal: str, count: int) -> str:
    """Return a trace in which a flag is set on several devices."""
    return "\n".join(trace((signal, 1.0), device=f"device {number}") for number in range(count))


MEDIUM = "critical medium error, dev sda, sector {} op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"
IO = "I/O error, dev sda, sector {} op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"
LOST = (
    "nvme nvme0: Disabling device after reset failure: -19",
    "sd 0:0:1:0: [sdb] tag#12 Sense Key : Hardware Error [current]",
)
FATAL = ("BERT: Error records from previous boot:", "{2}[Hardware Error]: event severity: fatal")
HOT = "mce: CPU3: Package temperature above threshold, cpu clock throttled (total events = 29938)"
CORRECTED = "CPU 0 BANK 1\nSTATUS 0x8c00050000010090\nPROCESSOR 0:0x106a0"
UNCORRECTED = "CPU 0 BANK 1\nSTATUS 0xbd00000000100134\nPROCESSOR 0:0x106a0"
WARM = "CPU1 Temp | {} | degrees C | {} | 5.0 | 5.0 | 10.0 | 80.0 | 90.0 | 95.0"

FAULTS: dict[str, Story] = {
    "disk-health-failed": lasting(ata(health="FAILED!")),
    "disk-worn-out": lasting(nvme(0x04, used=104)),
    "disk-prefail-attribute": lasting(
        ata(below="  3 Spin_Up_Time            PO--CK   010   010   021    NOW  9000", a5=0)
    ),
    "disk-pending-sectors": lasting(ata(a197=120)),
    "disk-pending-sectors-some": lasting(ata(a197=2), hours=12),
    "disk-reallocation-growing": grown(ata(a5=0), ata(a5=12)),
    "disk-reallocated-sectors": lasting(ata(a5=1500)),
    "disk-uncorrectable-growing": grown(ata(), ata(a187=11)),
    "disk-end-to-end": grown(ata(a184=0), ata(a184=1)),
    "disk-cable": grown(ata(), ata(a199=40)),
    "disk-scsi-failure-predicted": lasting(scsi("FAILURE PREDICTION THRESHOLD EXCEEDED [asc=5d, ascq=10]")),
    "disk-scsi-grown-defects": grown(scsi(), scsi(defects=130)),
    "disk-nvme-spare": lasting(nvme(0x01, spare=5)),
    "disk-nvme-read-only": lasting(nvme(0x08)),
    "disk-nvme-degraded": lasting(nvme(0x04)),
    "disk-nvme-media-errors": grown(nvme(), nvme(errors=14)),
    "disk-controller-failsafe": lasting(nvme(used=255, spare=0, hours=0)),
    "disk-vanished": lasting(trace(("disk.missing", 1.0))),
    "disk-hot": lasting(ata(a194=63)),
    "disk-pending-growing": grown(ata(), ata(a197=12), ata(a197=14)),
    "disk-offline-uncorrectable": lasting(ata(a198=2), hours=12),
    "disk-offline-uncorrectable-growing": grown(ata(), ata(a198=12), ata(a198=14)),
    "disk-several-counters-growing": grown(ata(), ata(a5=1, a187=2)),
    "disk-reallocation-begins": grown(ata(), ata(a5=1)),
    "disk-reallocated-some": lasting(ata(a5=24)),
    "disk-ssd-reallocation-growing": grown(ata("ssd"), ata("ssd", a5=16)),
    "disk-uncorrectable-some": grown(ata(), ata(a187=1)),
    "disk-spin-retries": grown(ata(), ata(a10=1)),
    "disk-self-test-failed": lasting(ata(test="Completed: read failure")),
    "disk-self-test-failed-with-defects": lasting(ata(test="Completed: read failure", a197=16)),
    "disk-backup-failed": lasting(nvme(0x10)),
    "disk-persistent-memory": lasting(nvme(0x20)),
    "disk-nvme-media-errors-begin": grown(nvme(), nvme(errors=1)),
    "disk-nvme-spare-low": lasting(nvme(spare=15)),
    "disk-wearing-out": lasting(nvme(used=93)),
    "disk-worn-soon": [(4 * DAY, nvme(used=60 + 4 * number)) for number in range(9)],
    "disk-scsi-grown-defects-some": grown(scsi(), scsi(defects=12)),
    "disk-scsi-uncorrected": grown(scsi(), scsi(uncorrected=15)),
    "disk-scsi-warning": lasting(scsi("WARNING: BACKGROUND MEDIUM SCAN [asc=0b, ascq=03]")),
    "disk-too-hot-for-itself": lasting(nvme(0x02)),
    "disk-above-operating-limit": lasting(scsi(celsius=61)),
    "disk-silent": lasting(trace(("smart.unresponsive", 1.0))),
    "disks-silent-together": lasting(several("smart.unresponsive", 3)),
    "disk-blind": [
        (24 * HOUR, trace(("smart.health_failed", value), type="hdd")) for value in (0.0, None, None, None, None)
    ],
    "disk-offline": lasting(trace(("disk.offline", 1.0))),
    "disk-timeouts": grown(trace(("disk.timeouts", 0.0)), trace(("disk.timeouts", 12.0)), hours=0.2),
    "disk-lost-by-kernel": grown(log(*LOST)),
    "disk-medium-errors": grown(log(*(MEDIUM.format(2048 + 8 * number) for number in range(3)))),
    "disk-medium-error": grown(log(MEDIUM.format(2048), MEDIUM.format(2048))),
    "disk-io-errors": grown(log(*(IO.format(8 * number) for number in range(60)))),
    "disk-link-errors": grown(log(*["ata3: hard resetting link"] * 12)),
    "array-without-redundancy": lasting(array("raid1", 2, 1)),
    "array-degraded": lasting(array("raid6", 6, 1)),
    "array-failed": lasting(array("raid5", 3, 2)),
    "array-member-errors": grown(array("raid1", 2, 0), array("raid1", 2, 0, errors=2)),
    "filesystem-read-only": lasting(trace(("filesystem.read_only", 1.0), device="/srv")),
    "filesystem-errors": grown(trace(("filesystem.errors", 0.0)), trace(("filesystem.errors", 3.0))),
    "filesystem-errors-in-log": grown(log("EXT4-fs error (device sdc1): ext4_lookup:1785: inode #2: comm sh: bad")),
    "filesystem-shut-down": grown(log("EXT4-fs (sdc1): Remounting filesystem read-only")),
    "memory-uncorrected": grown(memory(), memory(uncorrected=1)),
    "memory-corrected-many": grown(memory(), memory(150)),
    "memory-corrected": grown(memory(), memory(12)),
    "memory-uncorrected-before": lasting(memory(uncorrected=5)),
    "memory-controller": grown(memory(dimms=3), memory(20, dimms=3)),
    "memory-uncorrected-in-bmc-log": grown(bmc("Memory #0x01 | Uncorrectable ECC")),
    "memory-corrected-in-bmc-log": grown(bmc("Memory #0x01 | Correctable ECC", 12)),
    "memory-poisoned": lasting(trace(("memory.poisoned", 2.0e8), device="this host")),
    "memory-pages-lost": grown(log("Memory failure: 0x10f5a3: recovery action for dirty LRU page: Recovered")),
    "firmware-fatal-again": grown(log(*FATAL)),
    "firmware-fatal": grown(log("BERT: Error records from previous boot:")),
    "firmware-recoverable": grown(log("{2}[Hardware Error]: event severity: recoverable")),
    "firmware-corrected-many": grown(log(*["{1}[Hardware Error]: event severity: corrected"] * 120)),
    "cpu-uncorrected": grown(UNCORRECTED),
    "cpu-corrected": grown(CORRECTED),
    "cpu-errors-in-bmc-log": grown(bmc("Processor CPU1 | IERR")),
    "cpu-throttled": lasting(trace(("cpu.throttled_percent", 20.0), device="socket 0")),
    "cpu-throttled-often": grown(log(HOT)),
    "cpu-stuck": grown(log(*["watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [kworker/3:1:1234]"] * 3)),
    "tasks-hung": grown(log(*["INFO: task jbd2/sda1-8:312 blocked for more than 120 seconds."] * 5)),
    "pcie-fatal": grown(pcie("fatal", 0), pcie("fatal", 1)),
    "pcie-nonfatal": grown(pcie("nonfatal", 0), pcie("nonfatal", 12)),
    "pcie-correctable": grown(*(pcie("correctable", 2000 * number) for number in range(4)), hours=0.1),
    "pcie-link-narrow": lasting(trace(("pcie.link_narrow", 1.0), device="0000:03:00.0")),
    "pcie-errors-in-bmc-log": grown(bmc("Critical Interrupt | PCI SERR")),
    "power-supply-failed": lasting("PS3 Status       | CAh | ok  | 10.3 | Presence detected, Failure detected"),
    "power-supplies-failed": lasting(several("power.supply_failed", 2)),
    "power-redundancy-lost": lasting(trace(("power.redundancy_lost", 1.0), device="this host")),
    "power-errors-in-bmc-log": grown(bmc("Power Supply PS1 | Failure detected")),
    "ups-battery-low": lasting(trace(("ups.on_battery", 1.0), ("ups.battery_low", 1.0), device="ups")),
    "ups-runs-out": lasting(trace(("ups.on_battery", 1.0), ("ups.runtime", 300.0), device="ups")),
    "ups-on-battery": lasting(trace(("ups.on_battery", 1.0), device="ups")),
    "ups-battery-old": lasting(trace(("ups.replace_battery", 1.0), device="ups")),
    "ups-unreachable": lasting(trace(("ups.unreachable", 1.0), device="ups")),
    "temperature-critical": lasting(chip(104)),
    "fan-failed": lasting(trace(("hwmon.fan_failed", 1.0), device="nct fan1")),
    "voltage-out-of-range": lasting(trace(("hwmon.voltage_out_of_range", 1.0), device="nct in1")),
    "temperature-near-critical": lasting(chip(98)),
    "zone-critical": lasting(zone(106)),
    "zone-near-critical": lasting(zone(103)),
    "bmc-critical": lasting(trace(("ipmi.critical", 1.0), device="BMC CPU1 Temp")),
    "drill": lasting(trace(("lifeboat.drill", 1.0), device="this host")),
    "bmc-warning": grown(*[WARM.format("85.0", "nc")] * 4),
}  # fmt: skip
"""Rule -> a device with the fault."""

HEALTHY: tuple[Story, ...] = (
    lasting(ata()),
    lasting(ata("ssd")),
    lasting(ata(a5=8, a187=3, a199=5)),  # old errors that stand still
    lasting(nvme()),
    lasting(scsi()),
    grown(*(ata(a194=30 + number) for number in range(10))),
    lasting(memory(dimms=4)),
    grown(memory(), memory(2), memory(3)),
    lasting(pcie("correctable", 20)),
    lasting(chip(60)),
    lasting(zone(55)),
    lasting(array("raid1", 2, 0)),
    lasting(array("raid1", 2, 1, action="recover")),
    lasting(array("raid6", 6, 0, action="check")),
    lasting(WARM.format("45.0", "ok")),
    lasting("PS1 Status       | C8h | ok  | 10.1 | Presence detected"),
    grown(log("EDAC MC0: Giving out device to module amd64_edac", "nvme nvme0: 8/0/0 default/read/poll queues")),
    grown(log("mce: CPU6: Package temperature above threshold, cpu clock throttled (total events = 1)")),
)
"""Devices that are as they should be, or only look as if they were not."""
