"""Whatever smartctl says, decoding ends without an exception and keeps to the catalogue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.signals.catalog import CATALOG
from watchdog.signals.smart_answer import Drive, device_of, leading_number, refusal
from watchdog.signals.smart_ata import told_by_ata
from watchdog.signals.smart_decode import decode

KEYS = [
    "smartctl",
    "exit_status",
    "messages",
    "version",
    "device",
    "protocol",
    "serial_number",
    "wwn",
    "rotation_rate",
    "smart_support",
    "enabled",
    "smart_status",
    "passed",
    "scsi",
    "asc",
    "temperature",
    "current",
    "ata_smart_attributes",
    "table",
    "id",
    "raw",
    "value",
    "string",
    "flags",
    "when_failed",
    "ata_device_statistics",
    "pages",
    "ata_smart_self_test_log",
    "extended",
    "status",
    "nvme_smart_health_information_log",
    "critical_warning",
    "percentage_used",
    "available_spare",
    "available_spare_threshold",
    "media_errors",
    "scsi_grown_defect_list",
    "scsi_error_counter_log",
    "read",
    "total_uncorrected_errors",
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "now", "ATA", "NVMe", "SCSI", "1 1 3", "0x12", "8 (1 2)"]),
)
ANSWERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), ANSWERS))
def test_any_answer_decodes(answer: dict[str, Any]) -> None:
    readings = decode(answer, device_of(answer, "/dev/sda"), 1.0)
    assert {reading.signal for reading in readings} <= set(CATALOG)
    assert all(reading.readable or reading.reason for reading in readings)
    assert "smart.health_failed" in {reading.signal for reading in readings}


@pytest.mark.parametrize(
    ("text", "number"),
    [("8", 8), ("8 (1 2)", 8), ("34 (Min/Max 24/39)", 34), ("1 1 3", None), ("0x0002036c002b", None), ("", None)],
)
def test_only_a_number_is_a_number(text: str, number: int | None) -> None:
    assert leading_number(text) == number


@pytest.mark.parametrize(
    ("number", "raw", "text", "count"),
    [
        (5, 0x0007_0002_0FFF, "4095 (7 2)", 4095),
        (187, 8647409707, "8647409707", 43),
        (187, 65535, "65535", 65535),
        (188, 0x0001_0001_0003, "1 1 3", 3),
        (188, 0x0004_0000_0004, "4 0 4", 4),
        (197, 70000, "70000", 70000),
        (199, 0x0000_0002_0005, "0x000000020005", 0x20005),
    ],
)
def test_raw_values_are_unpacked(number: int, raw: int, text: str, count: int) -> None:
    row = {"id": number, "raw": {"value": raw, "string": text}}
    told = told_by_ata({"rotation_rate": 7200, "ata_smart_attributes": {"table": [row]}})
    names = ("smart.health_failed", "smart.wear_failing", "smart.prefail_attribute_failing")
    assert [item.value for item in told if item.signal not in names] == [count]


def test_a_drive_without_a_serial_number_is_known_by_its_world_wide_name() -> None:
    answer = {"wwn": {"naa": 5, "oui": 3152, "id": 2748}}
    assert device_of(answer, "/dev/sda").identity == "disk:wwn-5-c50-abc"
    assert device_of({}, "/dev/sda").identity == "disk:/dev/sda"


def test_drives_behind_one_controller_have_names_of_their_own() -> None:
    assert Drive("/dev/bus/0", "megaraid,4").name == "/dev/bus/0 megaraid,4"
    assert Drive("/dev/sda", "sat").name == "/dev/sda"


@pytest.mark.parametrize(
    ("status", "words"), [(3, "standby"), (1, "understand"), (2, "opened"), (0, ""), (0xFC, "")]
)
def test_only_the_two_lowest_bits_refuse(status: int, words: str) -> None:
    reason = refusal({"smartctl": {"exit_status": status}})
    assert words in reason
    assert bool(words) == bool(reason)
