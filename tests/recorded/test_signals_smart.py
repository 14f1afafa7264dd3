"""Every recorded drive gives exactly the readings that stand beside it."""

from __future__ import annotations

import json

import pytest

from tests.recorded.signal_data import DATA, answer
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind
from watchdog.signals.smart_answer import device_of, is_standby, parse_answer, refusal
from watchdog.signals.smart_decode import decode

DRIVES = sorted(path.name for path in (DATA / "smart").iterdir())
GRAVE = {
    "smart.health_failed",
    "smart.prefail_attribute_failing",
    "smart.failure_predicted",
    "smart.spare_below_threshold",
    "smart.reliability_degraded",
    "smart.media_read_only",
    "smart.controller_failsafe",
}


def _values(name: str) -> dict[str, float | None]:
    recorded = answer(name)
    return {item.signal: item.value for item in decode(recorded, device_of(recorded, "/dev/x"), 1.0)}


def _grave(name: str) -> set[str]:
    return {signal for signal, value in _values(name).items() if value and signal in GRAVE}


@pytest.mark.parametrize("name", DRIVES)
def test_a_recorded_drive_gives_the_readings_beside_it(name: str) -> None:
    expected = json.loads((DATA / "smart" / name / "expected.json").read_text())
    assert _values(name) == expected


@pytest.mark.parametrize("name", DRIVES)
def test_readings_keep_to_the_catalogue(name: str) -> None:
    recorded = answer(name)
    for reading in decode(recorded, device_of(recorded, "/dev/x"), 1.0):
        assert reading.readable or reading.reason
        if CATALOG[reading.signal].kind is SignalKind.FLAG:
            assert reading.value in (None, 0.0, 1.0)


@pytest.mark.parametrize(
    "name",
    [
        "ata-seagate-packed",
        "ata-once-too-hot",
        "ata-old-errors-in-logs",
        "ata-bridge-partial",
        "ata-ssd-worn",
        "ata-ssd-worn-yet-passed",
        "nvme-healthy",
        "nvme-hot",
        "nvme-worn",
        "nvme-worn-and-hot",
        "nvme-capacitor",
        "nvme-junk-media-errors",
        "scsi-healthy",
        "scsi-hot",
        "scsi-background-warning",
        "scsi-ssd-worn",
        "scsi-rehearsal",
    ],
)
def test_what_only_looks_bad_is_not_grave(name: str) -> None:
    assert _grave(name) == set()
    assert _values(name)["smart.health_failed"] == 0.0


@pytest.mark.parametrize(
    ("name", "signals"),
    [
        ("ata-failed-reallocated", {"smart.health_failed", "smart.prefail_attribute_failing"}),
        ("ata-passed-yet-prefail-now", {"smart.prefail_attribute_failing"}),
        ("ata-ssd-exception-is-no-wear", {"smart.health_failed", "smart.prefail_attribute_failing"}),
        ("nvme-spare-exhausted", {"smart.health_failed", "smart.spare_below_threshold"}),
        ("nvme-degraded", {"smart.health_failed", "smart.reliability_degraded"}),
        ("nvme-read-only", {"smart.health_failed", "smart.media_read_only"}),
        ("nvme-failsafe", {"smart.controller_failsafe"}),
        ("scsi-failure-predicted", {"smart.health_failed", "smart.failure_predicted"}),
    ],
)
def test_what_is_bad_is_grave(name: str, signals: set[str]) -> None:
    assert _grave(name) == signals


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ata-standby", "standby"),
        ("ata-permission-denied", "Permission denied"),
        ("ata-smart-switched-off", "switched off"),
        ("ata-no-status", "does not tell its health"),
        ("nvme-raid-card", "all zeros"),
        ("nvme-failsafe", "failsafe"),
        ("nvme-no-log", "no health log"),
        ("scsi-raid-volume", "RAID volume"),
    ],
)
def test_what_cannot_be_known_is_unreadable_and_says_why(name: str, words: str) -> None:
    recorded = answer(name)
    (health,) = [
        item
        for item in decode(recorded, device_of(recorded, "/dev/x"), 1.0)
        if item.signal == "smart.health_failed"
    ]
    assert health.value is None
    assert words in health.reason


def test_standby_is_told_from_a_device_that_does_not_open() -> None:
    assert is_standby(answer("ata-standby"))
    assert not is_standby(answer("ata-permission-denied"))


def test_the_cause_is_named() -> None:
    recorded = answer("ata-failed-reallocated")
    told = {item.signal: item.reason for item in decode(recorded, device_of(recorded, "/dev/x"), 1.0)}
    assert told["smart.health_failed"] == "5 Reallocated_Sector_Ct is 1, threshold 36"


def test_a_signal_told_before_and_not_now_is_unreadable() -> None:
    recorded = answer("ata-no-status")
    device = device_of(recorded, "/dev/sda")
    told = {
        item.signal: item.value for item in decode(recorded, device, 1.0, known=frozenset({"smart.spin_retries"}))
    }
    assert told["smart.spin_retries"] is None


def test_text_ahead_of_the_json_is_skipped() -> None:
    recorded = json.dumps(answer("scsi-healthy"))
    assert parse_answer(f"  Pending defect count:0\n{recorded}") == answer("scsi-healthy")


@pytest.mark.parametrize("text", ["", "smartctl: command not found", "[1]", "{", "3"])
def test_an_answer_that_is_no_object_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_answer(text)


def test_a_usable_answer_refuses_nothing() -> None:
    assert refusal(answer("ata-bridge-partial")) == ""
