"""The named volumes of a container that is to come: made before its files, taken away when it does not come."""

from __future__ import annotations

from pathlib import Path

from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts
from migrator.runtime import podman


class Volumes:
    """The volumes of one incoming container."""

    def __init__(self, host: str, container: ContainerFacts) -> None:
        """`host` is the name by which errors call this one."""
        self._host = host
        self._names = [mount.name for mount in container.volumes if mount.kind == "volume"]
        self._created: list[str] = []

    def prepare(self) -> None:
        """Make those that are missing; raises `PrerequisiteError` when one is here with files of somebody else."""
        for name in self._names:
            if not podman.has_volume(name):
                podman.ensure_volume(name)
                self._created.append(name)
            elif any(podman.volume_path(name).iterdir()):
                raise PrerequisiteError(
                    f"{self._host} already has a volume {name} with files in it",
                    code="target-volume-taken",
                    hint=f"remove it there if it is not needed: podman volume rm {name}",
                )

    def path(self, name: str) -> Path | None:
        """Return where the files of a volume go, None for one that the container does not have."""
        return podman.volume_path(name) if name in self._names else None

    def remove(self) -> None:
        """Take away what was made here."""
        for name in self._created:
            podman.remove_volume(name)
