"""The text that `smartctl -x` or `-a` prints for people, in the shape of its JSON. Pure.

Admins keep and post the text; the daemon itself only ever reads JSON. What is taken is what the decoders use.
Source: smartmontools' ataprint.cpp, nvmeprint.cpp and scsiprint.cpp (7.x).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

ATTRIBUTE = re.compile(
    r"^\s*(?P<id>\d{1,3}) (?P<name>[\w-]+)\s+(?P<flags>0x[0-9a-f]{4}|[POSRCK-]{6})\s+(?P<value>\d{3}|---)\s+"
    r"(?P<worst>\d{3}|---)\s+(?P<thresh>\d{3}|---)\s+(?:(?:Pre-fail|Old_age)\s+(?:Always|Offline)\s+)?"
    r"(?P<failed>-|NOW|Past|FAILING_NOW|In_the_past)\s+(?P<raw>\S.*?)\s*$",
    re.MULTILINE,
)
FAILED_WORDS = {"NOW": "now", "FAILING_NOW": "now", "Past": "past", "In_the_past": "past", "-": ""}
STATISTIC = re.compile(
    r"^(?P<page>0x\w\w)\s+0x\w+\s+\d+\s+(?P<value>-?\d+|-)\s+(?P<flags>\S{3})\s+(?P<name>\S.*?)\s*$", re.MULTILINE
)
SELF_TEST = re.compile(
    r"^#\s*\d+\s+(?P<type>\S.*?)\s{2,}(?P<status>\S.*?)\s{2,}(?P<left>\d+)%\s+(?P<hours>\d+)", re.MULTILINE
)
SELF_TEST_STATUS = (
    ("Completed without error", 0x00),
    ("Aborted by host", 0x10),
    ("Interrupted (host reset)", 0x20),
    ("Fatal or unknown error", 0x30),
    ("Completed: unknown failure", 0x40),
    ("Completed: electrical failure", 0x50),
    ("Completed: servo/seek failure", 0x60),
    ("Completed: read failure", 0x70),
    ("Completed: handling damage", 0x80),
    ("Self-test routine in progress", 0xF0),
)
SCSI_COUNTERS = re.compile(r"^(?P<what>read|write|verify):\s+(?P<numbers>[\d.\s]+)$", re.MULTILINE)
NVME = {
    "Critical Warning": "critical_warning",
    "Temperature": "temperature",
    "Available Spare": "available_spare",
    "Available Spare Threshold": "available_spare_threshold",
    "Percentage Used": "percentage_used",
    "Data Units Read": "data_units_read",
    "Data Units Written": "data_units_written",
    "Host Read Commands": "host_reads",
    "Host Write Commands": "host_writes",
    "Controller Busy Time": "controller_busy_time",
    "Power Cycles": "power_cycles",
    "Power On Hours": "power_on_hours",
    "Unsafe Shutdowns": "unsafe_shutdowns",
    "Media and Data Integrity Errors": "media_errors",
    "Error Information Log Entries": "num_err_log_entries",
}
"""Labels of the NVMe health log in text and JSON; one with JSON's name and no other is enough to know the log."""

Answer = dict[str, Any]


def is_smart_text(text: str) -> bool:
    """Say whether a text looks like smartctl's output for people."""
    return text.lstrip().startswith("smartctl ") or "=== START OF INFORMATION SECTION ===" in text


def answer_of(text: str) -> Answer:
    """Return what the text says, as `smartctl --json` would have said it."""
    labels = dict(_labels(text))
    answer: Answer = {"smartctl": {"exit_status": 0, "messages": []}}
    answer |= _about(labels, text)
    answer |= _health(labels)
    if "SMART/Health Information (NVMe Log" in text:
        answer["nvme_smart_health_information_log"] = dict(_nvme(labels))
    attributes = [_attribute(found) for found in ATTRIBUTE.finditer(text)]
    if attributes:
        answer["ata_smart_attributes"] = {"table": attributes}
    answer |= _ata_logs(text)
    answer |= _scsi(labels, text)
    temperature = _temperature(labels, attributes, answer)
    if temperature:
        answer["temperature"] = temperature
    return answer


def _labels(text: str) -> Iterator[tuple[str, str]]:
    """Return (label, value) of lines like `Serial Number:    S1`; the first of each label wins."""
    seen: set[str] = set()
    for line in text.splitlines():
        label, colon, value = line.partition(":")
        if colon and label not in seen and re.fullmatch(r"[A-Za-z][\w /()\-]*", label):
            seen.add(label)
            yield label, value.strip()


def _about(labels: dict[str, str], text: str) -> Answer:
    found: Answer = {}
    model = labels.get("Device Model") or labels.get("Model Number") or labels.get("Product")
    protocol = _protocol(labels, text)
    if model:
        found["model_name"] = model
    serial = labels.get("Serial Number") or labels.get("Serial number") or ""
    if re.search(r"\w", serial):
        found["serial_number"] = serial
    if "Vendor" in labels:
        found["scsi_vendor"] = labels["Vendor"]
    if protocol:
        found["device"] = {"protocol": protocol}
    rotation = labels.get("Rotation Rate", "")
    if rotation == "Solid State Device":
        found["rotation_rate"] = 0
    elif (rate := _number(rotation)) is not None:
        found["rotation_rate"] = rate
    if "SMART support is" in labels:
        found["smart_support"] = {"enabled": "SMART support is: Disabled" not in text}
    hours = _number(labels.get("Power On Hours", "")) or _hours(text)
    if hours is not None:
        found["power_on_time"] = {"hours": hours}
    return found


def _protocol(labels: dict[str, str], text: str) -> str:
    if "Model Number" in labels or "SMART/Health Information (NVMe" in text:
        return "NVMe"
    if "Vendor" in labels or "SMART Health Status" in labels or "Transport protocol" in labels:
        return "SCSI"
    return "ATA" if "Device Model" in labels or "ATA Version is" in labels else ""


def _hours(text: str) -> int | None:
    found = re.search(r"^\s*9 Power_On_\w+ .*?(?:-|NOW|Past|FAILING_NOW|In_the_past)\s+(\d+)", text, re.MULTILINE)
    found = found or re.search(r"number of hours powered up = (\d+)", text)
    found = found or re.search(r"Accumulated power on time, hours:minutes (\d+):", text)
    return int(found.group(1)) if found else None


def _health(labels: dict[str, str]) -> Answer:
    ata = labels.get("SMART overall-health self-assessment test result")
    if ata:
        return {"smart_status": {"passed": ata.startswith("PASSED")}} if re.match("PASSED|FAILED", ata) else {}
    scsi = labels.get("SMART Health Status")
    if not scsi:
        return {}
    found = re.search(r"\[asc=(\w+), ascq=(\w+)\]", scsi)
    status: Answer = {"passed": scsi.startswith("OK")}
    if found:
        status["scsi"] = {"asc": int(found[1], 16), "ascq": int(found[2], 16), "ie_string": scsi}
    return {"smart_status": status}


def _nvme(labels: dict[str, str]) -> Iterator[tuple[str, int]]:
    for label, name in NVME.items():
        value = labels.get(label, "")
        number = int(value, 16) if value.startswith("0x") else _number(value)
        if number is not None:
            yield name, number


def _attribute(found: re.Match[str]) -> Answer:
    flags, raw = found["flags"], found["raw"]
    prefailure = bool(int(flags, 16) & 1) if flags.startswith("0x") else "P" in flags
    return {
        "id": int(found["id"]),
        "name": found["name"],
        "value": _digits(found["value"]),
        "worst": _digits(found["worst"]),
        "thresh": _digits(found["thresh"]),
        "when_failed": FAILED_WORDS[found["failed"]],
        "flags": {"prefailure": prefailure},
        "raw": {"value": _raw(raw), "string": raw},
    }


def _raw(text: str) -> int:
    """Return the 48 bits behind a text: three words as Seagate's 188 has them, else the number it begins with."""
    words = re.fullmatch(r"(\d+) (\d+) (\d+)", text)
    if words:
        high, middle, low = map(int, words.groups())
        return high << 32 | middle << 16 | low
    number = re.match(r"\d+", text)
    return int(number.group()) if number else -1


def _ata_logs(text: str) -> Answer:
    found: Answer = {}
    statistics = [
        {"name": row["name"], "value": int(row["value"]), "flags": {"valid": True}}
        for row in STATISTIC.finditer(text)
        if row["value"] != "-"
    ]
    if statistics:
        found["ata_device_statistics"] = {"pages": [{"table": statistics}]}
    tests = [
        {"type": {"string": row["type"]}, "status": {"value": status, "string": row["status"]}}
        for row in SELF_TEST.finditer(text)
        for words, status in SELF_TEST_STATUS
        if row["status"].startswith(words)
    ]
    if tests:
        found["ata_smart_self_test_log"] = {"extended": {"table": tests}}
    errors = re.search(r"^(?:Device Error Count|ATA Error Count): (\d+)", text, re.MULTILINE)
    if errors:
        found["ata_smart_error_log"] = {"extended": {"count": int(errors[1])}}
    elif re.search(r"^No Errors Logged", text, re.MULTILINE):
        found["ata_smart_error_log"] = {"extended": {"count": 0}}
    return found


def _scsi(labels: dict[str, str], text: str) -> Answer:
    found: Answer = {}
    defects = _number(labels.get("Elements in grown defect list", ""))
    if defects is not None:
        found["scsi_grown_defect_list"] = defects
    counters = {
        row["what"]: {"total_uncorrected_errors": int(row["numbers"].split()[-1])}
        for row in SCSI_COUNTERS.finditer(text)
        if row["numbers"].split()[-1].isdigit()
    }
    if counters:
        found["scsi_error_counter_log"] = counters
    return found


def _temperature(labels: dict[str, str], attributes: list[Answer], answer: Answer) -> Answer:
    """Return the temperature: SCSI's and SCT's own line, else attribute 194 or 190, else NVMe's."""
    for label in ("Current Drive Temperature", "Current Temperature"):
        if (celsius := _number(labels.get(label, ""))) is not None:
            trip = _number(labels.get("Drive Trip Temperature", ""))
            return {"current": celsius, **({"drive_trip": trip} if trip is not None else {})}
    for number in (194, 190):
        for row in attributes:
            if row["id"] == number and row["raw"]["value"] >= 0:
                return {"current": row["raw"]["value"] & 0xFF}
    log = answer.get("nvme_smart_health_information_log", {})
    return {"current": log["temperature"]} if "temperature" in log else {}


def _number(text: str) -> int | None:
    found = re.match(r"-?[\d,.'\u202f\u00a0]*\d", text)
    return int(re.sub(r"[^\d-]", "", found.group())) if found else None


def _digits(text: str) -> int:
    return int(text) if text.isdigit() else 0
