"""ATA drives: attributes, device statistics, self-test log of `smartctl --json -x`. Pure.

Raw values are 48 bits in which vendors pack what they like, so only the attributes named here are read,
each by its own rule.
Sources: smartmontools' drivedb and ataprint, ATA8-ACS; base rates counted over 66,777 drives in
linuxhw/EnterpriseDrive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from watchdog.signals.smart_answer import Answer, Told, drive_type, leading_number, part, rows, whole

COUNTS = {
    5: "smart.reallocated_sectors",
    10: "smart.spin_retries",
    184: "smart.end_to_end_errors",
    187: "smart.reported_uncorrectable",
    188: "smart.command_timeouts",
    197: "smart.pending_sectors",
    198: "smart.offline_uncorrectable",
    199: "smart.crc_errors",
}
SEAGATE_RATES = {1: "smart.read_errors", 7: "smart.seek_errors"}
"""Seagate packs 16 bits of errors above 32 bits of operations: a raw value of 180 million is no error at all."""

OPERATION_BITS = 32
WORD, LONG_WORD = 0xFFFF, 0xFFFFFFFF
WORD_COUNTS = (5, 10, 184, 187, 188)
"""Counters of 16 bits: what stands above the lowest word is something else.

188 of Seagate is three words ("0 0 3", the count last), 187 of Hitachi was seen as 0x2_036C_002B.
"""

STATISTICS = {
    "Number of Reallocated Logical Sectors": "smart.reallocated_sectors",
    "Number of Reported Uncorrectable Errors": "smart.reported_uncorrectable",
    "Number of Interface CRC Errors": "smart.crc_errors",
    "Percentage Used Endurance Indicator": "smart.percentage_used",
}
"""Device Statistics log (ACS-3) in smartctl's words: used where there is no attribute of the kind."""

TEMPERATURES = (190, 194)
"""An excess of temperature says nothing about tomorrow; 716 of 736 "in the past" were 190."""

WEAR = (169, 173, 177, 202, 231, 233)
"""Life that is left, on SSDs. 37 of 69 FAILED SSDs were worn, with all error counters at zero."""

LIFE_IN_NAME = (202,)
"""Of these the name must speak of life: Samsung's 202 is Exception_Mode_Status, and no wear."""

END_TO_END = 184  # flagged as old age by Seagate, yet data was damaged
CAPACITOR = (175, 235)
"""Self-test of the power-loss capacitor (Intel, Solidigm)."""

CONCLUDED = range(0x0, 0x9)
ABORTED = (0x1, 0x2)
"""Self-test execution status, upper nibble (ATA8-ACS): 0 passed, 1 and 2 broken off, 3 to 8 failed, 15 runs."""


def told_by_ata(answer: Answer) -> Iterator[Told]:
    """Return what an ATA drive tells; a later entry about the same signal replaces an earlier one."""
    yield from _health(answer)
    yield from _statistics(answer)
    yield from _counts(answer)
    yield from _seagate_rates(answer)
    yield from _logged(answer)
    yield from _self_test(answer)


def _health(answer: Answer) -> Iterator[Told]:
    passed = part(answer, "smart_status").get("passed")
    attributes = rows(answer, "ata_smart_attributes", "table")
    below = [row for row in attributes if row.get("when_failed") == "now" and row.get("id") not in TEMPERATURES]
    worn = [row for row in below if _is_wear(answer, row)]
    graver = [row for row in below if row not in worn and _is_grave(row)]
    if not isinstance(passed, bool):
        yield Told("smart.health_failed", None, "the drive does not tell its health")
    else:
        only_worn = bool(worn) and not graver
        yield Told("smart.health_failed", float(not passed and not only_worn), _named(graver))
    if isinstance(passed, bool) or attributes:
        yield Told("smart.wear_failing", float(bool(worn) and not graver), _named(worn))
    if attributes:
        yield Told("smart.prefail_attribute_failing", float(bool(graver)), _named(graver))
    if any(row.get("id") in CAPACITOR for row in attributes) and drive_type(answer) != "hdd":
        failed = [row for row in below if row.get("id") in CAPACITOR]
        yield Told("smart.backup_failed", float(bool(failed)), _named(failed))


def _is_wear(answer: Answer, row: Answer) -> bool:
    number = row.get("id")
    named = number not in LIFE_IN_NAME or "life" in str(row.get("name", "")).lower()
    return number in WEAR and named and drive_type(answer) != "hdd"


def _is_grave(row: Answer) -> bool:
    """Old-age attributes only say that a drive has done its share; end-to-end errors are the exception."""
    return bool(part(row, "flags").get("prefailure")) or row.get("id") == END_TO_END


def _named(attributes: list[Answer]) -> str:
    return "; ".join(
        f"{row.get('id')} {row.get('name', '')} is {row.get('value')}, threshold {row.get('thresh')}"
        for row in attributes
    )


def _counts(answer: Answer) -> Iterator[Told]:
    for row in rows(answer, "ata_smart_attributes", "table"):
        number = whole(row.get("id"))
        if number is None or number not in COUNTS:
            continue
        if number == 188 and drive_type(answer) != "hdd":
            continue  # above zero on 74 % of SSDs that have it, and means nothing there
        value = _count(number, row)
        yield Told(COUNTS[number], value, "" if value is not None else "the raw value is no number")
    pending = whole(part(answer, "ata_pending_defects_log").get("count"))
    if pending is not None:
        yield Told("smart.pending_sectors", float(pending))  # exact, where attribute 197 is an estimate


def _count(number: int, row: Answer) -> float | None:
    """Return an attribute's count: smartctl's decoded text where it is a number, else the raw value's words."""
    raw = part(row, "raw")
    decoded = None if number == 188 else leading_number(raw.get("string"))
    value = decoded if decoded is not None else whole(raw.get("value"))
    if value is None or value < 0:
        return None
    if number in WORD_COUNTS and value > WORD:
        return float(value & WORD)
    return float(value & WORD) if value > LONG_WORD else float(value)


def _seagate_rates(answer: Answer) -> Iterator[Told]:
    makers = f"{answer.get('model_family', '')} {answer.get('model_name', '')}"
    if not re.search(r"Seagate|^ST\d|\sST\d", makers) or drive_type(answer) != "hdd":
        return
    for row in rows(answer, "ata_smart_attributes", "table"):
        raw = whole(part(row, "raw").get("value"))
        number = whole(row.get("id"))
        if number in SEAGATE_RATES and raw is not None and raw >= 0:
            yield Told(SEAGATE_RATES[number], float(raw >> OPERATION_BITS & WORD))


def _logged(answer: Answer) -> Iterator[Told]:
    """Return how many errors the drive's own log has ever taken; only growth means anything."""
    log = part(answer, "ata_smart_error_log")
    counts = [whole(part(log, kind).get("count")) for kind in ("extended", "summary")]
    count = next((count for count in counts if count is not None), None)
    if count is not None:
        yield Told("smart.logged_errors", float(count))


def _statistics(answer: Answer) -> Iterator[Told]:
    for page in rows(answer, "ata_device_statistics", "pages"):
        for row in rows(page, "table"):
            signal, value = STATISTICS.get(str(row.get("name"))), whole(row.get("value"))
            if signal and value is not None and part(row, "flags").get("valid", True):
                yield Told(signal, float(value))
    used = whole(part(answer, "endurance_used").get("current_percent"))
    if used is not None:
        yield Told("smart.percentage_used", float(used))


def _self_test(answer: Answer) -> Iterator[Told]:
    """Return how the newest self-test ended; one that runs or was broken off says nothing."""
    log = part(answer, "ata_smart_self_test_log")
    for row in rows(log, "extended", "table") or rows(log, "standard", "table"):
        status = whole(part(row, "status").get("value"))
        if status is None or status >> 4 not in CONCLUDED or status >> 4 in ABORTED:
            continue
        what = f"{part(row, 'type').get('string', '')}: {part(row, 'status').get('string', '')}"
        yield Told("smart.selftest_failed", float(bool(status >> 4)), what if status >> 4 else "")
        return
