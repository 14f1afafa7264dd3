"""A throwaway container that is really moved: `lifeboat check --deep`.

It goes the ordinary way, from the first question to the release, so that all of it is tried: certificates, ports,
podman, runc, CRIU on both kernels, the pager, the copying of an image. Its image is podman's own pause program and
nothing else: made here, sent to the target, and removed on both hosts when it is over. It has no network, for an
address of a real one might be in use elsewhere.
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from migrator.command import run
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, MigrationOutcome
from migrator.runtime import podman, tombstone

LABEL = "lifeboat.probe"
IMAGE = "localhost/lifeboat-probe:1"
PROGRAM, PAUSE = "catatonit", "-P"  # podman's own pause containers are this (libpod, makeInfraContainer)
PLACES = ("/usr/local/libexec/podman", "/usr/libexec/podman", "/usr/lib/podman", "/usr/bin")
TIMEOUT_S = 60.0


def is_probe(container: ContainerFacts) -> bool:
    """Say whether a container is one of ours."""
    return LABEL in container.labels


def probed(name: str, host: str, state: Path, move: Callable[[str], MigrationOutcome]) -> MigrationOutcome:
    """Start a throwaway container, let `move` move it, and leave nothing here; `state` is /var/lib/lifeboat."""
    make_image()
    try:
        run(["podman", "run", "--detach", "--name", name, "--network=none", "--label", f"{LABEL}={host}", IMAGE],
            timeout_s=TIMEOUT_S)  # fmt: skip
        return move(name)
    finally:
        podman.remove_container(name)
        podman.remove_image(IMAGE)
        tombstone.tombstone_path(state, name).unlink(missing_ok=True)


def remove_arrived(container: ContainerFacts) -> None:
    """At the target: the probe is here, so it has done what it was for."""
    podman.remove_container(container.id)
    podman.remove_image(container.image_id)


def make_image() -> None:
    """Make an image of the pause program, which is linked statically."""
    program = next((Path(place, PROGRAM) for place in PLACES if os.access(f"{place}/{PROGRAM}", os.X_OK)), None)
    if program is None:
        raise PrerequisiteError(
            f"{PROGRAM}, of which the throwaway container is made, is not installed",
            code="no-probe-program",
            hint=f"apt-get install {PROGRAM}",
        )
    with tempfile.TemporaryDirectory(prefix="lifeboat-probe-") as directory:
        archive = Path(directory, "root.tar")
        content = program.read_bytes()
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo(PROGRAM)
            member.mode, member.size = 0o755, len(content)
            tar.addfile(member, io.BytesIO(content))
        entry = f'ENTRYPOINT ["/{PROGRAM}", "{PAUSE}"]'
        run(["podman", "import", "--quiet", "--change", entry, str(archive), IMAGE], timeout_s=TIMEOUT_S)
