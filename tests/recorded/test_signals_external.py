"""A directory of recordings that is not ours, named by LIFEBOAT_RECORDINGS: nothing there may be misread.

It holds `manifest.csv` with the columns `file` and `label` (healthy, degraded, failing, unknown); JSON files
are answers of smartctl, trees below `sys` are sysfs. Without the variable there is nothing to collect.
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
from watchdog.signals.smart_answer import device_of
from watchdog.signals.smart_decode import decode

PLACE = os.environ.get("LIFEBOAT_RECORDINGS", "")
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
        readings = (*EdacReader(60, tree).read(1.0), *HwmonReader(30, tree).read(1.0))
        assert any(item.readable for item in readings)
        assert {item.signal for item in readings} <= set(CATALOG)
