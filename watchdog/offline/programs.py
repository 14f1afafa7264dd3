"""Saved output of programs about sensors, arrays and power: sensors -j, lvs, zpool status, btrfs device stats,
/proc/mdstat, mdadm --detail, upsc, apcaccess. Pure.

What the daemon asks a program for, its own reader decodes. What it reads from the kernel's files is brought into
their form first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from watchdog.offline.mdadm_text import in_mdadm, is_mdadm
from watchdog.offline.trees import read_listing
from watchdog.offline.zpool_json import in_zpool_json, is_zpool_json
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.power import in_apcaccess, in_upsc
from watchdog.signals.redundancy import Array, Member, redundancy_of, told_of
from watchdog.signals.volumes import in_lvs, in_zpool

POOL = re.compile(r"^\s*pool: \S+$", re.MULTILINE)
UPSC = re.compile(r"^ups\.status: ", re.MULTILINE)
APC = re.compile(r"^STATUS\s*: ", re.MULTILINE)
BTRFS_STAT = re.compile(r"^\[(?P<device>/\S+|devid:\d+)\]\.\w+_errs\s+(?P<count>\d+)$", re.MULTILINE)
MDSTAT = re.compile(r"^Personalities :", re.MULTILINE)
MD_LINE = re.compile(
    r"^(?P<name>md\S+) : (?P<state>active|inactive)(?: \([\w-]+\))?(?: (?P<level>(?!\S+\[)\S+))? (?P<members>.+)$"
)
MD_COUNT = re.compile(r"\[(?P<all>\d+)/(?P<working>\d+)\] \[[U_]+\]")
MD_BUILDING = re.compile(r"\b(?:recovery|resync|reshape)\s*=")
CHANNEL = re.compile(r"^(?P<channel>(?P<kind>temp|in|power|curr|fan)\d+)_(?P<what>\w+)$")
SCALES = {"temp": 1e3, "in": 1e3, "curr": 1e3, "power": 1e6, "fan": 1.0}
"""From the units of `sensors -j` to those of hwmon (Documentation/hwmon/sysfs-interface.rst)."""

PLAIN = ("alarm", "fault", "type", "beep")  # what hwmon does not scale

Told = tuple[Reading, ...]
Known = tuple[str, Callable[[str], bool], Callable[[str, str, float], Told]]


def read_program(text: str, name: str, now: float) -> tuple[str, Told] | None:
    """Return which program's output a text is, and what it tells; None when it is none of these.

    `name` is that of the file, for outputs that do not say whose they are. Raises `ValueError` for what a program
    was not asked for in the right way.
    """
    found = next((item for item in PROGRAMS if item[1](text)), None)
    return None if found is None else (found[0], found[2](text, name, now))


def _of(arrays: Iterator[Array], now: float) -> Told:
    return tuple(reading for array in arrays for reading in told_of(array, now))


def _json(text: str) -> Mapping[str, Any]:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict):
            return found
    return {}


def _is_lvs(text: str) -> bool:
    report = _json(text).get("report")
    return isinstance(report, list) and bool(report) and isinstance(report[0], dict) and "lv" in report[0]


def _lvs(text: str, _: str, now: float) -> Told:
    try:
        return _of(in_lvs(text), now)
    except KeyError as error:
        wanted = "lvs -a --reportformat json -o lv_uuid,lv_full_name,lv_layout,lv_health_status,raid_sync_action"
        raise ValueError(f"lvs was not asked for {error}: {wanted}") from error


def _asked(read: Callable[[str], Iterator[Array]], wanted: str) -> Callable[[str, str, float], Told]:
    """Return how an output about arrays is read; `wanted` is how the program had to be asked for it."""

    def read_or_tell(text: str, _: str, now: float) -> Told:
        try:
            return _of(read(text), now)
        except ValueError as error:
            raise ValueError(f"{error}: {wanted}") from error

    return read_or_tell


def is_sensors(text: str) -> bool:
    """Say whether a text is what `sensors -j` prints: chips with an adapter and features with numbered files."""
    chips = _json(text).values()
    return bool(chips) and all(isinstance(chip, dict) and "Adapter" in chip for chip in chips)


def _sensors(text: str, _: str, now: float) -> Told:
    return read_listing("\n".join(_as_hwmon(_json(text))), now)


def _as_hwmon(chips: Mapping[str, Any]) -> Iterator[str]:
    """Return the lines of a listing of /sys/class/hwmon; a chip is called `coretemp-isa-0000` (sensors.conf(5))."""
    for number, (chip, features) in enumerate(chips.items()):
        top = f"/sys/class/hwmon/hwmon{number}"
        yield f"{top}/name:{chip.split('-')[0]}"
        for label, files in features.items():
            for file, value in files.items() if isinstance(files, dict) else ():
                match = CHANNEL.match(file)
                if match is None or not isinstance(value, int | float):
                    continue
                scale = 1.0 if match["what"].endswith(PLAIN) else SCALES[match["kind"]]
                yield f"{top}/{file}:{round(value * scale)}"
                yield f"{top}/{match['channel']}_label:{label}"


def _mdstat(text: str, _: str, now: float) -> Told:
    return _of(in_mdstat(text), now)


def in_mdstat(text: str) -> Iterator[Array]:
    """Return the arrays in /proc/mdstat (drivers/md/md.c, md_seq_show)."""
    blocks = re.split(r"^(?=md\S+ : )", text, flags=re.MULTILINE)[1:]
    for block in blocks:
        head = MD_LINE.match(block.split("\n", 1)[0])
        if head is None:
            continue
        count, name, level = MD_COUNT.search(block), head["name"], head["level"] or ""
        disks = int(count["all"]) if count else len(head["members"].split())
        yield Array(
            kind="md",
            identity=name,
            name=name,
            redundancy=redundancy_of(level, disks),
            lost=disks - int(count["working"]) if count else 0,
            rebuilding=bool(MD_BUILDING.search(block)),
            broken="the array is inactive" if head["state"] == "inactive" else "",
        )


def _btrfs(text: str, _: str, now: float) -> Told:
    counts: dict[str, int] = {}
    for line in BTRFS_STAT.finditer(text):
        counts[line["device"]] = counts.get(line["device"], 0) + int(line["count"])
    members = tuple(Member(device, count, device) for device, count in counts.items())
    array = Array(kind="btrfs", identity="btrfs", name="btrfs", redundancy=0, lost=0, members=members)
    return tuple(item for item in told_of(array, now) if item.signal == "array.member_errors")


def _upsc(text: str, name: str, now: float) -> Told:
    called = PurePath(name).stem or name
    return tuple(in_upsc(text, Device(DeviceKind.UPS, f"ups:nut:{called}", f"UPS {called}"), now))


PROGRAMS: tuple[Known, ...] = (
    ("the output of lvs", _is_lvs, _lvs),
    ("the output of sensors -j", is_sensors, _sensors),
    ("the output of zpool status", lambda text: bool(POOL.search(text)), _asked(in_zpool, "zpool status -P -p -L")),
    (
        "the output of zpool status -j",
        lambda text: is_zpool_json(_json(text)),
        _asked(lambda text: in_zpool_json(_json(text)), "zpool status -j -p"),
    ),
    ("the output of btrfs device stats", lambda text: bool(BTRFS_STAT.search(text)), _btrfs),
    ("/proc/mdstat", lambda text: bool(MDSTAT.search(text)), _mdstat),
    # After mdstat, which knows all arrays of a host.
    ("the output of mdadm --detail", is_mdadm, _asked(in_mdadm, "mdadm --detail /dev/mdX")),
    ("the output of upsc", lambda text: bool(UPSC.search(text)), _upsc),
    (
        "the output of apcaccess",
        lambda text: bool(APC.search(text)),
        lambda text, _, now: tuple(in_apcaccess(text, now)),
    ),
)
