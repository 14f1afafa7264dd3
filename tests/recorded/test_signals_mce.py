"""Machine checks: the kernel's events as text, status registers, rasdaemon's database, and neither."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

import pytest

from tests.recorded.signal_data import DATA, values
from watchdog.signals.mce import MceReader, judge_status
from watchdog.signals.tracing import parse_event

BLIND = ("reader mce", "reader.blind")
COLUMNS = "id INTEGER PRIMARY KEY, status INTEGER, socketid INTEGER, cpuvendor INTEGER, error_msg TEXT"


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    """A tracefs whose trace_pipe is a named pipe."""
    root = tmp_path / "tracing"
    instance = root / "instances/lifeboat"
    for event in ("mce/mce_record", "ras/mc_event"):
        (root / "events" / event).mkdir(parents=True)
        (instance / "events" / event).mkdir(parents=True)
    (instance / "buffer_percent").write_text("50\n")
    os.mkfifo(instance / "trace_pipe")
    return root


def reader(tmp_path: Path) -> MceReader:
    return MceReader(
        60, state=tmp_path / "state.json", tracefs=tmp_path / "tracing", database=tmp_path / "ras-mc_event.db"
    )


def test_events_are_counted_per_socket_and_wake_whose_counters_changed(tracefs: Path, tmp_path: Path) -> None:
    mce = reader(tmp_path)
    assert values(mce.read(1.0)) == {BLIND: 0.0}
    with (tracefs / "instances/lifeboat/trace_pipe").open("w") as pipe:
        pipe.write((DATA / "mce/trace.txt").read_text())
        pipe.flush()
        found = values(mce.read(2.0))
    assert found["socket 1", "mce.corrected"] == 2  # Intel: the register says how many
    assert found["socket 0", "mce.uncorrected"] == 1
    assert ("socket 0", "mce.corrected") not in found  # a record without its valid bit holds no error
    assert mce.news() == {"edac", "pcie"}
    assert mce.hears()


def test_our_instance_is_woken_by_the_first_event_and_not_by_a_full_buffer(tracefs: Path, tmp_path: Path) -> None:
    mce = reader(tmp_path)
    mce.read(1.0)
    instance = tracefs / "instances/lifeboat"
    assert (instance / "buffer_percent").read_text() == "0\n"
    assert (instance / "events/mce/mce_record/enable").read_text() == "1\n"
    assert mce.alarm() is not None


def test_without_events_and_without_rasdaemon_it_is_blind(tmp_path: Path) -> None:
    mce = reader(tmp_path)
    assert values(mce.read(1.0)) == {BLIND: None}
    assert mce.alarm() is None


def record(database: sqlite3.Connection, *values: object) -> None:
    database.execute("INSERT INTO mce_record (status, socketid, cpuvendor, error_msg) VALUES (?, ?, ?, ?)", values)
    database.commit()


def test_rasdaemon_is_read_where_the_events_are_not_heard(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "ras-mc_event.db")
    database.execute(f"CREATE TABLE mce_record ({COLUMNS})")
    record(database, -(1 << 63), 0, 2, "long ago")
    mce = reader(tmp_path)
    assert values(mce.read(1.0)) == {BLIND: 0.0}
    record(database, -(1 << 63) | 5 << 38, 1, 0, "memory read error")  # stored as a signed number
    record(database, -(1 << 63) | 1 << 61, 1, 0, "data cache")
    found = values(mce.read(2.0))
    assert found["socket 1", "mce.corrected"] == 5
    assert found["socket 1", "mce.uncorrected"] == 1
    database.execute("DELETE FROM mce_record")
    record(database, -(1 << 63), 1, 2, "after the file was emptied")
    assert values(reader(tmp_path).read(3.0))["socket 1", "mce.corrected"] == 6
    database.close()


@pytest.mark.parametrize("schema", ["CREATE TABLE mc_event (id)", "CREATE TABLE mce_record (id)", ""])
def test_an_older_database_without_what_is_needed_is_none(tmp_path: Path, schema: str) -> None:
    with sqlite3.connect(tmp_path / "ras-mc_event.db") as database:
        database.execute(schema or "PRAGMA user_version = 1")
    assert values(reader(tmp_path).read(1.0)) == {BLIND: None}


@pytest.mark.parametrize(
    ("status", "judged"),
    [
        (0x1234, None),
        (0x8C00008000010090, ("mce.corrected", 2)),
        (0x8C00000000010090, ("mce.corrected", 1)),
        (0xBC00000001010135, ("mce.uncorrected", 1)),
    ],
)
def test_a_status_register_is_judged_by_its_bits(status: int, judged: tuple[str, int] | None) -> None:
    assert judge_status(status, is_intel=True) == judged


def test_other_makers_use_the_bits_of_the_count_for_other_things() -> None:
    assert judge_status(0x9C2041000000011B, is_intel=False) == ("mce.corrected", 1)


@pytest.mark.parametrize("line", ["", "CPU:1 [LOST 3 EVENTS]", "# tracer: nop"])
def test_a_line_that_is_no_event_is_none(line: str) -> None:
    assert parse_event(line) is None


RECORDED = Path(__file__).parents[3] / "shared/recordings/mce"
FILES = sorted(RECORDED.glob("*.txt"))
LABELS = {"mcelog_full1.txt": None, "mcelog_dmr_dcu_srar.txt": "mce.uncorrected"}

if FILES:

    @pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
    def test_a_recorded_machine_check_is_judged_as_it_is_labelled(file: Path) -> None:
        found = re.search(r"^STATUS (?:0x)?([0-9a-f]+)", file.read_text(), re.MULTILINE)
        assert found is not None
        judged = judge_status(int(found.group(1), 16), is_intel=True)
        assert (judged[0] if judged else None) == LABELS.get(file.name, "mce.corrected")
