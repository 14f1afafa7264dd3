"""File systems: which the kernel has made read-only, and how many errors ext4 has counted.

The kernel sets the file system itself read-only when it finds it damaged, and leaves the mount as it was; an
admin's `mount -o remount,ro` changes both. No event tells of it but the kernel's own message, and since Linux 6.15
ext4 leaves even the file system "rw" and adds "emergency_ro". Sources: proc_pid_mountinfo(5), fs/ext4/super.c,
fs/ext4/sysfs.c (errors_count); seen on Linux 6.18.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from pathlib import Path

from watchdog.signals.model import Device, Reading
from watchdog.signals.mounts import Mount, file_systems, parse_mounts
from watchdog.signals.reader import is_ignored, sight
from watchdog.signals.sysfs import read_number

MOUNTINFO = Path("/proc/1/mountinfo")  # as the host sees it: our own service may see read-only what is not
READ_ONLY = frozenset({"ro", "emergency_ro", "shutdown"})
"""Options of a file system that takes no more writes; `shutdown` is ext4's and f2fs's after a forced one."""

MOST_BYTES = 16 * 1024 * 1024


class FileSystemReader:
    """Reads the mounted file systems."""

    name = "mounts"

    def __init__(
        self,
        poll_s: float,
        mountinfo: Path = MOUNTINFO,
        sysfs: Path = Path("/sys"),
        ignored: Sequence[str] = (),
    ) -> None:
        self.poll_s = poll_s
        self._mountinfo, self._sysfs = mountinfo, sysfs
        self._ignored = tuple(ignored)
        self._file: int | None = None

    def alarm(self) -> tuple[int, int] | None:
        """Wake when anything is mounted, unmounted or remounted."""
        return (self._file, select.EPOLLPRI) if self._file is not None else None

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now; what is unmounted is not missed."""
        try:
            mounts = parse_mounts(self._text())
        except OSError as error:
            return (sight(self.name, now, f"{self._mountinfo}: {error.strerror}"),)
        readings: list[Reading] = []
        for first in file_systems(mounts):
            device = first.file_system
            if not is_ignored(device, self._ignored):
                readings += _state(device, [mount for mount in mounts if mount.device == first.device], now)
                readings += self._errors(device, first, now)
        return (*readings, sight(self.name, now))

    def _errors(self, device: Device, mount: Mount, now: float) -> list[Reading]:
        if not mount.kind.startswith("ext"):
            return []
        name = Path(mount.source).resolve().name
        count = read_number(self._sysfs / "fs/ext4" / name / "errors_count")
        return [] if count is None else [Reading("filesystem.errors", device, now, float(count))]

    def _text(self) -> str:
        """Read the file from its beginning; it stays open, for only then it tells of changes."""
        if self._file is None:
            self._file = os.open(self._mountinfo, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_SET)
        parts = []
        while part := os.read(self._file, MOST_BYTES):
            parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")


def _state(device: Device, mounts: Sequence[Mount], now: float) -> list[Reading]:
    """Say whether a file system that is mounted to be written cannot be. Pure."""
    if not any("rw" in mount.options for mount in mounts):
        return []
    lost = bool(READ_ONLY & mounts[0].super_options)
    return [
        Reading("filesystem.read_only", device, now, float(lost), "the kernel made it read-only" if lost else "")
    ]
