"""SCSI and SAS drives: health, defects and error counters of `smartctl --json -x`. Pure.

Sources: SPC-5 (additional sense codes 0Bh and 5Dh, self-test results log), SBC-4 (defect lists, error counter
log pages), smartmontools' scsiprint.
"""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.signals.smart_answer import Answer, Told, part, whole

PREDICTED, WARNING = 0x5D, 0x0B
"""Additional sense codes of informational exceptions; smartctl's `passed` is false for both."""

WORN = 0x73  # 5Dh/73h: media impending failure, endurance limit met
REHEARSAL = 0xFF  # 5Dh/FFh: failure prediction threshold exceeded (FALSE), asked for by the TEST bit
TOO_HOT = 0x01  # 0Bh/01h: specified temperature exceeded
DEFECTS_RIGHT_SINCE = (7, 2)
"""Before, the JSON gave the grown defect list in bytes of a long list, eight times too many (Scrutiny #119)."""

SELF_TESTS = 20  # entries of the log
SELF_TEST_FAILED = range(3, 8)
SELF_TEST_PASSED = 0
"""Self-test results log: 0 passed, 1 and 2 broken off, 3 to 7 failed, 15 runs."""


def told_by_scsi(answer: Answer) -> Iterator[Told]:
    """Return what a SCSI drive tells."""
    yield from _health(answer)
    yield from _defects(answer)
    yield from _self_test(answer)
    used = whole(answer.get("scsi_percentage_used_endurance_indicator"))
    if used is not None:
        yield Told("smart.percentage_used", float(used))


def _health(answer: Answer) -> Iterator[Told]:
    status = part(answer, "smart_status")
    passed, sense = status.get("passed"), part(status, "scsi")
    if str(answer.get("scsi_vendor") or "").strip() == "NVMe":
        reason = "an NVMe drive asked through a translation to SCSI, which hides its health log: ask with -d nvme"
        yield Told("smart.health_failed", None, reason)
        return
    if not isinstance(passed, bool):
        yield Told("smart.health_failed", None, "the drive does not tell its health, as a RAID volume")
        return
    code, qualifier = whole(sense.get("asc")), whole(sense.get("ascq"))
    text = str(sense.get("ie_string", ""))
    predicted = code == PREDICTED and qualifier not in (WORN, REHEARSAL)
    explained = code == WARNING or (code == PREDICTED and not predicted)
    yield Told("smart.health_failed", float(not passed and not explained), text)
    yield Told("smart.failure_predicted", float(predicted), text)
    yield Told("smart.wear_failing", float(code == PREDICTED and qualifier == WORN), text)
    yield Told("smart.temperature_warning", float(code == WARNING and qualifier == TOO_HOT), text)
    yield Told("smart.warning", float(code == WARNING and qualifier != TOO_HOT), text)


def _defects(answer: Answer) -> Iterator[Told]:
    defects = whole(answer.get("scsi_grown_defect_list"))
    if defects is not None:
        yield Told("smart.grown_defects", float(defects // 8 if _counts_bytes(answer) else defects))
    pending = whole(part(answer, "scsi_pending_defects").get("count"))
    if pending is not None:
        yield Told("smart.pending_sectors", float(pending))
    log = part(answer, "scsi_error_counter_log")
    counts = [whole(part(log, name).get("total_uncorrected_errors")) for name in ("read", "write", "verify")]
    known = [count for count in counts if count is not None]
    if known:
        yield Told("smart.uncorrected_errors", float(sum(known)))


def _counts_bytes(answer: Answer) -> bool:
    version = part(answer, "smartctl").get("version")
    if not isinstance(version, list) or len(version) < 2:
        return False
    major, minor = whole(version[0]), whole(version[1])
    return major is not None and minor is not None and (major, minor) < DEFECTS_RIGHT_SINCE


def _self_test(answer: Answer) -> Iterator[Told]:
    for number in range(SELF_TESTS):
        result = whole(part(answer, f"scsi_self_test_{number}", "result").get("value"))
        if result == SELF_TEST_PASSED or result in SELF_TEST_FAILED:
            yield Told("smart.selftest_failed", float(result != SELF_TEST_PASSED))
            return
