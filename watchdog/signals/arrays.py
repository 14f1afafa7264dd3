"""Arrays the kernel itself puts together: md and btrfs, out of sysfs.

Sources: Documentation/admin-guide/md.rst; fs/btrfs/sysfs.c (devinfo, allocation).
"""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchdog.signals.model import Device, Reading
from watchdog.signals.reader import is_ignored, unreadable
from watchdog.signals.redundancy import Array, Member, redundancy_of, told_of
from watchdog.signals.sysfs import read_number, read_text

MDSTAT = Path("/proc/mdstat")
MDSTAT_BYTES = 1 << 20
BUILDING = ("recover", "resync", "reshape")
WORKING = ("clean", "active", "active-idle", "write-pending", "readonly", "read-auto")
"""Values of md/array_state in which data can be read."""

UUID = re.compile(r"^[0-9a-f]{8}-")
GONE = "the array is gone"


class ArraysReader:
    """Reads md arrays and btrfs file systems, and is woken when md changes (poll of /proc/mdstat)."""

    name = "arrays"

    def __init__(
        self, poll_s: float, sysfs: Path = Path("/sys"), mdstat: Path = MDSTAT, ignored: Sequence[str] = ()
    ) -> None:
        self.poll_s = poll_s
        self._sysfs, self._mdstat = sysfs, mdstat
        self._ignored = tuple(ignored)
        self._file: int | None = None
        self._known = KnownArrays()

    def alarm(self) -> tuple[int, int] | None:
        """Wake when an array changes."""
        return (self._file, select.EPOLLPRI) if self._file is not None else None

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the state of all arrays; one that is gone is unreadable, a host without any has none."""
        self._follow()
        arrays = [*_md_arrays(self._sysfs / "block"), *_btrfs(self._sysfs / "fs/btrfs")]
        readings = [item for array in arrays for item in told_of(array, now)]
        readings += self._known.lost(readings, now, GONE)
        return tuple(item for item in readings if not is_ignored(item.device, self._ignored))

    def _follow(self) -> None:
        """Open /proc/mdstat and read it to its end, so that the next change raises the alarm."""
        try:
            if self._file is None:
                self._file = os.open(self._mdstat, os.O_RDONLY | os.O_CLOEXEC)
            os.lseek(self._file, 0, os.SEEK_SET)
            while os.read(self._file, MDSTAT_BYTES):
                pass
        except OSError:
            self._file = None  # no md in this kernel


class KnownArrays:
    """The arrays that were seen; those that vanish are unreadable, and never just forgotten."""

    def __init__(self) -> None:
        self._signals: dict[str, tuple[Device, set[str]]] = {}

    def lost(self, readings: Sequence[Reading], now: float, reason: str) -> tuple[Reading, ...]:
        """Take what is told now, and return as unreadable what was told before and is not now."""
        for item in readings:
            self._signals.setdefault(item.device.identity, (item.device, set()))[1].add(item.signal)
        present = {item.device.identity for item in readings}
        found: list[Reading] = []
        for identity, (device, signals) in self._signals.items():
            if identity not in present:
                found += unreadable(sorted(signals), device, now, reason)
        return tuple(found)


def _md_arrays(block: Path) -> Iterator[Array]:
    for place in sorted(block.glob("md*/md")):
        level, disks = read_text(place / "level"), read_number(place / "raid_disks") or 0
        if level == "container" or not disks:
            continue  # only holds the metadata of others; or never started, as what a strange disk brings along
        name, uuid = place.parent.name, read_text(place / "uuid")
        state = read_text(place / "array_state")
        redundancy = redundancy_of(level, disks)
        yield Array(
            kind="md",
            identity=uuid if uuid.strip("0-") else name,  # zeros where firmware keeps the metadata
            name=name,
            redundancy=redundancy,
            lost=read_number(place / "degraded") or 0,
            rebuilding=read_text(place / "sync_action") in BUILDING,
            broken="" if state in WORKING else f"the array is {state or 'in no state at all'}",
            members=tuple(_md_members(place)),
        )


def _md_members(place: Path) -> Iterator[Member]:
    for member in sorted(place.glob("dev-*")):
        name = member.name.removeprefix("dev-")
        yield Member(name, read_number(member / "errors"), f"/dev/{name}")


def _btrfs(root: Path) -> Iterator[Array]:
    for place in sorted(root.glob("*-*")):
        if not UUID.match(place.name):
            continue
        infos = sorted(place.glob("devinfo/*"), key=lambda path: path.name)
        profiles = {path.name for path in (place / "allocation/data").glob("*") if path.is_dir()}
        # The weakest profile counts: while a balance runs there are two.
        redundancy = min((redundancy_of(name, 2) for name in profiles), default=0)
        paths = [f"/dev/{path.name}" for path in sorted(place.glob("devices/*"))]
        yield Array(
            kind="btrfs",
            identity=place.name,
            name=read_text(place / "label") or f"btrfs {place.name[:8]}",
            redundancy=redundancy,
            lost=sum(read_number(info / "missing") == 1 for info in infos),
            members=tuple(
                Member(
                    f"device {info.name}", _btrfs_errors(info), paths[0] if len(paths) == len(infos) == 1 else ""
                )
                for info in infos
            ),
        )


def _btrfs_errors(info: Path) -> int | None:
    """Return the sum of all kinds of errors; None where the kernel does not show them (before 5.14)."""
    words = read_text(info / "error_stats").split()
    numbers = [int(word) for word in words[1::2] if word.isdigit()]
    return sum(numbers) if numbers else None
