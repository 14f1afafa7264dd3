"""Keeps a second copy of a container from starting: bans while a migration is under way, tombstones for ever.

A *ban* is an empty file named after the container's id. A shell line that is an OCI hook of every container
(`HOOK`, installed with lifeboat) looks for it whenever a runtime creates a container, and fails the creation,
whoever asked for it: `podman start`, a restart policy, podman-restart.service after a boot, podman's API. It lies
on disk from before the freeze until the container is gone here, or given back. A restore runs the same hooks, so
the target allows its own one (`allowed`). What a cold migration creates at its target has an id that nobody knows
beforehand; an annotation (`words.ORIGIN`) says whose ban is meant, and was there before any start could be.

A *tombstone* is a file with the story of a container that has moved away. For a container that a systemd unit
starts anew each time, under a new id (Quadlet or generated; known by the label podman sets), a drop-in makes the
unit refuse to start while the ban or the tombstone lies there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from migrator.command import run
from migrator.errors import PrerequisiteError
from migrator.files import sync_directory
from migrator.model import ContainerFacts
from migrator.words import UNIT_LABEL, is_unit

UNIT_DIRECTORY = Path("/etc/systemd/system")
DROP_IN = "50-lifeboat-moved.conf"
BANS = "banned"  # below the state directory
ALLOWED = Path("/run/lifeboat/allowed")
HOOK = "50-lifeboat.json"
HOOK_DIRECTORIES: tuple[Path, ...] = (
    Path("/usr/share/containers/oci/hooks.d"),
    Path("/etc/containers/oci/hooks.d"),
)
"""Where podman looks for hooks by itself, and where an admin may let it look (oci-hooks(5), containers.conf(5))."""


def check_hook() -> None:
    """Raise `PrerequisiteError` when nothing would heed a ban on this host."""
    if not any((directory / HOOK).exists() for directory in HOOK_DIRECTORIES):
        raise PrerequisiteError(
            f"podman's hook {HOOK_DIRECTORIES[0] / HOOK} is missing: a container that moved away could start again",
            code="hook-missing",
            hint="./run install puts it there",
        )


def without_hook(specification: str) -> str:
    """Return an OCI specification without our own hook: every host has its own, and takes none from others."""
    found = json.loads(specification)
    hooks = found.get("hooks") or {}
    kept = {stage: [hook for hook in listed if not _is_ours(hook)] for stage, listed in hooks.items()}
    if any(kept.values()):
        found["hooks"] = {stage: listed for stage, listed in kept.items() if listed}
    else:
        found.pop("hooks", None)
    return json.dumps(found)


def _is_ours(hook: dict[str, object]) -> bool:
    return f"/{BANS}/" in str(hook.get("args")) and "/var/lib/lifeboat" in str(hook.get("args"))


def ban(state: Path, container: ContainerFacts, *, unit: bool = True) -> None:
    """Let nothing start this container here, also after a reboot; on disk when this returns. Idempotent.

    `unit`: nor the systemd unit that it belongs to.
    """
    path = ban_path(state, container)
    _opened(path).unlink(missing_ok=True)
    if unit and (name := _unit(container)):
        _forbid(name, (path, tombstone_path(state, container.name)))
    ban_infra(state, container.id)


def ban_infra(state: Path, identifier: str) -> None:
    """As `ban`, for the infra container of a pod, which is known by its id alone: no member starts without it."""
    path = state / BANS / identifier
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(path, b"")


def lift(state: Path, container: ContainerFacts) -> None:
    """Let this container start again, unless a tombstone of it is here; idempotent."""
    _opened(ban_path(state, container)).unlink(missing_ok=True)  # first: alone it would make the next ban void
    lift_infra(state, container.id)
    if not tombstone_path(state, container.name).exists():
        _allow_unit(container)


def lift_infra(state: Path, identifier: str) -> None:
    """As `lift`, for the infra container of a pod; on disk when this returns."""
    (state / BANS / identifier).unlink(missing_ok=True)
    _sync(state / BANS)


def open_ban(state: Path, container: ContainerFacts) -> None:
    """Let whoever asks start here what was created of this container, also after a reboot; `lift` ends the ban."""
    _write(_opened(ban_path(state, container)), b"")


def _opened(ban: Path) -> Path:
    return ban.with_name(f"{ban.name}.opened")


def is_banned(state: Path, container: ContainerFacts) -> bool:
    """Say whether a ban lies here."""
    return ban_path(state, container).exists()


@contextmanager
def allowed(container: str) -> Iterator[None]:
    """Let this container (its id) be restored here in spite of a ban, until the block ends or the host dies."""
    path = ALLOWED / container
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def disallow(container: ContainerFacts) -> None:
    """Let a ban hold again, whatever became of who was `allowed`."""
    (ALLOWED / container.id).unlink(missing_ok=True)


def leave(state: Path, container: ContainerFacts, target: str, migration: str) -> Path:
    """Leave a tombstone for a container that belongs to `target` now; idempotent."""
    path = tombstone_path(state, container.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    story = {
        "container": container.name,
        "id": container.id,
        "target": target,
        "migration": migration,
        "unit": container.quadlet.unit if container.quadlet else "",
        "at": time.time(),
        "volumes": [mount.name for mount in container.volumes if mount.kind == "volume"],
        "paths": [mount.path for mount in container.volumes if mount.binds],
    }
    _write(path, (json.dumps(story, indent=2) + "\n").encode())
    if unit := _unit(container):
        _forbid(unit, (ban_path(state, container), path))
    return path


def read(state: Path, name: str) -> dict[str, Any]:
    """Return the story of a container of this name that moved away; empty when none did."""
    try:
        found: dict[str, Any] = json.loads(tombstone_path(state, name).read_text())
    except (OSError, ValueError):
        return {}
    return found


def tombstone_path(state: Path, name: str) -> Path:
    """Return where the tombstone of a container of this name lies."""
    return state / "tombstones" / f"{name}.json"


def ban_path(state: Path, container: ContainerFacts) -> Path:
    """Return where the ban of a container lies."""
    return state / BANS / container.id


def remove(state: Path, container: ContainerFacts) -> None:
    """A container came back to this host: take its tombstone away, and let its unit start again."""
    tombstone_path(state, container.name).unlink(missing_ok=True)
    _allow_unit(container)


def clear(state: Path, container: ContainerFacts) -> None:
    """It is here for good: neither ban nor tombstone keeps it from starting any more."""
    lift(state, container)
    remove(state, container)


def _allow_unit(container: ContainerFacts) -> None:
    unit = _unit(container)
    drop_in = UNIT_DIRECTORY / f"{unit}.d" / DROP_IN
    if unit and drop_in.exists():
        drop_in.unlink()
        with suppress(OSError):  # others have something there
            drop_in.parent.rmdir()
        run(["systemctl", "daemon-reload"], timeout_s=30, check=False)


def _unit(container: ContainerFacts) -> str:
    """Return the unit that starts a container, empty for none; a label may say anything, also a path."""
    unit = container.labels.get(UNIT_LABEL, "")
    return unit if is_unit(unit) else ""


def _forbid(unit: str, paths: tuple[Path, ...]) -> None:
    directory = UNIT_DIRECTORY / f"{unit}.d"
    why = "# This container moved away, or is about to; lifeboat keeps a second copy from starting."
    text = "\n".join([why, "[Unit]", *(f"ConditionPathExists=!{path}" for path in paths), ""])
    drop_in = directory / DROP_IN
    if drop_in.exists() and drop_in.read_text() == text:
        return
    directory.mkdir(parents=True, exist_ok=True)
    _write(drop_in, text.encode())
    run(["systemctl", "daemon-reload"], timeout_s=30, check=False)


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is there after a power cut."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _sync(directory: Path) -> None:
    if directory.is_dir():
        sync_directory(directory)
