"""How much of a container lies on disk: what a migration copies ahead, and a target has to have room for."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.model import ContainerFacts, Treatment
from migrator.runtime import podman
from migrator.storage.volumes import trees

AGE_S = 1800.0
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own is (stat(2))


class Sizes:
    """What containers take on disk; walking through a million files is not done anew for every question."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}  # container id -> when it was measured, bytes

    def disk_in_use(self, container: ContainerFacts) -> int:
        """Return the bytes as measured during the last `AGE_S` seconds; see `disk_in_use`."""
        measured_at, size = self._known.get(container.id, (float("-inf"), 0))
        if time.monotonic() - measured_at > AGE_S:
            size = disk_in_use(container)
            self._known[container.id] = (time.monotonic(), size)
        return size


def disk_in_use(container: ContainerFacts) -> int:
    """Return the bytes of a container's writable layer and of what it mounts and takes along."""
    paths = [tree.path for tree in trees(container, Treatment.COPY)]
    with suppress(LifeboatError):
        paths.append(podman.directories(container.id).upper)
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
