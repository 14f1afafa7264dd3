"""What is mounted where: /proc/self/mountinfo (proc_pid_mountinfo(5)). The parsing is pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind

MOUNTINFO = Path("/proc/self/mountinfo")
ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One mount: `options` are those of the mount, `super_options` those of the file system itself."""

    device: str  # major:minor
    place: str
    kind: str
    source: str
    options: frozenset[str]
    super_options: frozenset[str]

    @property
    def file_system(self) -> Device:
        """Return the file system as a device; it is known by the first place it is mounted at."""
        about = {"device": self.source, "type": self.kind}
        return Device(DeviceKind.FILE_SYSTEM, f"filesystem:{self.place}", self.place, about)


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return all mounts, in the kernel's order; a line that cannot be read is left out."""
    found = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        head, tail = before.split(" "), after.split(" ")
        if len(head) >= 6 and len(tail) >= 3:
            found.append(
                Mount(
                    device=head[2],
                    place=_plain(head[4]),
                    kind=tail[0],
                    source=_plain(tail[1]),
                    options=frozenset(head[5].split(",")),
                    super_options=frozenset(tail[2].split(",")),
                )
            )
    return tuple(found)


def file_systems(mounts: Iterable[Mount]) -> tuple[Mount, ...]:
    """Return the first mount of each file system that lies on block devices."""
    first: dict[str, Mount] = {}
    for mount in mounts:
        if mount.source.startswith("/dev/") or mount.kind in ("zfs", "btrfs"):
            first.setdefault(mount.device, mount)
    return tuple(first.values())


def mounted_from(mounts: Iterable[Mount], name: str) -> Mount | None:
    """Return the file system that the kernel calls by its device's name: `sda1`, `dm-0`."""
    there = [mount for mount in file_systems(mounts) if Path(mount.source).resolve().name == name]
    return there[0] if there else None


def _plain(text: str) -> str:
    return ESCAPED.sub(lambda match: chr(int(match.group(1), 8)), text)
