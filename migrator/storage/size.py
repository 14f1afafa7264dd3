"""How much of a container lies on disk: what a migration copies ahead, and a target has to have room for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.model import ContainerFacts
from migrator.runtime import podman

BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own is (stat(2))


def disk_in_use(container: ContainerFacts) -> int:
    """Return the bytes of a container's writable layer and named volumes; what cannot be read counts nothing."""
    paths = [Path(mount.source) for mount in container.volumes if mount.kind == "volume"]
    with suppress(LifeboatError):
        paths.append(podman.upper_directory(container.id))
    return sum(tree_bytes(path) for path in paths)


def tree_bytes(top: Path) -> int:
    """Return what the files below a directory take on disk; each hard link counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for directory, _, names in os.walk(top, onerror=lambda _: None):
        for name in names:
            try:
                found = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * BLOCK_BYTES
    return total
