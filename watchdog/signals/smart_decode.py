"""Turn one `smartctl --json -x` answer into readings. Pure.

Formats: smartmontools' JSON (7.x); exit bits as in smartctl(8); NVMe critical warning bits as in the NVMe
Base Specification, SMART / Health Information log; SCSI additional sense codes as in SPC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from watchdog.signals.model import Device, DeviceKind, Reading

EXIT_PARSE, EXIT_OPEN = 0x01, 0x02
STANDBY_STATUS = 3
"""Ours, asked for with `-n standby,3`: both low bits at once, which smartctl itself never says otherwise."""

PREFAIL_NOW = 0x10
TRANSIENT_ATTRIBUTES = (190, 194)  # temperatures: an excess today says nothing about tomorrow
WEAR_ATTRIBUTES = (169, 173, 177, 202, 231, 233)  # remaining life of SSDs, by vendor
PLAUSIBLE_CELSIUS = (1, 100)
JUNK_PERCENTAGE_USED = 255
WORN_PERCENT = 100

ATA_COUNTS = {
    5: "smart.reallocated_sectors",
    10: "smart.spin_retries",
    184: "smart.end_to_end_errors",
    187: "smart.reported_uncorrectable",
    197: "smart.pending_sectors",
    198: "smart.offline_uncorrectable",
    199: "smart.crc_errors",
}
LOW_WORD_ATTRIBUTES = (5, 10, 184, 187)
"""Their raw value may carry other numbers in its upper words (Hitachi 187, Seagate): the count is the lowest."""

NVME_BITS = {
    0: "smart.spare_below_threshold",
    1: "smart.temperature_warning",
    3: "smart.media_read_only",
    4: "smart.backup_failed",
}
ESSENTIAL = ("smart.health_failed",)
"""What every drive should tell, and what is reported as unreadable when the drive does not answer."""

Answer = Mapping[str, Any]


def device_of(answer: Answer, name: str) -> Device:
    """Return the drive an answer is about; its identity is its serial number, or its name without one."""
    serial = str(answer.get("serial_number", "")).strip()
    about = {
        "model": str(answer.get("model_name") or answer.get("scsi_model_name") or ""),
        "serial": serial,
        "type": _type(answer),
    }
    return Device(DeviceKind.DISK, f"disk:{serial or name}", name, {k: v for k, v in about.items() if v})


def unreadable_reason(answer: Answer) -> str:
    """Return why an answer tells nothing about the drive, or an empty text when it does tell."""
    about = answer.get("smartctl", {})
    status = int(about.get("exit_status", 0))
    said = "; ".join(str(item.get("string", "")) for item in about.get("messages", ()))
    if status == STANDBY_STATUS:
        return "in standby, and not woken"
    if status & EXIT_PARSE:
        return said or "smartctl did not understand the call"
    if status & EXIT_OPEN:
        return said or "the device cannot be opened"
    if "smart_status" not in answer and "nvme_smart_health_information_log" not in answer:
        return said or "the drive tells nothing about its health"
    return ""


def decode(answer: Answer, device: Device, now: float) -> tuple[Reading, ...]:
    """Return every reading in an answer."""
    reason = unreadable_reason(answer)
    if reason:
        return tuple(Reading(signal, device, now, None, reason) for signal in ESSENTIAL)
    found = dict(_common(answer))
    found.update(_ata(answer))
    found.update(_nvme(answer))
    found.update(_scsi(answer))
    return tuple(
        Reading(signal, device, now, value, "" if value is not None else "not told by the drive")
        for signal, value in found.items()
    )


def _type(answer: Answer) -> str:
    if answer.get("device", {}).get("protocol") == "NVMe" or "nvme_smart_health_information_log" in answer:
        return "nvme"
    rate = answer.get("rotation_rate")
    if rate == 0:
        return "ssd"
    return "hdd" if isinstance(rate, int) else ""


def _common(answer: Answer) -> Iterator[tuple[str, float | None]]:
    passed = answer.get("smart_status", {}).get("passed")
    failed = None if passed is None else not passed
    worn = bool(failed) and _only_wear(answer)
    yield "smart.health_failed", None if failed is None else float(failed and not worn)
    yield "smart.wear_failing", float(worn)
    celsius = answer.get("temperature", {}).get("current")
    low, high = PLAUSIBLE_CELSIUS
    if isinstance(celsius, int | float):
        yield "smart.temperature", float(celsius) if low <= celsius <= high else None


def _only_wear(answer: Answer) -> bool:
    """Say whether the drive's FAILED has no other cause than its age in writes."""
    log = answer.get("nvme_smart_health_information_log")
    if log is not None:
        only_degraded = int(log.get("critical_warning", 0)) == 1 << 2
        return only_degraded and WORN_PERCENT <= int(log.get("percentage_used", 0)) < JUNK_PERCENTAGE_USED
    failing = [row["id"] for row in _attributes(answer) if row.get("when_failed") == "now"]
    return bool(failing) and all(number in WEAR_ATTRIBUTES for number in failing)


def _attributes(answer: Answer) -> list[Mapping[str, Any]]:
    table = answer.get("ata_smart_attributes", {}).get("table", ())
    return [row for row in table if isinstance(row, Mapping) and "id" in row]


def _ata(answer: Answer) -> Iterator[tuple[str, float | None]]:
    attributes = _attributes(answer)
    if not attributes:
        return
    for row in attributes:
        if row["id"] in ATA_COUNTS:
            yield ATA_COUNTS[row["id"]], _count(row)
    pending = answer.get("ata_pending_defects_log", {}).get("count")
    if isinstance(pending, int):
        yield "smart.pending_sectors", float(pending)  # exact where attribute 197 is an estimate
    failing = [
        row["id"]
        for row in attributes
        if row.get("when_failed") == "now" and row.get("flags", {}).get("prefailure")
    ]
    relevant = [number for number in failing if number not in (*TRANSIENT_ATTRIBUTES, *WEAR_ATTRIBUTES)]
    yield "smart.prefail_attribute_failing", float(bool(relevant))
    yield from _self_test(answer)


def _count(row: Mapping[str, Any]) -> float | None:
    """Return an attribute's count: smartctl's decoded text where it is a number, else the lowest word."""
    raw = row.get("raw", {})
    leading = re.match(r"\s*(\d+)", str(raw.get("string", "")))
    value = int(leading.group(1)) if leading else raw.get("value")
    if not isinstance(value, int):
        return None
    if row["id"] in LOW_WORD_ATTRIBUTES and value > 0xFFFFFFFF:
        value &= 0xFFFF
    return float(value)


def _self_test(answer: Answer) -> Iterator[tuple[str, float | None]]:
    log = answer.get("ata_smart_self_test_log", {})
    table = (log.get("extended") or log.get("standard") or {}).get("table")
    if table:
        passed = table[0].get("status", {}).get("passed")
        yield "smart.selftest_failed", None if passed is None else float(not passed)


def _nvme(answer: Answer) -> Iterator[tuple[str, float | None]]:
    log = answer.get("nvme_smart_health_information_log")
    if not isinstance(log, Mapping):
        return
    junk = _junk(answer, log)
    yield "smart.controller_failsafe", float(junk)
    if junk:
        return
    warning, used = int(log.get("critical_warning", 0)), int(log.get("percentage_used", 0))
    for bit, signal in NVME_BITS.items():
        yield signal, float(bool(warning >> bit & 1))
    yield "smart.reliability_degraded", float(bool(warning >> 2 & 1) and used < WORN_PERCENT)
    yield "smart.percentage_used", float(used)
    threshold = int(log.get("available_spare_threshold", 0))
    if threshold <= 100:  # larger ones are reserved values
        yield "smart.spare_margin", float(int(log.get("available_spare", 0)) - threshold)
    errors = int(log.get("media_errors", 0))
    yield "smart.media_errors", float(errors) if errors < 1 << 32 else None  # seen as junk on healthy drives


def _junk(answer: Answer, log: Mapping[str, Any]) -> bool:
    """Recognise the log of a controller in failsafe: 255 % used in 0 hours. All zeros is an add-in RAID card."""
    hours = int(log.get("power_on_hours", answer.get("power_on_time", {}).get("hours", 0)) or 0)
    return int(log.get("percentage_used", 0)) == JUNK_PERCENTAGE_USED and hours == 0


def _scsi(answer: Answer) -> Iterator[tuple[str, float | None]]:
    defects = answer.get("scsi_grown_defect_list")
    if isinstance(defects, int):
        yield "smart.grown_defects", float(defects)
    log = answer.get("scsi_error_counter_log")
    if isinstance(log, Mapping):
        counts = [part.get("total_uncorrected_errors", 0) for part in log.values() if isinstance(part, Mapping)]
        yield "smart.uncorrected_errors", float(sum(counts))
    told = answer.get("smart_status", {}).get("scsi")
    if isinstance(told, Mapping):
        code = told.get("asc")
        yield "smart.failure_predicted", float(code == 0x5D)
        yield "smart.temperature_warning", float(code == 0x0B)
