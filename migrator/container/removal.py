"""How a container is taken away for good, so that what keeps it from starting may be taken away behind it."""

from __future__ import annotations

from migrator.errors import ExecutionError
from migrator.runtime import podman


def remove(container: str, name: str) -> None:
    """Remove a container (its id); quiet when it is gone.

    Raises `LifeboatError` when podman keeps it, or does not tell whether it does: then its ban has to stay.
    """
    podman.remove_container(container)
    if podman.has_container(container):
        raise ExecutionError(
            f"podman does not remove {name}; it stays banned from starting",
            code="remains",
            hint=f"podman rm --force {container[:12]}",
        )
