"""Which trees of a container are its /dev/shm, or that of its pod."""

from __future__ import annotations

from collections.abc import Iterator

from migrator.model import ContainerFacts
from migrator.runtime import podman
from migrator.runtime.pods import mounted_at
from migrator.storage.sync import POD_MEMORY, SHARED_MEMORY, Tree

SHARED = "/dev/shm"  # noqa: S108  in a container


def memory_trees(container: ContainerFacts, *, captain: bool) -> Iterator[Tree]:
    """Yield them. What the members of a pod share goes once, with the captain.

    A member that podman has started again after a move has one of its own, for podman restores none into a pod's.
    """
    pod = container.pod
    own = podman.directories(container.id).shared_memory
    if pod is None or "ipc" not in pod.shares:
        yield Tree(SHARED_MEMORY, own)
        return
    if mounted_at(container.id, SHARED) == str(own):
        yield Tree(SHARED_MEMORY, own)
    if captain:
        yield Tree(POD_MEMORY, podman.directories(pod.infra).shared_memory)
