"""What programs put together from disks: LVM's RAID volumes (lvs) and ZFS pools (zpool).

Each is asked only where there is something to ask about. Sources: lvs(8), lvmraid(7); zpool-status(8),
zpoolconcepts(7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from migrator.command import CommandResult, run
from migrator.errors import CommandError
from watchdog.signals.arrays import KnownArrays
from watchdog.signals.model import Reading
from watchdog.signals.reader import is_ignored, sight
from watchdog.signals.redundancy import Array, Member, redundancy_of, told_of
from watchdog.signals.sysfs import read_text

LVS = ("lvs", "--reportformat", "json", "-o", "lv_uuid,lv_full_name,lv_layout,lv_health_status,raid_sync_action")
ZPOOL = ("zpool", "status", "-P", "-p", "-L")
TIMEOUT_S = 30.0
BUILDING = ("recover", "resync", "repair")
HARMLESS = ("mismatches exist",)  # normal for swap on mirrors; a scrub repairs it
UNREACHABLE = ("FAULTED", "UNAVAIL", "SUSPENDED")
GONE_OR_WORSE = ("DEGRADED", "FAULTED", "UNAVAIL", "OFFLINE", "REMOVED")
ROW = re.compile(r"^\t( *)(\S+)\s+([A-Z]+)\s+(\d\S*)\s+(\d\S*)\s+(\d\S*)")
"""Indentation, name, state, and errors of reading, writing and checksums, with -p as plain numbers."""

STATE = re.compile(r"^\s*state: (\S+)", re.MULTILINE)
"""That of the pool: only here, and not in the row of its root, zpool says SUSPENDED (zpool_get_state_str)."""

GROUP = re.compile(r"^(?P<kind>mirror|raidz|draid)(?P<parity>\d?)(?::\w+)*-\d+$")
"""mirror-0, raidz2-1, draid2:4d:11c:1s-0 (zpool_vdev_name); draid2-0-0 is no group, but a spare of one."""

RESILVER = re.compile(r"\bresilver (?:\(\S+\) )?in progress")
"""A resilver, or with the name of its group a sequential one (print_rebuild_status_impl)."""

Door = Callable[..., CommandResult]
Ask = Callable[[], Sequence[Array]]


class VolumesReader:
    """Asks one program about its arrays, as long as there are any."""

    def __init__(
        self, name: str, poll_s: float, ask: Ask, is_used: Callable[[], bool], ignored: Sequence[str] = ()
    ) -> None:
        """`is_used` says whether this host has anything of the kind; what was seen once is missed afterwards."""
        self.name, self.poll_s = name, poll_s
        self._ask, self._is_used = ask, is_used
        self._ignored = tuple(ignored)
        self._known = KnownArrays()

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the state of all arrays; an answer that does not come is blindness."""
        blind = ""
        arrays: Sequence[Array] = ()
        is_used = self._is_used()
        if is_used:
            try:
                arrays = self._ask()
            except (CommandError, ValueError, KeyError, TypeError) as error:
                blind = str(error) or repr(error)
        readings = [item for array in arrays for item in told_of(array, now)]
        readings += self._known.lost(readings, now, blind or "it is not there any more")
        kept = tuple(item for item in readings if not is_ignored(item.device, self._ignored))
        return (*kept, sight(self.name, now, blind)) if kept or is_used else ()


def lvm(poll_s: float, sysfs: Path = Path("/sys"), ignored: Sequence[str] = (), door: Door = run) -> VolumesReader:
    """Return the reader of LVM's volumes with redundancy."""
    return VolumesReader(
        "lvm",
        poll_s,
        lambda: tuple(in_lvs(door(LVS, timeout_s=TIMEOUT_S).output)),
        lambda: any(read_text(path).startswith("LVM-") for path in (sysfs / "block").glob("dm-*/dm/uuid")),
        ignored,
    )


def zfs(
    poll_s: float, kstat: Path = Path("/proc/spl/kstat/zfs"), ignored: Sequence[str] = (), door: Door = run
) -> VolumesReader:
    """Return the reader of ZFS pools."""
    return VolumesReader(
        "zfs",
        poll_s,
        lambda: tuple(in_zpool(door(ZPOOL, timeout_s=TIMEOUT_S).output)),
        lambda: any(kstat.glob("*/state")),
        ignored,
    )


def in_lvs(text: str) -> Iterator[Array]:
    """Return the volumes with redundancy, and all others that are not well. Pure."""
    for report in json.loads(text)["report"]:
        for row in report["lv"]:
            layout, health = str(row["lv_layout"]).split(","), str(row.get("lv_health_status") or "")
            level = next((word for word in layout if word in ("mirror", "raid0") or re.match(r"raid\d", word)), "")
            ill = bool(health) and health not in HARMLESS
            if not level and not ill:
                continue
            redundancy = redundancy_of(level.partition("_")[0], 2)
            yield Array(
                kind="lvm",
                identity=str(row["lv_uuid"]),
                name=str(row["lv_full_name"]),
                redundancy=redundancy,
                lost=int(ill and redundancy > 0),
                rebuilding=row.get("raid_sync_action") in BUILDING,
                broken=health if ill and (not redundancy or health == "failed") else "",
            )


class Row(NamedTuple):
    """A pool, a group of devices or a device, as deep as it is indented; the errors of all kinds in sum."""

    depth: int
    name: str
    state: str
    errors: int


def in_zpool(text: str) -> Iterator[Array]:
    """Return the pools in what `zpool status -P -p` says. Pure."""
    for block in re.split(r"^\s*pool: ", text, flags=re.MULTILINE)[1:]:
        name = block.split("\n", 1)[0].strip()
        found = [match.groups() for line in block.splitlines() if (match := ROW.match(line))]
        if any(not count.isdigit() for row in found for count in row[3:]):
            raise ValueError(f"zpool status has rounded its counts of {name}")
        rows = [Row(len(row[0]), row[1], row[2], sum(map(int, row[3:]))) for row in found]
        if not rows or rows[0].name != name:
            raise ValueError(f"zpool status says nothing about the devices of {name}")
        stated = STATE.search(block)
        state = stated[1] if stated else rows[0].state
        if state not in UNREACHABLE and not any(row.name.startswith("/") for row in rows):
            raise ValueError(f"zpool status does not say where the devices of {name} are")
        yield pool_of(name, state, rows, rebuilding=bool(RESILVER.search(block)))


def pool_of(name: str, state: str, rows: Sequence[Row], *, rebuilding: bool) -> Array:
    """Return a pool; its redundancy is that of the group which has the least of it left."""
    groups = [(index, group) for index, row in enumerate(rows) if (group := GROUP.match(row.name))]
    redundancy, lost, least = 0, 0, None
    for index, group in groups:
        below = [row for row in _below(rows, index) if row.depth == rows[index].depth + 2]
        bears = redundancy_of("mirror", len(below)) if group["kind"] == "mirror" else int(group["parity"] or 1)
        gone = sum(row.state in GONE_OR_WORSE for row in below)
        if least is None or bears - gone < least:
            redundancy, lost, least = bears, gone, bears - gone
    leaves = [row for index, row in enumerate(rows[1:], 1) if not _below(rows, index) and row.name.startswith("/")]
    if not groups:
        lost = 0
    if state == "DEGRADED" and not lost:
        lost, redundancy = 1, max(redundancy, 1)
    return Array(
        kind="zfs",
        identity=name,
        name=name,
        redundancy=redundancy,
        lost=lost,
        rebuilding=rebuilding,
        broken=f"the pool is {state}" if state in UNREACHABLE else "",
        members=tuple(Member(Path(row.name).name, row.errors, row.name) for row in leaves),
    )


def _below(rows: Sequence[Row], index: int) -> list[Row]:
    below = []
    for row in rows[index + 1 :]:
        if row.depth <= rows[index].depth:
            break
        below.append(row)
    return below
