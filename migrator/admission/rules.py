"""What both documents are measured by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Places:
    """Where podman keeps its things on this host."""

    graph_root: Path  # /var/lib/containers/storage
    run_root: Path  # /run/containers/storage
    volumes: Path  # /var/lib/containers/storage/volumes

    def user_data(self, container: str) -> tuple[Path, Path]:
        """Return the two directories that podman makes for a container, and nobody else writes to."""
        inner = Path("overlay-containers") / container / "userdata"
        return self.graph_root / inner, self.run_root / inner


@dataclass(frozen=True)
class Joined:
    """The pod that was made here for a container: podman's ids of it and of its infra container."""

    pod: str
    infra: str


@dataclass(frozen=True)
class Terms:
    """What this host's admin allows beyond the usual."""

    privileged: bool = False
    shared_paths: tuple[str, ...] = ()
    sync: bool = False  # local directories of a container may be written to the same path here
    joined: Joined | None = None  # of a container that belongs to a pod


def is_empty(value: Any) -> bool:
    """Say whether a value is none at all, as podman writes what was not asked for."""
    return value in (None, False, 0, "", [], {})


def is_inside(path: str, directory: Path) -> bool:
    """Say whether a path lies below a directory, as it is written: without links, dots or doubled slashes."""
    return path.startswith(f"{directory}/") and is_plain(path)


def is_plain(path: str) -> bool:
    """Say whether a path is written in its simplest form."""
    return path.startswith("/") and not any(part in ("", ".", "..") for part in path.split("/")[1:])


def entries(value: Any) -> list[dict[str, Any]]:
    """Return the objects of a list, an impossible one for whatever else is in it; none for no list."""
    if value is None:
        return []
    if not isinstance(value, list):
        return [{"": value}]
    return [item if isinstance(item, dict) else {"": item} for item in value]


def words(value: Any) -> list[str]:
    """Return a list of words; whatever else it is becomes a word that nothing allows."""
    if value is None:
        return []
    if not isinstance(value, list):
        return [repr(value)]
    return [item if isinstance(item, str) else repr(item) for item in value]
