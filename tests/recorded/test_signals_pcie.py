"""PCIe error counters and lanes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.recorded.signal_data import plant, values
from watchdog.signals.pcie import PLACE, PcieReader

DISK, BRIDGE = "0000:01:00.0", "0000:02:00.0"


@pytest.fixture
def reader(tmp_path: Path) -> PcieReader:
    """A reader of a host with an NVMe drive, a bridge, and a device that counts nothing."""
    plant("pcie/devices.txt", tmp_path / PLACE)
    return PcieReader(60, tmp_path)


def count(tmp_path: Path, device: str, kind: str, lines: str) -> None:
    (tmp_path / PLACE / device / f"aer_dev_{kind}").write_text(lines)


def test_a_disk_is_watched_from_the_beginning_and_a_bridge_from_its_first_error(
    reader: PcieReader, tmp_path: Path
) -> None:
    first = values(reader.read(1.0))
    assert first[DISK, "pcie.correctable_errors"] == 0.0
    assert (BRIDGE, "pcie.correctable_errors") not in first
    count(tmp_path, BRIDGE, "correctable", "RxErr 3\nBadTLP 1\nTOTAL_ERR_COR 4\n")
    told = [item for item in reader.read(2.0) if item.device.name == BRIDGE and "correct" in item.signal]
    assert [(item.value, item.at < 2.0) for item in told] == [(0.0, True), (4.0, False)]
    assert len([item for item in reader.read(3.0) if item.device.name == BRIDGE]) == 3


def test_requests_that_are_not_supported_are_no_fault(reader: PcieReader, tmp_path: Path) -> None:
    count(tmp_path, DISK, "nonfatal", "UnsupReq 40\nCmpltTO 2\nTOTAL_ERR_NONFATAL 42\n")
    assert values(reader.read(1.0))[DISK, "pcie.nonfatal_errors"] == 2


def test_a_link_that_lost_lanes_is_told(reader: PcieReader, tmp_path: Path) -> None:
    assert values(reader.read(1.0))[DISK, "pcie.link_narrow"] == 0.0
    (tmp_path / PLACE / DISK / "current_link_width").write_text("1\n")
    narrow = next(item for item in reader.read(2.0) if item.signal == "pcie.link_narrow")
    assert (narrow.value, narrow.reason) == (1.0, "1 of 4 lanes")


def test_a_device_that_vanishes_is_unreadable(reader: PcieReader, tmp_path: Path) -> None:
    reader.read(1.0)
    shutil.rmtree(tmp_path / PLACE / DISK)
    assert values(reader.read(2.0))[DISK, "pcie.fatal_errors"] is None


def test_a_host_where_nobody_counts_is_blind(tmp_path: Path) -> None:
    assert values(PcieReader(60, tmp_path).read(1.0)) == {("reader pcie", "reader.blind"): None}
