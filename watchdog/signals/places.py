"""From the place of a fault to what it takes with it: the containers whose storage lies there, or the whole host.

The judging is pure; `storage_facts` reads what it is judged by. Sources: Documentation/ABI/stable/sysfs-block and
testing/sysfs-block-device (slaves), proc_swaps(5), fs/btrfs/sysfs.c (devices).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from watchdog.signals.model import Device, DeviceKind
from watchdog.signals.mounts import Mount, parse_mounts
from watchdog.signals.sysfs import read_text

Disks = frozenset[str] | None
"""Names of whole disks (`sda`, `nvme0n1`); None when what lies below cannot be told."""

OWN_NEEDS = ("/", "/usr", "/var", "/var/lib/containers")
"""Without these the host itself does not run: what takes one of them takes everything."""

STORAGE = (DeviceKind.DISK, DeviceKind.MEMBER, DeviceKind.ARRAY, DeviceKind.FILE_SYSTEM)
NOT_LOCAL = ("nfs", "nfs4", "cifs", "ceph", "9p", "virtiofs", "fuse.sshfs", "tmpfs", "ramfs", "devtmpfs")
DEEPEST = 16  # layers of dm, md and loop; more would be a circle


@dataclass(frozen=True)
class StorageFacts:
    """Which disks lie below each mount point, below swap, and below each block device by the kernel's name."""

    mounts: Mapping[str, Disks]
    swap: Disks
    devices: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Affected:
    """What is lost with some devices: the whole host, or these containers (by name) and no other."""

    host: bool
    containers: frozenset[str] = frozenset()


def affected(devices: Iterable[Device], storage: Mapping[str, Iterable[str]], facts: StorageFacts) -> Affected:
    """Return what the loss of all of these devices takes with it. Pure.

    `storage` has the paths of each container: its layers, its volumes. What cannot be told is counted as lost: a
    disk that no file system is known to lie on, a path whose disks are unknown.
    """
    gone: set[str] = set()
    for device in devices:
        disks = _disks_of(device, facts)
        if not disks:
            return Affected(host=True)
        gone |= disks
    needs = (disks_below(path, facts) for path in OWN_NEEDS)
    if any(_meet(gone, disks) for disks in (*needs, facts.swap)):
        return Affected(host=True)
    hit = {name for name, paths in storage.items() if any(_meet(gone, disks_below(path, facts)) for path in paths)}
    return Affected(host=False, containers=frozenset(hit))


def disks_below(path: str, facts: StorageFacts) -> Disks:
    """Return the disks on which a path lies: those of the mount point that is nearest above it, or its own."""
    if path.startswith("/dev/") and (disks := facts.devices.get(PurePosixPath(path).name)) is not None:
        return disks
    for place in (PurePosixPath(path), *PurePosixPath(path).parents):
        if str(place) in facts.mounts:
            return facts.mounts[str(place)]
    return None


def _meet(gone: set[str], disks: Disks) -> bool:
    return disks is None or bool(gone & disks)


def _disks_of(device: Device, facts: StorageFacts) -> Disks:
    """Return the disks a device stands for; None for what is no storage, empty for storage nobody knows."""
    if device.kind not in STORAGE:
        return None
    if device.kind is DeviceKind.FILE_SYSTEM:
        return facts.mounts.get(device.name)
    name = PurePosixPath(device.about.get("path", "") or device.name.split(" ")[0]).name
    if name in facts.devices:
        return facts.devices[name]
    # An NVMe controller is nvme0, its namespaces are nvme0n1 and so on.
    spaces = [disks for known, disks in facts.devices.items() if known.startswith(f"{name}n")]
    return frozenset().union(*spaces) if name.startswith("nvme") and spaces else frozenset()


def storage_facts(
    sysfs: Path = Path("/sys"), mountinfo: Path = Path("/proc/1/mountinfo"), swaps: Path = Path("/proc/swaps")
) -> StorageFacts:
    """Read the facts of this host."""
    devices = {path.name: _whole_disks(path, DEEPEST) for path in (sysfs / "class/block").glob("*")}
    mounts = {mount.place: _below(mount, devices, sysfs) for mount in parse_mounts(read_text(mountinfo))}
    swap: frozenset[str] = frozenset()
    for line in read_text(swaps).splitlines()[1:]:
        swap |= _named(line.split()[0], devices) or frozenset()
    return StorageFacts(mounts, swap, devices)


def _whole_disks(place: Path, depth: int) -> frozenset[str]:
    """Return the disks a block device is made of: its own disk, or those of all its parts."""
    if (place / "partition").exists():
        return _whole_disks(place.resolve().parent, depth)
    parts = sorted(place.glob("slaves/*"))
    if not parts or depth == 0:
        return frozenset({place.resolve().name})
    return frozenset().union(*(_whole_disks(part, depth - 1) for part in parts))


def _below(mount: Mount, devices: Mapping[str, frozenset[str]], sysfs: Path) -> Disks:
    if mount.kind in NOT_LOCAL:
        return frozenset()
    if not mount.source.startswith("/dev/"):
        return frozenset() if not _holds_files(mount) else None
    disks = _named(mount.source, devices)
    if mount.kind == "btrfs" and disks is not None:
        name = Path(mount.source).resolve().name
        for group in _btrfs_groups(sysfs):
            if name in group:
                disks |= frozenset().union(*(devices.get(part, frozenset({part})) for part in group))
    return disks


def _holds_files(mount: Mount) -> bool:
    """Say whether a file system without a device of its own may keep files on disks, as ZFS and overlays do."""
    return mount.kind in ("zfs", "overlay", "bcachefs") or mount.kind.startswith("fuse")


def _named(source: str, devices: Mapping[str, frozenset[str]]) -> Disks:
    return devices.get(Path(source).resolve().name)


def _btrfs_groups(sysfs: Path) -> Iterator[frozenset[str]]:
    for place in (sysfs / "fs/btrfs").glob("*/devices"):
        yield frozenset(path.name for path in place.iterdir())
