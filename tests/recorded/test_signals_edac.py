"""EDAC trees: DIMMs, ranks, rows, errors that name no DIMM, and no EDAC at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.recorded.signal_data import plant, reason, values
from watchdog.signals.edac import PLACE, EdacReader

EDAC = PLACE.parent


def edac(root: Path, ignored: Sequence[str] = ()) -> EdacReader:
    """Return a reader of a tree, and of no other memory."""
    return EdacReader(60, root, ignored, meminfo=root / "meminfo")


def test_dimms_ranks_and_errors_without_a_dimm_are_counted(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    found = values(edac(tmp_path).read(1.0))
    assert found["CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "edac.ce_count"] == 9
    assert found["mc0/dimm1", "edac.ue_count"] == 1
    assert found["mc0 (no DIMM named)", "edac.ce_count"] == 2
    assert found["CPU_SrcID#0_MC#1_Chan#0_DIMM#0", "edac.ce_count"] is None
    assert found["CPU_SrcID#0_MC#1_Chan#0_DIMM#0", "edac.ue_count"] == 0
    assert found["reader edac", "reader.blind"] == 0.0
    assert len(found) == 11


def test_identities_differ_where_labels_do_not(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    (tmp_path / PLACE / "mc1/rank0/dimm_label").write_text("CPU_SrcID#0_MC#0_Chan#0_DIMM#0\n")
    identities = {item.device.identity for item in edac(tmp_path).read(1.0)}
    assert {"edac:mc0/dimm0", "edac:mc1/rank0"} <= identities


def test_rows_are_read_where_there_are_no_dimms(tmp_path: Path) -> None:
    plant("edac/rows-only.txt", tmp_path / EDAC)
    readings = edac(tmp_path).read(1.0)
    found = values(readings)
    assert found["mc0/csrow0", "edac.ce_count"] == 3
    assert found["mc0/csrow0", "edac.ue_count"] == 4
    assert found["mc0 (no DIMM named)", "edac.ue_count"] == 6
    assert readings[2].device.about["label"] == "mc0csrow0channel0, mc0csrow0channel1"


def test_without_edac_the_memory_is_unreadable_and_not_healthy(tmp_path: Path) -> None:
    readings = edac(tmp_path).read(1.0)
    assert values(readings) == {("reader edac", "reader.blind"): None}
    assert "no memory controller" in reason(readings, "reader.blind")


def test_sight_comes_back_with_the_driver(tmp_path: Path) -> None:
    reader = edac(tmp_path)
    reader.read(1.0)
    plant("edac/rows-only.txt", tmp_path / EDAC)
    assert values(reader.read(2.0))["reader edac", "reader.blind"] == 0.0


def test_a_controller_that_goes_leaves_its_dimms_unreadable(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    reader = edac(tmp_path)
    reader.read(1.0)
    shutil.rmtree(tmp_path / PLACE / "mc0")
    found = values(reader.read(2.0))
    assert found["CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "edac.ce_count"] is None
    assert found["mc0 (no DIMM named)", "edac.ue_count"] is None


def test_a_zero_that_the_collector_made_is_unreadable(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    (tmp_path / "kernel/debug/ras/cec").mkdir(parents=True)
    found = values(edac(tmp_path).read(1.0))
    assert found["mc0/dimm1", "edac.ce_count"] is None
    assert found["CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "edac.ce_count"] == 9
    assert found["mc0/dimm1", "edac.ue_count"] == 1


def test_an_ignored_dimm_is_left_out(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    found = values(edac(tmp_path, ignored=["edac:mc1/*"]).read(1.0))
    assert not any("MC#1" in name for name, _ in found)


def test_a_host_whose_firmware_keeps_errors_is_blind_and_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "firmware/acpi/tables").mkdir(parents=True)
    (tmp_path / "firmware/acpi/tables/HEST").touch()
    readings = edac(tmp_path).read(1.0)
    assert values(readings) == {("reader edac", "reader.blind"): None}
    assert "firmware" in reason(readings, "reader.blind")


def test_a_zero_that_the_firmware_lets_us_see_is_unreadable(tmp_path: Path) -> None:
    plant("edac/two-controllers.txt", tmp_path / EDAC)
    (tmp_path / PLACE / "mc0/mc_name").write_text("ghes_edac\n")
    found = values(edac(tmp_path).read(1.0))
    assert found["mc0/dimm1", "edac.ce_count"] is None
    assert found["CPU_SrcID#0_MC#0_Chan#0_DIMM#0", "edac.ce_count"] == 9
    assert found["mc0/dimm1", "edac.ue_count"] == 1


def test_memory_that_was_taken_out_of_use_is_told(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\nHardwareCorrupted:     8 kB\n")
    assert values(edac(tmp_path).read(1.0))["this host", "memory.poisoned"] == 8192
