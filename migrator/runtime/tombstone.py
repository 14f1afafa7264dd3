"""What is left of a container that moved away, so that nothing starts a second copy here.

A tombstone is a file; for a container that a systemd unit starts (Quadlet or generated, known by the label
podman sets), a drop-in makes the unit refuse to start while the tombstone lies there.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from migrator.command import run
from migrator.model import ContainerFacts
from migrator.words import is_unit

UNIT_LABEL = "PODMAN_SYSTEMD_UNIT"  # set by quadlet and by podman generate systemd
UNIT_DIRECTORY = Path("/etc/systemd/system")
DROP_IN = "50-lifeboat-moved.conf"


def leave(state: Path, container: ContainerFacts, target: str, migration: str) -> Path:
    """Leave a tombstone for a container that belongs to `target` now; idempotent."""
    path = tombstone_path(state, container.name)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    story = {
        "container": container.name,
        "id": container.id,
        "target": target,
        "migration": migration,
        "at": time.time(),
    }
    path.write_text(json.dumps(story, indent=2) + "\n")
    if unit := _unit(container):
        _forbid(unit, path)
    return path


def tombstone_path(state: Path, name: str) -> Path:
    """Return where the tombstone of a container of this name lies."""
    return state / "tombstones" / f"{name}.json"


def remove(state: Path, container: ContainerFacts) -> None:
    """A container came back to this host: take its tombstone away, and let its unit start again."""
    tombstone_path(state, container.name).unlink(missing_ok=True)
    if unit := _unit(container):
        (UNIT_DIRECTORY / f"{unit}.d" / DROP_IN).unlink(missing_ok=True)
        run(["systemctl", "daemon-reload"], timeout_s=30, check=False)


def _unit(container: ContainerFacts) -> str:
    """Return the unit that starts a container, empty for none; a label may say anything, also a path."""
    unit = container.labels.get(UNIT_LABEL, "")
    return unit if is_unit(unit) else ""


def _forbid(unit: str, path: Path) -> None:
    directory = UNIT_DIRECTORY / f"{unit}.d"
    directory.mkdir(parents=True, exist_ok=True)
    why = "# This container moved away; lifeboat keeps a second copy from starting."
    text = f"{why}\n[Unit]\nConditionPathExists=!{path}\n"
    (directory / DROP_IN).write_text(text)
    run(["systemctl", "daemon-reload"], timeout_s=30, check=False)
