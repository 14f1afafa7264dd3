"""The OCI specification of a container (`config.json` in its bundle; opencontainers/runtime-spec, config.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Mount = Mapping[str, Any]


def prepare_binds(file: Path) -> str:
    """Make the bind mounts of a specification ones that CRIU can restore.

    runc follows a link when it creates a container, but CRIU mounts the link itself (`open_tree` with
    AT_SYMLINK_NOFOLLOW, criu/mount-v2.c) and fails: Debian's `--init` and /etc/localtime are links. And where one
    bind mount lies in another, as podman's secrets do, runc makes the place for it only when it creates.

    Returns what the file was, to be put back after the restore: podman describes the container by it.
    """
    before = file.read_text()
    specification = json.loads(before)
    mounts = specification.get("mounts", [])
    for mount in filter(is_bind, mounts):
        mount["source"] = os.path.realpath(mount["source"])
    for mount in mounts:
        outer = _outer(mount, mounts)  # podman puts some anew at the end, so their order tells nothing
        if is_bind(mount) and outer is not None and is_bind(outer):
            _make_place(Path(mount["source"]), _place(outer, mount))
    file.write_text(json.dumps(specification))
    return before


def share_memory(file: Path, source: str) -> None:
    """Mount a pod's /dev/shm into a member; podman gives one that it restores its own (libpod, setupContainer)."""
    specification = json.loads(file.read_text())
    for mount in specification.get("mounts", []):
        if mount["destination"] == "/dev/shm":  # noqa: S108  in the container
            mount["source"] = source
    file.write_text(json.dumps(specification))


def cgroup_of(specification: Mapping[str, Any]) -> str:
    """Return the cgroup that runc makes of a specification: a path, or with systemd `SLICE:PREFIX:NAME`.

    A dash in a slice's name stands for a level (systemd.slice(5)).
    """
    path = str(specification["linux"].get("cgroupsPath", ""))
    if ":" not in path:
        return path
    unit, prefix, name = path.split(":")
    words = unit.removesuffix(".slice").split("-")
    levels = ["-".join(words[: number + 1]) for number in range(len(words))]
    return "".join(f"/{level}.slice" for level in levels) + f"/{prefix}-{name}.scope"


def is_bind(mount: Mount) -> bool:
    """Say whether a mount of the specification is a bind mount."""
    options = mount.get("options") or ()
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def _outer(mount: Mount, mounts: Sequence[Mount]) -> Mount | None:
    """Return the mount on which another one lies."""
    path = mount["destination"]
    above = [item for item in mounts if path.startswith(item["destination"].rstrip("/") + "/")]
    return max(above, key=lambda item: len(item["destination"]), default=None)


def _place(outer: Mount, inner: Mount) -> Path:
    inside = inner["destination"][len(outer["destination"].rstrip("/")) :].lstrip("/")
    return Path(str(outer["source"])) / str(inside)


def _make_place(source: Path, place: Path) -> None:
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        place.mkdir()
    else:
        place.touch()
