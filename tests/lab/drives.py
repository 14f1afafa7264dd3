"""Drives for the lab, in the words of `smartctl --json -x` (smartmontools 7.4, JSON format 1.0)."""

from __future__ import annotations

from typing import Any

SECTOR_BYTES = 512
TERABYTE = 10**12
FAILED_STATUS = 8
"""Bit 3 of smartctl's exit status: the drive says that it is failing (smartctl(8))."""

PREFAIL_BELOW_THRESHOLD = 16
"""Bit 4 of smartctl's exit status: a prefail attribute is at or below its threshold."""

ATTRIBUTES = (
    (1, "Raw_Read_Error_Rate", True, 51),
    (5, "Reallocated_Sector_Ct", True, 10),
    (9, "Power_On_Hours", False, 0),
    (194, "Temperature_Celsius", False, 0),
    (197, "Current_Pending_Sector", False, 0),
    (198, "Offline_Uncorrectable", False, 0),
    (199, "UDMA_CRC_Error_Count", False, 0),
)
"""Id, name, prefail, threshold of the attributes our ATA drive has."""


def ata_drive(
    name: str = "sda",
    *,
    serial: str = "LAB0001",
    reallocated: int = 0,
    pending: int = 0,
    uncorrectable: int = 0,
    passed: bool = True,
    hours: int = 21000,
    celsius: int = 34,
) -> dict[str, Any]:
    """Return a spinning SATA drive; `passed=False` is a drive that says of itself that it is failing."""
    raws = {5: reallocated, 9: hours, 194: celsius, 197: pending, 198: uncorrectable}
    below = not passed
    status = (FAILED_STATUS | PREFAIL_BELOW_THRESHOLD) if below else 0
    return {
        **header(name, "sat", "ATA", f"/dev/{name} [SAT]", status),
        "model_family": "Lab spinning drives",
        "model_name": "LAB HD4000",
        "serial_number": serial,
        "firmware_version": "LAB1",
        "user_capacity": {"blocks": 4 * TERABYTE // SECTOR_BYTES, "bytes": 4 * TERABYTE},
        "logical_block_size": 512,
        "physical_block_size": 4096,
        "rotation_rate": 7200,
        "smart_support": {"available": True, "enabled": True},
        "smart_status": {"passed": passed},
        "ata_smart_attributes": {
            "revision": 16,
            "table": [attribute(*row, raw=raws.get(row[0], 0), failing=below) for row in ATTRIBUTES],
        },
        "power_on_time": {"hours": hours},
        "power_cycle_count": 12,
        "temperature": {"current": celsius},
        "ata_smart_error_log": {"summary": {"revision": 1, "count": 0}},
        "ata_smart_self_test_log": {"standard": {"revision": 1, "count": 0}},
    }


def attribute(number: int, name: str, prefail: bool, threshold: int, *, raw: int, failing: bool) -> dict[str, Any]:
    """Return one row of the attribute table; a failing drive has its reallocated sectors below threshold."""
    below = failing and number == 5
    return {
        "id": number,
        "name": name,
        "value": threshold - 5 if below else 100,
        "worst": threshold - 5 if below else 100,
        "thresh": threshold,
        "when_failed": "now" if below else "",
        "flags": {
            "value": 51 if prefail else 50,
            "string": "PO--CK " if prefail else "-O--CK ",
            "prefailure": prefail,
            "updated_online": True,
            "performance": False,
            "error_rate": False,
            "event_count": True,
            "auto_keep": True,
        },
        "raw": {"value": raw, "string": str(raw)},
    }


def nvme_drive(
    name: str = "nvme0",
    *,
    serial: str = "LABN001",
    critical_warning: int = 0,
    spare: int = 100,
    used: int = 3,
    media_errors: int = 0,
) -> dict[str, Any]:
    """Return an NVMe drive; `critical_warning` has the bits of the NVMe base specification's SMART log."""
    return {
        **header(name, "nvme", "NVMe", f"/dev/{name}", FAILED_STATUS if critical_warning else 0),
        "model_name": "LAB NV1000",
        "serial_number": serial,
        "firmware_version": "LAB1",
        "nvme_total_capacity": TERABYTE,
        "user_capacity": {"blocks": TERABYTE // SECTOR_BYTES, "bytes": TERABYTE},
        "logical_block_size": 512,
        "smart_support": {"available": True, "enabled": True},
        "smart_status": {"passed": critical_warning == 0, "nvme": {"value": critical_warning}},
        "nvme_smart_health_information_log": {
            "critical_warning": critical_warning,
            "temperature": 41,
            "available_spare": spare,
            "available_spare_threshold": 10,
            "percentage_used": used,
            "data_units_read": 81234567,
            "data_units_written": 61234567,
            "host_reads": 901234567,
            "host_writes": 801234567,
            "controller_busy_time": 1234,
            "power_cycles": 31,
            "power_on_hours": 9100,
            "unsafe_shutdowns": 2,
            "media_errors": media_errors,
            "num_err_log_entries": 0,
            "warning_temp_time": 0,
            "critical_comp_time": 0,
        },
        "power_on_time": {"hours": 9100},
        "temperature": {"current": 41},
    }


def header(name: str, kind: str, protocol: str, info: str, status: int) -> dict[str, Any]:
    """Return what every answer begins with."""
    return {
        "json_format_version": [1, 0],
        "smartctl": {
            "version": [7, 4],
            "svn_revision": "5530",
            "platform_info": "x86_64-linux",
            "build_info": "(lab)",
            "argv": [],
            "exit_status": status,
        },
        "device": {"name": f"/dev/{name}", "info_name": info, "type": kind, "protocol": protocol},
    }
