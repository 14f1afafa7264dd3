"""The files and directories that a container watches (inotify, fanotify), found by name.

CRIU restores a watch by the name of what is watched. On overlayfs it cannot ask the kernel for that name and
searches some usual directories (criu/irmap.c, `hints`), so a watch anywhere else fails the dump. We search the
whole root while the container still runs, and give CRIU the names (`irmap-scan-path`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

WATCH = re.compile(r"^(?:inotify wd:\S+|fanotify) ino:([0-9a-f]+) sdev:([0-9a-f]+) ", re.MULTILINE)
"""As in the kernel's Documentation/filesystems/proc.rst, 3.8."""

WATCHERS = ("anon_inode:inotify", "anon_inode:[fanotify]")


def watched_paths(pids: Iterable[int], proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Return the paths, in the container, of what its processes watch in its root file system."""
    processes = tuple(pids)
    if not processes:
        return ()
    root = proc / str(processes[0]) / "root"
    try:
        device = root.stat().st_dev
    except OSError:
        return ()
    wanted = {inode for inode, number in _watches(processes, proc) if number == kernel_device(device)}
    return tuple(find(root, device, wanted))


def kernel_device(device: int) -> int:
    """Return a device number as the kernel writes it in fdinfo: 12 bits major, 20 bits minor."""
    return os.major(device) << 20 | os.minor(device)


def find(root: Path, device: int, wanted: set[int]) -> Iterator[str]:
    """Search a tree, without entering other file systems, for inodes; stops when it has all of them."""
    missing = set(wanted)
    pending = [""] if missing else []
    while pending and missing:
        directory = pending.pop()
        try:
            status = os.lstat(f"{root}/{directory}")
            if status.st_dev != device:
                continue
            if status.st_ino in missing:
                missing.discard(status.st_ino)
                yield f"/{directory}"
            listed = list(os.scandir(f"{root}/{directory}"))
        except OSError:
            continue
        for item in listed:
            relative = os.path.join(directory, item.name)
            if item.is_dir(follow_symlinks=False):
                pending.append(relative)
            elif item.inode() in missing and _inode(item) in missing:
                missing.discard(_inode(item))
                yield f"/{relative}"


def _inode(item: os.DirEntry[str]) -> int:
    try:
        return item.stat(follow_symlinks=False).st_ino
    except OSError:
        return -1


def _watches(pids: Iterable[int], proc: Path) -> Iterator[tuple[int, int]]:
    """Return inode and device of each watch."""
    for pid in pids:
        try:
            descriptors = list((proc / str(pid) / "fd").iterdir())
        except OSError:
            continue
        for descriptor in descriptors:
            try:
                if os.readlink(descriptor) in WATCHERS:
                    text = (proc / str(pid) / "fdinfo" / descriptor.name).read_text()
                else:
                    continue
            except OSError:
                continue
            for inode, device in WATCH.findall(text):
                yield int(inode, 16), int(device, 16)
