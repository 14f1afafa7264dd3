"""What changed in a directory tree since it was copied ahead: decided from one scan, without reading files.

A file's times change when it is written to; through a shared mapping only with the first write to a page that is
not dirty. So a file may be copied, be written to again, and look the same ever after: every file that changed since
a copy began is *doubtful*, and has to be compared in full if rsync finds nothing to do with it. What was not
changed since then was written out (`syncfs`) before that copy read it, and a later write would have changed its
times. A copy begins before it writes the file systems out; and within the granularity of a file system's clock
(`SAFE_AGE_NS`) a later change would look the same.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

SAFE_AGE_NS = 1_000_000_000

Entry = tuple[int, int, int, int, int]  # device and inode, size, mode, mtime, ctime; times in ns


@dataclass(frozen=True)
class Snapshot:
    """A scanned tree: relative path -> entry; `at_ns` is when what it belongs to began (Unix time)."""

    at_ns: int
    entries: dict[str, Entry]


@dataclass(frozen=True)
class Difference:
    """What must be copied again; `doubtful` files must be compared in full where rsync finds nothing to do."""

    changed: bool
    doubtful: tuple[str, ...]


def scan(path: Path, at_ns: int) -> Snapshot:
    """Scan a tree for what began at `at_ns`; files that vanish meanwhile are not in it."""
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
                status.st_dev << 64 | status.st_ino, status.st_size, status.st_mode,
                status.st_mtime_ns, status.st_ctime_ns,
            )  # fmt: skip  # one line is one entry
            if item.is_dir(follow_symlinks=False):
                pending.append(relative)
    return Snapshot(at_ns, entries)


def doubtful(now: Snapshot, since_ns: int) -> tuple[str, ...]:
    """Return the files that were changed since a copy that began at `since_ns`."""
    return tuple(
        path
        for path, (_, _, mode, _, changed_ns) in now.entries.items()
        if stat.S_ISREG(mode) and changed_ns > since_ns - SAFE_AGE_NS
    )


def compare(before: Snapshot, now: Snapshot) -> Difference:
    """Say what must be copied again when `before` is of the last copy."""
    found = doubtful(now, before.at_ns)
    return Difference(changed=before.entries != now.entries or bool(found), doubtful=found)
