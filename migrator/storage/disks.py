"""The file systems of this host that hold a container's files, written out so that a power cut takes nothing.

They are kept open from before the first copy on: Linux tells of a write that failed once to each file description
that was open then (syncfs(2), since 5.8; lib/errseq.c), so one that is opened later may hear that all is well.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from migrator.container.mounts import MOUNTINFO, parse, within

POOLED = frozenset({"btrfs", "zfs", "bcachefs"})
"""Types of local file systems whose source, as mountinfo tells it, need not be a device."""

_libc = ctypes.CDLL(None, use_errno=True)


class Disks:
    """The file systems on which some directories lie."""

    def __init__(self, places: Callable[[], Iterable[Path]]) -> None:
        """`places` returns the directories; it is asked when the file systems are needed."""
        self._places = places
        self._open: dict[int, int] = {}  # device -> descriptor
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Open all that are not open yet, or none; raises `OSError`, and what `places` raises."""
        with self._lock:
            fresh: dict[int, int] = {}
            try:
                for place in self._places():
                    self._open_one(place, fresh)
            except BaseException:
                for descriptor in fresh.values():
                    os.close(descriptor)
                raise
            self._open |= fresh

    def _open_one(self, place: Path, fresh: dict[int, int]) -> None:
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if self._open:
                return  # it was there at the beginning, or never ours: somebody has unmounted what is his
            raise
        device = os.fstat(descriptor).st_dev
        if device in self._open or device in fresh:
            os.close(descriptor)
        else:
            fresh[device] = descriptor

    def write_out(self) -> None:
        """Return when all that was written before is on the disks; raises `OSError` when some of it is not."""
        self.hold()  # a volume may have been mounted since
        for descriptor in tuple(self._open.values()):
            if _libc.syncfs(descriptor) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), os.readlink(f"/proc/self/fd/{descriptor}"))

    def close(self) -> None:
        """Let go of them."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])


def write_out(path: Path) -> None:
    """Write the dirty pages of the file system that holds a directory to it; raises `OSError`."""
    disks = Disks(lambda: [path])
    try:
        disks.write_out()
    finally:
        disks.close()


def mounted_below(directories: Iterable[Path]) -> list[Path]:
    """Return where local file systems are mounted below some directories."""
    mounts = [mount for mount in parse(MOUNTINFO.read_text()) if _is_local(mount.source, mount.file_system)]
    wanted = [str(directory) for directory in directories]
    found = [Path(mount.path) for mount in mounts if any(within(mount.path, directory) for directory in wanted)]
    return [path for path in found if path.is_dir()]


def _is_local(source: str, file_system: str) -> bool:
    return source.startswith("/dev/") or file_system in POOLED
