"""The writable layer of a container: where it is, and how to make a changed one visible."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from migrator.command import run
from migrator.errors import ExecutionError

MOUNTINFO = Path("/proc/self/mountinfo")  # format: proc_pid_mountinfo(5)
VOLATILE = "work/incompat/volatile"
"""Left by an overlay mounted with `volatile`, as podman does for `--rm`; with it there the kernel does not mount
the layer again (Documentation/filesystems/overlayfs.rst, "Volatile mount")."""

_TIMEOUT_S = 10


@dataclass(frozen=True)
class OverlayMount:
    """One mounted overlay."""

    path: Path
    options: str  # as mount -o takes them
    upper: Path  # the writable layer
    work: Path | None = None  # overlayfs' own directory


def find(path: Path, mountinfo: str | None = None) -> OverlayMount:
    """Return the overlay mounted at `path`; raises `ExecutionError` when there is none."""
    text = MOUNTINFO.read_text() if mountinfo is None else mountinfo
    for line in reversed(text.splitlines()):
        fields = line.split(" ")
        separator = fields.index("-")
        if Path(_unescape(fields[4])) != path or fields[separator + 1] != "overlay":
            continue
        options = ",".join([fields[5], *(_unescape(fields[separator + 3]).split(","))])
        values = dict(option.partition("=")[::2] for option in options.split(","))
        if "upperdir" in values:
            work = Path(values["workdir"]) if "workdir" in values else None
            return OverlayMount(path, _mountable(options), Path(values["upperdir"]), work)
    raise ExecutionError(
        f"{path} is not an overlay mount",
        code="no-overlay",
        hint="podman's storage driver must be overlay on the kernel's overlayfs",
    )


def refresh(path: Path) -> None:
    """Mount an overlay anew, so that files put into its writable layer from below are seen.

    The kernel leaves changes below a mounted overlay undefined
    (Documentation/filesystems/overlayfs.rst); below an unmounted one they are ordinary.
    """
    mount = find(path)
    run(["umount", str(path)], timeout_s=_TIMEOUT_S)
    if mount.work is not None:
        shutil.rmtree(mount.work / VOLATILE, ignore_errors=True)
    run(["mount", "-t", "overlay", "overlay", "-o", mount.options, str(path)], timeout_s=_TIMEOUT_S)


def _mountable(options: str) -> str:
    """Drop what the kernel shows but mount does not take twice: of `rw` keep one."""
    return ",".join(dict.fromkeys(options.split(",")))


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
