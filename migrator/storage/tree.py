"""What changed in a directory tree since it was copied ahead: decided from one scan, without reading files.

A file counts as changed when its inode, size, mode or its time of change differs, and also when it was
changed less than `SAFE_AGE_NS` before the copy began: within the granularity of the file system's clock a
later change would look the same. Pages written through a shared mapping change no time while they are
dirty, so the file system is written out (`syncfs`) before the scan that the copy begins with.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

SAFE_AGE_NS = 1_000_000_000

Entry = tuple[int, int, int, int, int]  # inode, size, mode, mtime, ctime; times in ns


@dataclass(frozen=True)
class Snapshot:
    """A scanned tree: relative path -> entry; `at_ns` is when the scan began (Unix time)."""

    at_ns: int
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Difference:
    """What must be copied again. `doubtful` files look unchanged to rsync, and must be compared in full."""

    changed: bool
    doubtful: tuple[str, ...]


def scan(path: Path) -> Snapshot:
    """Scan a tree; files that vanish meanwhile are not in it."""
    at_ns = time.time_ns()
    entries: dict[str, Entry] = {}
    pending = [""]
    while pending:
        directory = pending.pop()
        try:
            listed = list(os.scandir(path / directory))
        except FileNotFoundError:
            continue
        for item in listed:
            relative = os.path.join(directory, item.name)
            try:
                status = item.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            entries[relative] = (
                status.st_ino, status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns,
            )  # fmt: skip  # one line is one entry
            if item.is_dir(follow_symlinks=False):
                pending.append(relative)
    return Snapshot(at_ns, entries)


def compare(before: Snapshot, now: Snapshot) -> Difference:
    """Say what must be copied again when `before` was taken just before the copy began."""
    doubtful = tuple(
        path
        for path, entry in now.entries.items()
        if before.entries.get(path) == entry and entry[4] > before.at_ns - SAFE_AGE_NS
    )
    return Difference(changed=before.entries != now.entries or bool(doubtful), doubtful=doubtful)
