"""Recordings that are not ours, beside the checkout or where LIFEBOAT_RECORDINGS says: none may be misread.

They come with `manifest.csv`, which has the columns `file` and `label` (healthy, degraded, failing, unknown); JSON
files are answers of smartctl, trees below `sys` are sysfs, `kmsg` holds lines of the kernel log. Without them
there is nothing to collect.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from watchdog.signals.catalog import CATALOG
from watchdog.signals.edac import EdacReader
from watchdog.signals.hwmon import HwmonReader
from watchdog.signals.kernel_log import read_log
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.smart_answer import device_of
from watchdog.signals.smart_decode import decode
from watchdog.signals.thermal import ThermalReader

BESIDE = Path(__file__).parents[3] / "shared/recordings"
PLACE = os.environ.get("LIFEBOAT_RECORDINGS", str(BESIDE) if BESIDE.is_dir() else "")
TROUBLE = {
    "smart.health_failed",
    "smart.wear_failing",
    "smart.prefail_attribute_failing",
    "smart.failure_predicted",
    "smart.controller_failsafe",
}


def _labelled(suffix: str) -> list[tuple[str, str]]:
    if not PLACE:
        return []
    with (Path(PLACE) / "manifest.csv").open(newline="") as manifest:
        return [(row["file"], row["label"]) for row in csv.DictReader(manifest) if row["file"].endswith(suffix)]


def _trees() -> list[Path]:
    return sorted(Path(PLACE).rglob("sys")) if PLACE else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Collect what is there; nothing, and no skip either, where nothing is."""
    if "file" in metafunc.fixturenames:
        metafunc.parametrize(("file", "label"), _labelled(".json"))
    if "log" in metafunc.fixturenames:
        metafunc.parametrize(("log", "label"), [row for row in _labelled(".txt") if row[0].startswith("kmsg/")])
    if "tree" in metafunc.fixturenames:
        metafunc.parametrize("tree", _trees(), ids=str)


if PLACE:

    def test_a_drive_is_read_as_it_is_labelled(file: str, label: str) -> None:
        recorded = json.loads((Path(PLACE) / file).read_text(errors="replace"))
        readings = {item.signal: item for item in decode(recorded, device_of(recorded, file), 1.0)}
        assert set(readings) <= set(CATALOG)
        trouble = {signal for signal in TROUBLE if signal in readings and readings[signal].value}
        assert bool(trouble) == (label == "failing"), trouble
        if label == "unknown":
            assert readings["smart.health_failed"].value is None
        if label == "healthy":
            assert readings["smart.health_failed"].value == 0.0

    def test_a_tree_is_read_without_trouble(tree: Path) -> None:
        readings = (
            *EdacReader(60, tree).read(1.0),
            *HwmonReader(30, tree).read(1.0),
            *ThermalReader(60, tree).read(1.0),
        )
        assert any(item.readable for item in readings)
        assert {item.signal for item in readings} <= set(CATALOG)

    def test_a_log_tells_of_lost_disks_where_there_were_some(log: str, label: str) -> None:
        readings = read_log((Path(PLACE) / log).read_text(errors="replace"), load_patterns(), 1.0)
        lost = {item.device.name for item in readings if item.signal == "kernel.disk_failures" and item.value}
        assert bool(lost) == (label == "failing")
        if label == "healthy":
            assert {item.signal for item in readings if item.value} <= {"cpu.throttle_events"}
