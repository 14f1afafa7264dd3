"""Arrays: md and btrfs out of sysfs, LVM and ZFS out of what their programs say."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from migrator.command import CommandResult
from migrator.errors import CommandError
from tests.recorded.signal_data import DATA, plant, reason, values
from watchdog.signals.arrays import ArraysReader
from watchdog.signals.redundancy import Array, redundancy_of, told_of
from watchdog.signals.volumes import in_zpool, lvm, zfs

FLAGS = ("array.degraded", "array.not_rebuilding", "array.no_redundancy", "array.failed")
WELL, LOST = (0, 0, 0, 0), (1, 1, 1, 1)


def flags(found: dict[tuple[str, str], float | None], name: str) -> tuple[float | None, ...]:
    return tuple(found[name, flag] for flag in FLAGS)


def arrays(tmp_path: Path) -> ArraysReader:
    return ArraysReader(60, tmp_path, mdstat=tmp_path / "mdstat")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("md0", WELL),
        ("md1", (1, 0, 0, 0)),  # raid6 with one gone is being rebuilt, and bears another
        ("md2", LOST),  # raid0 bears nothing
        ("md4", (1, 1, 1, 0)),  # a check is no rebuild
        ("md5", LOST),
    ],
)
def test_md_arrays_are_told_apart(tmp_path: Path, name: str, expected: tuple[int, ...]) -> None:
    plant("arrays/md.txt", tmp_path / "block")
    assert flags(values(arrays(tmp_path).read(1.0)), name) == expected


def test_errors_of_members_are_counted_and_containers_of_metadata_are_no_arrays(tmp_path: Path) -> None:
    plant("arrays/md.txt", tmp_path / "block")
    found = values(arrays(tmp_path).read(1.0))
    assert found["sdb1 of md0", "array.member_errors"] == 3
    assert not any(name == "md3" for name, _ in found)


def test_arrays_whose_metadata_has_no_uuid_are_known_by_their_names(tmp_path: Path) -> None:
    plant("arrays/md.txt", tmp_path / "block")
    for name in ("md0", "md1"):
        (tmp_path / f"block/{name}/md/uuid").write_text("00000000-0000-0000-0000-000000000000\n")
    found = {item.device.identity for item in arrays(tmp_path).read(1.0) if item.signal == "array.failed"}
    assert len(found) == 5


def test_an_array_that_vanishes_is_unreadable_and_not_forgotten(tmp_path: Path) -> None:
    plant("arrays/md.txt", tmp_path / "block")
    reader = arrays(tmp_path)
    reader.read(1.0)
    shutil.rmtree(tmp_path / "block/md0")
    found = values(reader.read(2.0))
    assert flags(found, "md0") == (None, None, None, None)
    assert found["sdb1 of md0", "array.member_errors"] is None


def test_a_host_without_arrays_has_nothing_to_tell(tmp_path: Path) -> None:
    assert arrays(tmp_path).read(1.0) == ()
    assert arrays(tmp_path).alarm() is None


def test_btrfs_tells_what_it_misses_and_counts(tmp_path: Path) -> None:
    plant("arrays/btrfs.txt", tmp_path / "fs/btrfs")
    found = values(arrays(tmp_path).read(1.0))
    assert flags(found, "data") == (1, 1, 1, 0)
    assert found["device 1 of data", "array.member_errors"] == 7
    assert ("device 2 of data", "array.member_errors") not in found


def says(text: str) -> object:
    return lambda argv, **_: CommandResult(tuple(argv), 0, text, "")


@pytest.fixture
def volume_group(tmp_path: Path) -> Path:
    """A host with a logical volume."""
    uuid = tmp_path / "block/dm-0/dm/uuid"
    uuid.parent.mkdir(parents=True)
    uuid.write_text("LVM-abc\n")
    return tmp_path


def test_lvm_tells_of_redundant_volumes_and_of_those_that_are_ill(volume_group: Path) -> None:
    reader = lvm(300, volume_group, door=says((DATA / "arrays/lvs.json").read_text()))  # type: ignore[arg-type]
    found = values(reader.read(1.0))
    assert flags(found, "vg0/data") == flags(found, "vg0/swap") == WELL
    assert flags(found, "vg0/mail") == (1, 1, 1, 0)
    assert flags(found, "vg0/logs") == LOST
    assert not any(name == "vg0/root" for name, _ in found)


def test_lvm_is_not_asked_where_there_is_none(tmp_path: Path) -> None:
    def door(argv: Sequence[str], **_: object) -> CommandResult:
        raise AssertionError(argv)

    assert lvm(300, tmp_path, door=door).read(1.0) == ()


@pytest.mark.parametrize("answer", ["", "{}", "not json", '{"report": [{"lv": [{"lv_uuid": 1}]}]}'])
def test_an_answer_that_cannot_be_read_is_blindness(volume_group: Path, answer: str) -> None:
    readings = lvm(300, volume_group, door=says(answer)).read(1.0)  # type: ignore[arg-type]
    assert values(readings) == {("reader lvm", "reader.blind"): None}


def test_a_program_that_hangs_leaves_what_it_told_unreadable(volume_group: Path) -> None:
    answers: list[str] = [(DATA / "arrays/lvs.json").read_text()]

    def door(argv: Sequence[str], **_: object) -> CommandResult:
        if not answers:
            raise CommandError("lvs did not finish within 30 s", code="command-timeout")
        return CommandResult(tuple(argv), 0, answers.pop(), "")

    reader = lvm(300, volume_group, door=door)
    reader.read(1.0)
    readings = reader.read(2.0)
    assert flags(values(readings), "vg0/data") == (None, None, None, None)
    assert "did not finish" in reason(readings, "reader.blind")


def test_zfs_pools_are_judged_by_the_group_that_bears_least(tmp_path: Path) -> None:
    (tmp_path / "tank").mkdir()
    (tmp_path / "tank/state").write_text("DEGRADED\n")
    reader = zfs(300, tmp_path, door=says((DATA / "arrays/zpool.txt").read_text()))  # type: ignore[arg-type]
    found = values(reader.read(1.0))
    assert flags(found, "tank") == (1, 1, 1, 0)
    assert flags(found, "gone") == LOST
    assert found["sdb1 of tank", "array.member_errors"] == 7
    assert found["sdf1 of tank", "array.member_errors"] == 3
    assert found["reader zfs", "reader.blind"] == 0.0


POOL = """  pool: tank
 state: {state}
  scan: {scan}
config:

\tNAME              STATE     READ WRITE CKSUM
\ttank              {root}     0     0     0
\t  {group}  {root}     0     0     0
\t    /dev/sda1     {first}     0     0     0
\t    /dev/sdb1     ONLINE     0     0     0
\t    /dev/sdc1     {last}     0     0     0
"""


def pool(state: str, group: str = "mirror-0", gone: int = 0, scan: str = "none requested") -> Array:
    """Return a pool of three devices, as zpool status describes it."""
    root = "DEGRADED" if gone else "ONLINE"
    first, last = "UNAVAIL" if gone > 0 else "ONLINE", "REMOVED" if gone > 1 else "ONLINE"
    (found,) = in_zpool(POOL.format(state=state, root=root, group=group, first=first, last=last, scan=scan))
    return found


def test_a_suspended_pool_is_out_of_reach_though_its_devices_are_well() -> None:
    assert pool("ONLINE").broken == ""
    assert pool("SUSPENDED").broken == "the pool is SUSPENDED"
    assert {item.value for item in told_of(pool("SUSPENDED"), 1.0) if item.signal in FLAGS} == {1.0}


@pytest.mark.parametrize(
    ("group", "bears"), [("mirror-0", 2), ("raidz2-0", 2), ("draid2:1d:3c:0s-0", 2), ("draid1:2d:3c:6w:0s-0", 1)]
)
def test_a_group_is_known_by_its_name(group: str, bears: int) -> None:
    for gone in (1, 2):
        found = pool("DEGRADED", group, gone)
        assert (found.redundancy, found.lost) == (bears, gone)


def test_a_spare_of_draid_is_no_group() -> None:
    text = POOL.format(state="DEGRADED", root="DEGRADED", group="raidz1-0", first="ONLINE", last="REMOVED", scan="")
    found = list(in_zpool(text + "\t    draid3-0-0     ONLINE     0     0     0\n"))
    assert [(item.redundancy, item.lost) for item in found] == [(1, 1)]


@pytest.mark.parametrize(
    ("scan", "rebuilding"),
    [
        ("resilver in progress since Mon Jan  1 00:00:00 2024", True),
        ("resilver (mirror-0) in progress since Mon Jan  1 00:00:00 2024", True),
        ("resilvered 1.5G in 00:00:20 with 0 errors on Mon Jan  1 00:00:00 2024", False),
        ("scrub in progress since Mon Jan  1 00:00:00 2024", False),
    ],
)
def test_a_resilver_is_heard_of_and_a_sequential_one_too(scan: str, rebuilding: bool) -> None:
    assert pool("DEGRADED", gone=1, scan=scan).rebuilding is rebuilding


def test_redundancy_follows_from_the_level() -> None:
    assert [redundancy_of(level, 4) for level in ("raid0", "linear", "raid1", "raid5", "raid6")] == [0, 0, 3, 1, 2]


def test_what_never_had_redundancy_does_not_lose_it() -> None:
    told = {item.signal: item.value for item in told_of(Array("md", "x", "md9", redundancy=0, lost=0), 1.0)}
    assert told["array.no_redundancy"] == 0.0
