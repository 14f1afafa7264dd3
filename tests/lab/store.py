"""podman's storage with the images already in it, made once: loading them in each host takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from migrator import command
from tests.lab.cache import cached
from tests.lab.layers import build_layer
from tests.lab.namespaces import in_cgroup
from tests.lab.state import remove_tree

COPY_TIMEOUT_S = 120


def store(root: Path, archives: Sequence[Path]) -> Path:
    """Return what goes to /var/lib/containers of every host of a lab with these images."""
    recipe = json.dumps([root.name, [str(archive) for archive in archives]])
    return cached("store", recipe, lambda target: build(target, root, archives), keep=3) / "containers"


def build(target: Path, root: Path, archives: Sequence[Path]) -> None:
    """Load the archives with the root's own podman."""
    containers = target / "containers"
    containers.mkdir(parents=True)
    for archive in archives:
        argv = ["podman", "load", "--quiet"]
        build_layer(target, [root], (containers, "/var/lib/containers"), argv, stdin=archive.read_bytes())
        remove_tree(target / "files")


def copy_tree(source: Path, target: Path, cgroup: Path) -> None:
    """Copy a directory with all a container storage has: devices, owners, extended attributes.

    The copying program is in `cgroup`, so that it does not go on when the lab is cleared away.
    """
    target.mkdir(parents=True, exist_ok=True)
    argv = in_cgroup(cgroup, ["cp", "--archive", "--reflink=auto", f"{source}/.", str(target)])
    command.run(argv, timeout_s=COPY_TIMEOUT_S)
