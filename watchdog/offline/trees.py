"""A copy of sysfs, or of a part of it: read by the very readers of the daemon, with another root.

A part (`edac`, `hwmon1`, `cpu`) is hung in at its place. A listing, as `grep -r . /sys/devices/system/edac` prints
it, is planted as a tree first.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchdog.signals.arrays import ArraysReader
from watchdog.signals.edac import EdacReader
from watchdog.signals.hwmon import HwmonReader
from watchdog.signals.model import Reading
from watchdog.signals.pcie import PcieReader
from watchdog.signals.power import PowerReader
from watchdog.signals.reader import Reader
from watchdog.signals.thermal import ThermalReader

TOPS = ("class", "devices", "bus", "block", "kernel", "firmware")
LISTED = re.compile(r"^/sys/(?P<path>[\w./:@,+-]+):\s?(?P<value>.*)$")
LONGEST_PATH = 400

PLACES = (
    (re.compile(r"^hwmon\d+$"), "class/hwmon"),
    (re.compile(r"^thermal_zone\d+$"), "class/thermal"),
    (re.compile(r"^mc\d+$"), "devices/system/edac/mc"),
    (re.compile(r"^cpu\d+$"), "devices/system/cpu"),
    (re.compile(r"^md\d+$"), "block"),
    (re.compile(r"^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.\d$"), "bus/pci/devices"),
)
"""Directories that say by their name where in sysfs they belong."""


def read_tree(directory: Path, now: float) -> tuple[Reading, ...]:
    """Return what all readers of sysfs find in a tree, or in a part of one."""
    with tempfile.TemporaryDirectory() as empty:
        nothing = Path(empty) / "nothing"
        root = directory if _is_whole(directory) else _hung_in(directory, Path(empty) / "sys")
        readers: tuple[Reader, ...] = (
            EdacReader(1, root, meminfo=nothing),
            HwmonReader(1, root),
            ThermalReader(1, root),
            PcieReader(1, root),
            ArraysReader(1, root, mdstat=nothing),
            PowerReader(1, root),
        )
        found = [reading for reader in readers for reading in reader.read(now)]
    return tuple(item for item in found if item.signal != "reader.blind")


def is_listing(text: str) -> bool:
    """Say whether a text lists files of sysfs with their contents."""
    lines = [line for line in text.splitlines() if line.strip()][:50]
    return bool(lines) and sum(bool(LISTED.match(line)) for line in lines) > len(lines) / 2


def read_listing(text: str, now: float) -> tuple[Reading, ...]:
    """Return what readers find in the tree that a listing describes."""
    with planted(text) as root:
        return read_tree(root, now)


@contextmanager
def planted(text: str) -> Iterator[Path]:
    """Make a tree of the files in a listing; it is gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "sys"
        root.mkdir()
        for line in text.splitlines():
            found = LISTED.match(line)
            if found is None or ".." in found["path"] or len(found["path"]) > LONGEST_PATH:
                continue
            path = root / found["path"]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(found["value"] + "\n")
            except OSError:
                continue  # a file and a directory of one name: the listing contradicts itself
        yield root


def _is_whole(directory: Path) -> bool:
    return any((directory / name).is_dir() for name in TOPS)


def _hung_in(part: Path, root: Path) -> Path:
    """Return a tree with links to what in `part` has a place of its own."""
    root.mkdir()
    for path in sorted([part, *part.rglob("*")]):
        if not path.is_dir():
            continue
        for name, place in PLACES:
            link = root / place / path.name
            if name.match(path.name) and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.resolve())
    return root
