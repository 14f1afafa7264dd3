"""What a container mounts from its host, and what is to happen to it when the container moves."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from migrator.container.rules import StorageRules
from migrator.model import Treatment, VolumeMount
from migrator.settings import BindMounts

MOUNTINFO = Path("/proc/self/mountinfo")  # format: proc_pid_mountinfo(5)
SHARED_FILE_SYSTEMS = frozenset(
    ("nfs", "nfs4", "ceph", "cifs", "smb3", "lustre", "beegfs", "glusterfs", "ocfs2", "gfs2", "gpfs", "pvfs2",
     "afs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "fuse.juicefs", "fuse.moosefs")
)  # fmt: skip
"""Types, as mountinfo names them, of file systems that several hosts mount at once."""

COMPARED_BYTES = 1 << 20
RUNTIME_SOCKETS = ("/run/podman", "/var/run/docker.sock", "/run/docker.sock", "/run/systemd", "/run/dbus")


@dataclass(frozen=True)
class Mounted:
    """One line of mountinfo."""

    device: str  # major:minor
    root: str  # the part of the file system that is mounted
    path: str
    file_system: str
    source: str


def parse(mountinfo: str) -> tuple[Mounted, ...]:
    """Read mountinfo; later lines hide earlier ones of the same path."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        found.append(Mounted(fields[2], _unescape(fields[3]), _unescape(fields[4]), kind, _unescape(source)))
    return tuple(found)


def mount_of(path: str, mounted: tuple[Mounted, ...]) -> Mounted | None:
    """Return the mount in which a path lies: the last one of those with the longest path."""
    above = [mount for mount in mounted if within(path, mount.path)]
    return max(reversed(above), key=lambda mount: len(mount.path), default=None)


def within(path: str, directory: str) -> bool:
    """Say whether a path is a directory or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def shared_storage(path: str, mounted: tuple[Mounted, ...]) -> str:
    """Name the shared storage on which a path lies, empty when it is local.

    The words are equal on two hosts when both mount the same thing there: type, source and the place in it.
    """
    mount = mount_of(path, mounted)
    if mount is None or mount.file_system not in SHARED_FILE_SYSTEMS:
        return ""
    inside = "/" + os.path.normpath(mount.root + path[len(mount.path.rstrip("/")) :]).lstrip("/")
    kind = {"nfs": "nfs4"}.get(mount.file_system, mount.file_system)
    return f"{kind} {_source(mount)} {inside}"


def judged(volume: VolumeMount, rules: StorageRules) -> VolumeMount:
    """Return the mount with what is to happen to it, looked up on this host."""
    mounted = parse(MOUNTINFO.read_text())
    decided = treat(volume, rules, shared_storage(volume.path, mounted), _kind(volume.path))
    if decided.treatment is Treatment.COMPARE:
        return decided.model_copy(update={"digest": digest(Path(decided.path))})
    return decided


def treat(volume: VolumeMount, rules: StorageRules, storage: str, kind: str) -> VolumeMount:
    """Decide what is to happen to a mount. `storage` names shared storage; `kind` is what lies at its path.

    `kind` is `directory`, `file` (small enough to be compared), `socket`, `device`, `other` or `absent`.
    """
    what = f"volume {volume.name}" if volume.kind == "volume" else f"bind mount {volume.path}"
    if reason := _unknown(volume, what):
        return _refused(volume, reason)
    if volume.kind == "volume" and not volume.binds:
        return _treat_volume(volume, what, storage)
    if storage:
        return volume.model_copy(update={"treatment": Treatment.LEAVE, "storage": storage})
    if any(within(volume.path, path) for path in rules.shared_paths):
        return volume.model_copy(update={"treatment": Treatment.LEAVE})
    return _treat_local(volume, rules, what, kind)


def _unknown(volume: VolumeMount, what: str) -> str:
    if volume.kind not in ("volume", "bind"):
        return f"it mounts the {volume.kind} {volume.name or volume.source}, which a restore cannot"
    if volume.kind == "volume" and volume.driver not in ("local", ""):
        return f"{what} is of the driver {volume.driver}, of which lifeboat knows nothing"
    return ""


def _treat_volume(volume: VolumeMount, what: str, storage: str) -> VolumeMount:
    kind = volume.options.get("type", "")
    if storage:
        return volume.model_copy(update={"treatment": Treatment.LEAVE, "storage": storage})
    if kind == "tmpfs":
        return volume.model_copy(update={"treatment": Treatment.COPY_LATE})
    if "device" in volume.options:
        return _refused(volume, f"{what} is the device {volume.options['device']}, which stays on this host")
    return volume.model_copy(update={"treatment": Treatment.COPY})


def _treat_local(volume: VolumeMount, rules: StorageRules, what: str, kind: str) -> VolumeMount:
    if kind in ("socket", "device") or any(within(volume.path, path) for path in RUNTIME_SOCKETS):
        return _refused(volume, f"{what} is a {kind} of this host's own programs")
    if kind == "file" and not volume.writable:
        return volume.model_copy(update={"treatment": Treatment.COMPARE})
    if rules.bind_mounts is BindMounts.REFUSE:
        return _refused(
            volume,
            f"{what} is on this host's own disk (shared storage is left alone; migrator.bind_mounts or the label "
            f"lifeboat.bind-mounts = sync would copy it)",
        )
    if kind != "directory":
        return _refused(volume, f"{what} is not a directory, and only directories are synced")
    return volume.model_copy(update={"treatment": Treatment.COPY})


def _refused(volume: VolumeMount, reason: str) -> VolumeMount:
    return volume.model_copy(update={"treatment": Treatment.REFUSE, "reason": reason})


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _kind(path: str) -> str:
    try:
        status = Path(path).stat()
    except OSError:
        return "absent"
    if stat.S_ISREG(status.st_mode):
        return "file" if status.st_size <= COMPARED_BYTES else "other"
    kinds = (
        (stat.S_ISDIR, "directory"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
    )
    return next((word for test, word in kinds if test(status.st_mode)), "other")


def _source(mount: Mounted) -> str:
    """Return the source of a mount; of a device that is not named alike everywhere, its file system's UUID."""
    if not mount.source.startswith("/dev/"):
        return mount.source.rstrip("/")
    for link in Path("/dev/disk/by-uuid").glob("*"):
        if link.resolve() == Path(mount.source).resolve():
            return f"UUID={link.name}"
    return mount.source


def _unescape(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
