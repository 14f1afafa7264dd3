"""What is put together from disks, and how much of it may still fail. Pure: shared by md, LVM, ZFS and btrfs."""

from __future__ import annotations

from dataclasses import dataclass, field

from watchdog.signals.model import Device, DeviceKind, Reading

RAID_REDUNDANCY = {"raid4": 1, "raid5": 1, "raid6": 2, "raid10": 1, "raid1c3": 2, "raid1c4": 3}
"""Members that may fail whichever they are; raid10 may bear more when the right ones fail."""


@dataclass(frozen=True)
class Member:
    """A disk, or a part of one, in an array, and the errors counted on it; None where nobody counts."""

    name: str
    errors: int | None
    path: str = ""


@dataclass(frozen=True)
class Array:
    """The state of an array: `redundancy` is how many members may fail, `lost` how many are not in step."""

    kind: str  # md, lvm, zfs, btrfs
    identity: str
    name: str
    redundancy: int
    lost: int
    rebuilding: bool = False
    broken: str = ""  # why its data is out of reach
    members: tuple[Member, ...] = field(default=())

    @property
    def device(self) -> Device:
        """Return it as what signals are about."""
        return Device(DeviceKind.ARRAY, f"array:{self.kind}:{self.identity}", self.name, {"type": self.kind})


def redundancy_of(level: str, disks: int) -> int:
    """Return how many members of a RAID level may fail: all but one of a mirror, none without redundancy."""
    if level in ("raid1", "mirror", "dup"):
        return max(disks - 1, 0)
    return RAID_REDUNDANCY.get(level, 0)


def told_of(array: Array, now: float) -> tuple[Reading, ...]:
    """Return the readings of an array and its members."""
    failed = bool(array.broken) or array.lost > array.redundancy
    degraded = failed or array.lost > 0
    spent = degraded and (failed or 0 < array.redundancy <= array.lost)
    remark = array.broken or (f"{array.lost} of its members not in step" if array.lost else "")
    flags = {
        "array.degraded": degraded,
        "array.not_rebuilding": degraded and not array.rebuilding,
        "array.no_redundancy": spent,
        "array.failed": failed,
    }
    told = [Reading(name, array.device, now, float(flag), remark if flag else "") for name, flag in flags.items()]
    counted = [
        Reading("array.member_errors", _member(array, member), now, float(member.errors))
        for member in array.members
        if member.errors is not None
    ]
    return (*told, *counted)


def _member(array: Array, member: Member) -> Device:
    about = {"array": array.name, "type": array.kind, "path": member.path}
    told = {key: value for key, value in about.items() if value}
    identity = f"member:{array.kind}:{array.identity}:{member.name}"
    return Device(DeviceKind.MEMBER, identity, f"{member.name} of {array.name}", told)
