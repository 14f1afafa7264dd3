"""What runc itself says of a container; formats are those of `runc state`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from migrator.command import run

RUNC_ROOT = Path("/run/runc")  # runc's default --root; podman uses it for root's containers


def first_pid(runc: str, container: str) -> int:
    """Return the pid of a container's first process on this host."""
    return int(json.loads(run([runc, "state", container], timeout_s=10).output)["pid"])


def remove_remains(runc: str, container: str) -> None:
    """Remove what an interrupted restore left of a container: processes, the mount, runc's own record.

    runc mounts the root at `criu-root` in its record (libcontainer, Restore) and cannot delete a record
    whose restore it did not see the end of.
    """
    run([runc, "delete", "--force", container], timeout_s=30, check=False)
    record = RUNC_ROOT / container
    if record.exists():
        run(["umount", "--lazy", str(record / "criu-root")], timeout_s=10, check=False)
        shutil.rmtree(record, ignore_errors=True)
