"""NVMe drives: the SMART / Health Information log (log page 02h) of `smartctl --json -x`. Pure.

Source: NVMe Base Specification 2.0, figure "SMART / Health Information Log Page"; base rates counted over
12,312 drives in linuxhw/EnterpriseDrive.
"""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.signals.smart_answer import Answer, Told, part, rows, whole

LOG = "nvme_smart_health_information_log"
FLAGS = {
    0: "smart.spare_below_threshold",
    1: "smart.temperature_warning",
    3: "smart.media_read_only",
    4: "smart.backup_failed",
    5: "smart.persistent_memory_unreliable",
}
DEGRADED = 1 << 2
HARMLESS = 1 << 1 | 1 << 4 | 1 << 5
"""Temperature passes; a capacitor or a persistent memory region endanger no data while there is power."""

WORN_PERCENT = 100
"""Samsung and others raise "reliability degraded" for wear alone: 11 of 13 drives that turned FAILED had passed
this, and ran on for thousands of hours."""

JUNK_PERCENT = 255
"""The field's ceiling; with no hours at all it is the log of a controller in failsafe (Samsung PM983)."""

LARGEST_THRESHOLD = 100  # larger ones are reserved values; smartd ignores them as well
JUNK_ERRORS = 1 << 32  # seen as a constant on healthy drives (Intel P4500)
SELF_TEST_FAILED = (5, 6, 7)
SELF_TEST_PASSED = 0
"""Device Self-test log, result of a test: 0 passed, 5 to 7 failed, 1 to 4, 8 and 9 broken off, 15 unused."""

ESSENTIAL = (
    "smart.health_failed",
    "smart.spare_below_threshold",
    "smart.reliability_degraded",
    "smart.media_read_only",
    "smart.media_errors",
)


def told_by_nvme(answer: Answer) -> Iterator[Told]:
    """Return what an NVMe drive tells."""
    log = part(answer, LOG)
    # The card of a hidden RAID (WD AN1500) answers zeros, with a true temperature among them.
    numbers = [whole(value) for name, value in log.items() if name != "temperature"]
    if not any(numbers):
        reason = "its health log is all zeros, as of a card that hides its drives" if numbers else "no health log"
        yield from (Told(signal, None, reason) for signal in ESSENTIAL)
        return
    junk = _is_junk(answer, log)
    yield Told("smart.controller_failsafe", float(junk))
    if junk:
        reason = "the health log is junk: the controller is in failsafe"
        yield from (Told(signal, None, reason) for signal in ESSENTIAL)
        return
    yield from _warnings(answer, log)
    yield from _wear(log)
    yield from _self_test(answer)


def _is_junk(answer: Answer, log: Answer) -> bool:
    hours = whole(log.get("power_on_hours")) or whole(part(answer, "power_on_time").get("hours")) or 0
    return whole(log.get("percentage_used")) == JUNK_PERCENT and hours == 0


def _warnings(answer: Answer, log: Answer) -> Iterator[Told]:
    """Take the critical warning apart: smartctl's `passed` is false for each of its bits."""
    warning = whole(log.get("critical_warning"))
    passed = part(answer, "smart_status").get("passed")
    if warning is None:
        yield from (Told(signal, None, "no critical warning in the health log") for signal in ESSENTIAL[:-1])
        return
    for bit, signal in FLAGS.items():
        yield Told(signal, float(bool(warning >> bit & 1)))
    degraded = bool(warning & DEGRADED)
    worn = degraded and (whole(log.get("percentage_used")) or 0) >= WORN_PERCENT
    yield Told("smart.reliability_degraded", float(degraded and not worn))
    grave = warning & ~HARMLESS & ~(DEGRADED if worn else 0)
    unexplained = passed is False and not warning
    remark = f"critical warning {warning:#04x}" if warning else ""
    yield Told("smart.health_failed", float(bool(grave) or unexplained), remark)
    yield Told("smart.wear_failing", float(worn and not grave), remark if worn else "")


def _wear(log: Answer) -> Iterator[Told]:
    used, spare = whole(log.get("percentage_used")), whole(log.get("available_spare"))
    threshold, errors = whole(log.get("available_spare_threshold")), whole(log.get("media_errors"))
    if used is not None:
        yield Told("smart.percentage_used", float(used))
    if spare is not None and threshold is not None and threshold <= LARGEST_THRESHOLD:
        yield Told("smart.spare_margin", float(spare - threshold))
    if errors is None or errors >= JUNK_ERRORS:
        yield Told("smart.media_errors", None, "the count of media errors is junk" if errors else "not told")
    else:
        yield Told("smart.media_errors", float(errors))


def _self_test(answer: Answer) -> Iterator[Told]:
    for row in rows(answer, "nvme_self_test_log", "table"):
        result = whole(part(row, "self_test_result").get("value"))
        if result == SELF_TEST_PASSED or result in SELF_TEST_FAILED:
            yield Told("smart.selftest_failed", float(result != SELF_TEST_PASSED))
            return
