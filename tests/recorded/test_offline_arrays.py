"""`mdadm --detail` and `zpool status -j` tell of an array what the daemon's own readers tell of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorded.signal_data import DATA, plant, values
from tests.recorded.test_offline import found_in
from tests.recorded.test_offline_programs import MDSTAT
from watchdog.offline.mdadm_text import in_mdadm
from watchdog.offline.trial import Finding
from watchdog.offline.zpool_json import in_zpool_json
from watchdog.signals.arrays import ArraysReader
from watchdog.signals.redundancy import Array, Member, told_of
from watchdog.signals.volumes import in_zpool

MDADM = (DATA / "arrays/mdadm.txt").read_text()
ZPOOL = (DATA / "arrays/zpool.json").read_text()

INACTIVE = """/dev/md127:
           Version : 1.2
        Raid Level : raid5
     Total Devices : 1
       Persistence : Superblock is persistent

             State : inactive
   Working Devices : 1

              Name : alpha:7  (local to host alpha)
              UUID : 77777777:88888888:99999999:aaaaaaaa
            Events : 12

    Number   Major   Minor   RaidDevice

       -       8       65        -        /dev/sde1
"""
EXAMINE = """/dev/sda1:
          Magic : a92b4efc
        Version : 1.2
     Array UUID : 01234567:89abcdef:fedcba98:76543210
     Raid Level : raid1
   Raid Devices : 2
          State : clean
"""


def described(name: str) -> str:
    """Return what mdadm says of one array of the recording."""
    start = MDADM.index(f"/dev/{name}:\n")
    end = MDADM.find("\n/dev/md", start + 1)
    return MDADM[start : end + 1 if end > 0 else None]


def md(name: str, *changes: tuple[str, str]) -> Array:
    """Return an array of the recording, with some words of it exchanged."""
    text = described(name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (found,) = in_mdadm(text)
    return found


def pools(**changes: Any) -> dict[str, Any]:
    """Return the recorded answer with its first pool changed."""
    answer: dict[str, Any] = json.loads(ZPOOL)
    answer["pools"] = {"tank": {**answer["pools"]["tank"], **changes}}
    return answer


def device(state: str = "ONLINE", path: str = "/dev/sda1", **more: Any) -> dict[str, Any]:
    """Return a device as JSON."""
    counts = {"read_errors": 0, "write_errors": 0, "checksum_errors": 0}
    return {"vdev_type": "disk", "state": state, "path": path, **counts, **more}


def group(*states: str) -> dict[str, Any]:
    """Return a group of devices in these states, of which zpool says nothing itself."""
    return {"vdevs": {f"sd{number}": device(state, f"/dev/sd{number}1") for number, state in enumerate(states)}}


def pool(state: str, groups: dict[str, Any], **more: Any) -> Array:
    """Return a pool of these groups."""
    tree = {"tank": {"vdev_type": "root", "vdevs": groups}}
    (found,) = in_zpool_json(pools(state=state, vdevs=tree, logs={}, **more))
    return found


def test_mdadm_tells_what_sysfs_tells(tmp_path: Path) -> None:
    plant("arrays/md.txt", tmp_path / "block")
    sysfs = values(ArraysReader(60, tmp_path, mdstat=tmp_path / "mdstat").read(1.0))
    arrays = {key: value for key, value in sysfs.items() if key[1] != "array.member_errors"}
    assert values(tuple(item for array in in_mdadm(MDADM) for item in told_of(array, 1.0))) == arrays


def test_an_array_has_the_uuid_of_the_kernel_and_its_members() -> None:
    members = (Member("sda1", None, "/dev/sda1"), Member("sdb1", None, "/dev/sdb1"))
    uuid = "01234567-89ab-cdef-fedc-ba9876543210"
    assert md("md0") == Array("md", uuid, "md0", redundancy=1, lost=0, members=members)
    assert md("md0", ("1.2", "0.90")).identity == "01234567:89abcdef:fedcba98:76543210"
    assert md("md0", ("01234567:89abcdef:fedcba98:76543210", ":".join(["00000000"] * 4))).identity == "md0"
    assert md("md0", ("/dev/md0:", "/dev/md/root:")).name == "md/root"


@pytest.mark.parametrize(
    ("state", "rebuilding"),
    [
        ("clean, degraded, recovering", True),
        ("clean, degraded, resyncing (DELAYED)", True),
        ("clean, degraded, resyncing (PENDING)", False),
        ("active, degraded, resyncing (REMOTE)", True),
        ("active, degraded, reshaping", True),
        ("clean, degraded, checking", False),
        ("clean, degraded", False),
    ],
)
def test_what_waits_for_a_write_is_not_being_rebuilt(state: str, rebuilding: bool) -> None:
    found = md("md1", ("active, degraded, recovering", state))
    assert (found.lost, found.redundancy, found.rebuilding, found.broken) == (1, 2, rebuilding, "")


@pytest.mark.parametrize(
    ("level", "redundancy"), [("raid1", 5), ("raid4", 1), ("raid5", 1), ("raid10", 1), ("raid0", 0), ("linear", 0)]
)
def test_the_level_says_what_an_array_bears(level: str, redundancy: int) -> None:
    assert md("md1", (": raid6", f": {level}")).redundancy == redundancy


def test_an_array_that_is_not_started_is_broken() -> None:
    (inactive,) = in_mdadm(INACTIVE)
    assert (inactive.broken, inactive.lost) == ("the array is inactive", 0)
    assert inactive.members == (Member("sde1", None, "/dev/sde1"),)
    assert md("md5", ("clean, FAILED", "active, FAILED, Not Started")).broken == "the array is not started"
    assert md("md1", ("active, degraded, recovering", "active, degraded, Not Started (DELAYED)")).broken


@pytest.mark.parametrize(
    ("name", "changes", "lost"),
    [
        ("md4", [("    Number   Major   Minor   RaidDevice State\n", "")], 1),  # --no-devices
        ("md4", [("Active Devices : 2", "Active Devices : 3")], 1),  # the table has it
        ("md1", [("active sync   /dev/sda2", "active sync   missing")], 2),  # a dead device not yet thrown out
        ("md1", [("active sync   /dev/sda2", "faulty   /dev/sda2")], 2),
        ("md0", [("State : clean", "State : clean, degraded")], 1),  # how many, nothing says
        ("md0", [("State : clean", "State : clean, FAILED")], 2),
        ("md0", [("active sync   /dev/sdb1", "active sync   missing")], 0),  # no node in /dev
        ("md0", [("       1       8       17        1 ", "       2       8       33        1      spare rebuilding"
                  "   /dev/sdc1\n       1       8       17        1 ")], 0),  # being replaced while it works
    ],
)  # fmt: skip
def test_of_what_is_said_the_worst_counts(name: str, changes: list[tuple[str, str]], lost: int) -> None:
    assert md(name, *changes).lost == lost


def test_only_arrays_are_taken_from_a_file_that_has_more() -> None:
    text = f"$ sudo mdadm -E /dev/sda1\n{EXAMINE}$ sudo mdadm -D /dev/md0\n{described('md0')}/dev/sda:\n Timing\n"
    assert [array.name for array in in_mdadm(text.replace("\n", "\r\n"))] == ["md0"]


def test_zpools_json_tells_what_its_text_tells() -> None:
    assert tuple(in_zpool_json(json.loads(ZPOOL))) == tuple(in_zpool((DATA / "arrays/zpool.txt").read_text()))


def test_numbers_and_names_of_other_options_change_nothing() -> None:
    integers = json.loads(ZPOOL, object_hook=lambda part: {key: _as_int(value) for key, value in part.items()})
    integers["pools"] = {str(item["pool_guid"]): item for item in integers["pools"].values()}
    assert tuple(in_zpool_json(integers)) == tuple(in_zpool_json(json.loads(ZPOOL)))


def _as_int(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


@pytest.mark.parametrize(
    ("state", "groups", "expected"),
    [
        ("ONLINE", {"draid2:3d:5c:0s-0": group(*["ONLINE"] * 5)}, (2, 0)),
        ("DEGRADED", {"draid2:3d:5c:0s-0": group("ONLINE", "REMOVED", "FAULTED", "ONLINE", "ONLINE")}, (2, 2)),
        ("DEGRADED", {"raidz1-0": {"vdevs": {
            "sda": device(), "replacing-1": group("CANT_OPEN", "ONLINE"), "spare-2": group("ONLINE", "ONLINE"),
        }}}, (1, 1)),
        ("ONLINE", {"sda": device()}, (0, 0)),
        ("ONLINE", {"mirror-0": group("HEALTHY", "HEALTHY", "HEALTHY")}, (2, 0)),
        ("DEGRADED", {"sda": device("DEGRADED")}, (1, 1)),
    ],
)  # fmt: skip
def test_a_group_is_judged_by_its_devices(state: str, groups: dict[str, Any], expected: tuple[int, int]) -> None:
    found = pool(state, groups)
    assert (found.redundancy, found.lost) == expected


def test_a_special_group_counts_as_the_data_does() -> None:
    found = pool("DEGRADED", {"raidz2-0": group(*["ONLINE"] * 4)}, special={"mirror-1": group("ONLINE", "FAULTED")})
    assert (found.redundancy, found.lost) == (1, 1)


def test_a_device_that_is_not_there_is_no_member() -> None:
    there, gone = device(name="sda"), device("CANT_OPEN", "/dev/sdb1", not_present="1", was="/dev/sdb1")
    found = pool("DEGRADED", {"mirror-0": {"vdevs": {"sda": there, "1234567": gone}}})
    assert (found.lost, found.members) == (1, (Member("sda1", 0, "/dev/sda1"),))


@pytest.mark.parametrize(
    ("scan", "rebuilding"),
    [
        ({"function": "RESILVER", "state": "SCANNING"}, True),
        ({"function": "RESILVER", "state": "FINISHED"}, False),
        ({"function": "SCRUB", "state": "SCANNING"}, False),
        ({"function": "SCRUB", "state": "FINISHED", "rebuild_stats": {"mirror-1": {"state": "ACTIVE"}}}, True),
        ({"rebuild_stats": {"mirror-1": {"state": "COMPLETE"}}}, False),
        ({}, False),
    ],
)
def test_a_resilver_of_either_kind_rebuilds(scan: dict[str, Any], rebuilding: bool) -> None:
    (found,) = in_zpool_json(pools(scan_stats=scan))
    assert found.rebuilding is rebuilding


@pytest.mark.parametrize("state", ["SUSPENDED", "FAULTED", "UNAVAIL"])
def test_a_pool_that_cannot_be_reached_is_broken_whatever_its_devices_say(state: str) -> None:
    assert pool(state, {"mirror-0": group("ONLINE", "ONLINE")}).broken == f"the pool is {state}"


RESILVER = pools(scan_stats={"function": "RESILVER", "state": "SCANNING"})
WELL = pools(state="ONLINE", vdevs={"tank": {"vdevs": {"mirror-0": group("ONLINE", "ONLINE")}}})
WORN = pools(vdevs={"tank": {"vdevs": {"raidz2-0": group("ONLINE", "OFFLINE", "ONLINE", "ONLINE")}}})


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        (MDADM, "the output of mdadm --detail", {
            ("md0", Finding.HEALTHY), ("md1", Finding.HEALTHY), ("md2", Finding.FAILING), ("md4", Finding.FAILING),
            ("md5", Finding.FAILING)}),
        (described("md1").replace(", recovering", ""), "the output of mdadm --detail", {("md1", Finding.SUSPECT)}),
        (INACTIVE, "the output of mdadm --detail", {("md127", Finding.FAILING)}),
        (ZPOOL, "the output of zpool status -j", {("tank", Finding.FAILING), ("gone", Finding.FAILING)}),
        (json.dumps(RESILVER), "the output of zpool status -j", {("tank", Finding.HEALTHY)}),
        (json.dumps(WORN), "the output of zpool status -j", {("tank", Finding.SUSPECT)}),
        (json.dumps(WELL), "the output of zpool status -j", {("tank", Finding.HEALTHY)}),
    ],
)  # fmt: skip
def test_rules_fire_on_arrays_that_are_ill_and_on_no_others(
    text: str, kind: str, found: set[tuple[str, Finding]]
) -> None:
    recording, judged = found_in(text)
    assert (recording.kind, recording.problem) == (kind, "")
    assert {item for item in judged if " of " not in item[0]} == found


def test_of_mdstat_and_mdadm_in_one_file_the_one_is_read_that_knows_all_arrays() -> None:
    recording, judged = found_in(MDSTAT.format(recovery="") + described("md0"))
    assert recording.kind == "/proc/mdstat"
    assert judged == {("md127", Finding.FAILING), ("md0", Finding.HEALTHY), ("md3", Finding.FAILING)}


def is_well(arrays: Iterator[Array]) -> bool:
    """Say whether all of some arrays are well, and there are any; what cannot be read is not."""
    try:
        found = tuple(arrays)
    except ValueError:
        return False
    return bool(found) and not any(item.value for array in found for item in told_of(array, 1.0))


@pytest.mark.parametrize("name", ["md1", "md2", "md4", "md5"])
def test_no_line_that_is_left_out_makes_an_ill_array_well(name: str) -> None:
    lines = described(name).splitlines(keepends=True)
    for number in range(len(lines)):
        assert not is_well(in_mdadm("".join(lines[:number] + lines[number + 1 :]))), lines[number]
        assert not is_well(in_mdadm("".join(lines[:number]))), lines[number]


def test_no_part_that_is_left_out_makes_an_ill_pool_well() -> None:
    for path in _paths(pools()):
        answer = pools()
        part = answer
        for key in path[:-1]:
            part = part[key]
        del part[path[-1]]
        assert not is_well(in_zpool_json(answer)), path


def _paths(part: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in part.items():
        yield (key,)
        yield from ((key, *rest) for rest in _paths(value if isinstance(value, dict) else {}))


MDADM_ASKED, ZPOOL_ASKED = ": mdadm --detail /dev/mdX", ": zpool status -j -p"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (described("md0").replace("State : clean", ""), "the State of md0" + MDADM_ASKED),
        (described("md0").replace("Raid Level : raid1", ""), "the Raid Level of md0" + MDADM_ASKED),
        (described("md0").partition("    Active")[0], "the Active Devices of md0" + MDADM_ASKED),
        (described("md0").replace("Raid Devices : 2", "Raid Devices : two"), "of md0, but two" + MDADM_ASKED),
        (described("md0").replace("clean", "clean, frozen"), "a state that is not known: frozen" + MDADM_ASKED),
        (described("md0").replace("/dev/md0:\n", ""), "nothing about the state of an array" + MDADM_ASKED),
        (described("md0") * 2, "md0 is described more than once"),
        (MDADM + "/dev/md6:\n", "the State of md6" + MDADM_ASKED),
        (EXAMINE, "nothing about the state of an array" + MDADM_ASKED),
        ("ARRAY /dev/md0 metadata=1.2 name=alpha:0 UUID=01234567:89abcdef:fedcba98:76543210\n", MDADM_ASKED),
        ("MD_LEVEL=raid1\nMD_DEVICES=2\nMD_METADATA=1.2\n", MDADM_ASKED),
        ('{"output_version": {"command": "zpool list"}, "pools": {}}', "zpool list says nothing"),
        (json.dumps(pools(state="UNKNOWN")), "of tank a state that is not known: UNKNOWN" + ZPOOL_ASKED),
        (json.dumps(pools(state=None)), "of tank a state that is not known"),
        (json.dumps(pools(vdevs={})), "nothing about the devices of tank" + ZPOOL_ASKED),
        (ZPOOL.replace('"7"', '"1.21K"'), "the errors of sdb exactly: 0, 0, 1.21K" + ZPOOL_ASKED),
        (ZPOOL.replace('"state": "REMOVED",', ""), "says of sdf a state that is not known"),
        (ZPOOL.replace('"raidz2-0": {', '"987654321": {'), "(-g): 987654321" + ZPOOL_ASKED),
        (ZPOOL.replace('"path": "/dev/sda1",', ""), "does not say the path of sda" + ZPOOL_ASKED),
        (json.dumps(pools(vdevs={"tank": {}, "sda": device(parent="tank")})), "(--json-flat-vdevs)" + ZPOOL_ASKED),
        (json.dumps(pools(vdevs={"tank": {"vdevs": {"mirror-0": group("FAULTED")}}})), "(-e)" + ZPOOL_ASKED),
    ],
)
def test_what_does_not_say_how_an_array_is_is_refused_in_one_sentence(text: str, words: str) -> None:
    recording, _ = found_in(text)
    assert recording.readings == ()
    assert recording.kind == "not recognised"
    assert words in recording.problem
