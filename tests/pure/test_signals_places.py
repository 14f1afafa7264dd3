"""What the loss of a device takes with it: some containers, or the whole host; what is unknown counts as lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from watchdog.signals.model import Device, DeviceKind
from watchdog.signals.places import Affected, StorageFacts, affected, disks_below, storage_facts

FACTS = StorageFacts(
    mounts={
        "/": frozenset({"sda"}),
        "/srv": frozenset({"sdb", "sdc"}),
        "/srv/fast": frozenset({"nvme0n1"}),
        "/tank": None,
        "/net": frozenset(),
    },
    swap=frozenset({"sdd"}),
    devices={
        "sda": frozenset({"sda"}),
        "sdb": frozenset({"sdb"}),
        "sdb1": frozenset({"sdb"}),
        "sdc": frozenset({"sdc"}),
        "sdd": frozenset({"sdd"}),
        "md0": frozenset({"sdb", "sdc"}),
        "nvme0n1": frozenset({"nvme0n1"}),
        "sdz": frozenset({"sdz"}),
    },
)
STORAGE = {
    "web": ["/srv/web/data"],
    "cache": ["/srv/fast/cache", "/srv/fast"],
    "shop": ["/srv/shop", "/srv/fast/shop"],
    "files": ["/net/files"],
    "pool": ["/tank/x"],
}
HOST = Affected(host=True)


def disk(name: str) -> Device:
    return Device(DeviceKind.DISK, f"disk:{name}", f"/dev/{name}")


@pytest.mark.parametrize(
    ("device", "containers"),
    [
        (disk("sdb"), {"web", "shop", "pool"}),
        (disk("nvme0"), {"cache", "shop", "pool"}),  # the controller of nvme0n1
        (Device(DeviceKind.MEMBER, "m", "sdb1 of md0", {"path": "/dev/sdb1"}), {"web", "shop", "pool"}),
        (Device(DeviceKind.ARRAY, "a", "md0"), {"web", "shop", "pool"}),
        (Device(DeviceKind.FILE_SYSTEM, "f", "/srv/fast"), {"cache", "shop", "pool"}),
        (disk("sdz"), {"pool"}),  # nothing is known to lie on it, but who knows what the pool lies on
    ],
)
def test_a_data_disk_takes_the_containers_on_it(device: Device, containers: set[str]) -> None:
    assert affected([device], STORAGE, FACTS) == Affected(host=False, containers=frozenset(containers))


@pytest.mark.parametrize(
    "device",
    [
        disk("sda"),  # the system lies on it
        disk("sdd"),  # swap lies on it
        disk("bus/0 megaraid,4"),  # nobody knows what lies on it
        Device(DeviceKind.FILE_SYSTEM, "f", "/tank"),
        Device(DeviceKind.DIMM, "d", "mc0/dimm0"),
        Device(DeviceKind.POWER_SUPPLY, "p", "PSU1"),
        Device(DeviceKind.HOST, "h", "this host"),
    ],
)
def test_what_the_host_itself_needs_and_what_has_no_place_takes_everything(device: Device) -> None:
    assert affected([device], STORAGE, FACTS) == HOST


def test_the_loss_of_several_devices_is_that_of_each() -> None:
    found = affected([disk("nvme0"), disk("sdc")], STORAGE, FACTS)
    assert found.containers == {"web", "cache", "shop", "pool"}
    assert affected([disk("nvme0"), disk("sda")], STORAGE, FACTS) == HOST


def test_a_path_lies_on_the_nearest_mount_above_it() -> None:
    assert disks_below("/srv/fast/a/b", FACTS) == frozenset({"nvme0n1"})
    assert disks_below("/srv/faster", FACTS) == frozenset({"sdb", "sdc"})
    assert disks_below("/opt", FACTS) == frozenset({"sda"})


def block(root: Path, name: str, *parts: str, of: str = "") -> None:
    """Make a block device: a partition of a disk, or made of parts."""
    place = root / "devices" / of / name
    (place / "slaves").mkdir(parents=True)
    if of:
        (place / "partition").write_text("1\n")
    for part in parts:
        (place / "slaves" / part).symlink_to(root / "class/block" / part)
    link = root / "class/block" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(place)


def test_the_facts_walk_from_mounts_through_volumes_and_arrays_to_disks(tmp_path: Path) -> None:
    for name in ("sda", "sdb", "sdc"):
        block(tmp_path, name)
    block(tmp_path, "sda1", of="sda")
    block(tmp_path, "sdb1", of="sdb")
    block(tmp_path, "md0", "sda1", "sdb1")
    block(tmp_path, "dm-0", "md0")
    block(tmp_path, "dm-1", "dm-0", "sdc")
    mountinfo, swaps = tmp_path / "mountinfo", tmp_path / "swaps"
    line = "{0} 1 8:{0} / {1} rw - {2} {3} rw\n"
    mountinfo.write_text(
        line.format(1, "/", "ext4", "/dev/sdc")
        + line.format(2, "/srv", "xfs", "/dev/dm-0")
        + line.format(3, "/big", "xfs", "/dev/dm-1")
        + line.format(4, "/tank", "zfs", "tank/data")
        + line.format(5, "/run", "tmpfs", "tmpfs")
        + line.format(6, "/gone", "ext4", "/dev/sdx1")
    )
    swaps.write_text("Filename Type Size Used Priority\n/dev/sdb1 partition 1 0 -2\n")
    facts = storage_facts(tmp_path, mountinfo, swaps)
    assert facts.mounts == {
        "/": frozenset({"sdc"}),
        "/srv": frozenset({"sda", "sdb"}),
        "/big": frozenset({"sda", "sdb", "sdc"}),
        "/tank": None,
        "/run": frozenset(),
        "/gone": None,
    }
    assert facts.swap == frozenset({"sdb"})


def test_this_very_host_has_disks_below_its_root_or_says_that_it_cannot_tell() -> None:
    below = disks_below("/", storage_facts(mountinfo=Path("/proc/self/mountinfo")))
    assert below is None or below <= {path.name for path in Path("/sys/class/block").iterdir()}
