"""Which disks there are, what each told so far, and which of them have vanished. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import KnownDisk, unreadable
from watchdog.signals.smart_answer import Answer, Drive, device_of, is_identified, is_standby, refusal
from watchdog.signals.smart_decode import ESSENTIAL, decode

VANISHED = "the disk is not there any more, or the scan for drives does not list it"


@dataclass(frozen=True)
class Asked:
    """How one drive answered: with an answer, or with the reason why there is none."""

    drive: Drive
    answer: Answer | None
    reason: str = ""
    timed_out: bool = False

    @property
    def is_there(self) -> bool:
        """Say whether a drive stood behind the answer: it said who it is, or it sleeps."""
        return self.answer is not None and (is_identified(self.answer) or is_standby(self.answer))


Inventory = Mapping[str, KnownDisk]


def disk_at(inventory: Inventory, name: str) -> KnownDisk | None:
    """Return the disk that was last seen under a name."""
    there = [known for known in inventory.values() if known.device.name == name]
    return max(there, key=lambda known: known.read_at, default=None)


def asked_disk(inventory: Inventory, asked: Asked) -> Device:
    """Return the disk that was asked; one that does not say who it is, is the one last seen there."""
    name = asked.drive.name
    if asked.answer is not None and is_identified(asked.answer):
        return device_of(asked.answer, name)
    known = disk_at(inventory, name)
    return known.device if known else Device(DeviceKind.DISK, f"disk:{name}", name)


def told_by(asked: Asked, device: Device, known: KnownDisk | None, now: float) -> tuple[Reading, ...]:
    """Return what a disk tells; what it told before and does not tell now is unreadable.

    A disk that sleeps keeps its readings: only their age is told, with the reason.
    """
    signals = known.signals if known else frozenset()
    if asked.answer is None:
        return unreadable(sorted(signals | set(ESSENTIAL[""])), device, now, asked.reason)
    if signals and known and is_standby(asked.answer):
        age_s = max(now - known.read_at, 0.0)
        return (Reading("smart.reading_age", device, now, age_s, refusal(asked.answer)),)
    readings = decode(asked.answer, device, now, known=signals)
    if not any(reading.readable for reading in readings):
        return readings
    return (*readings, Reading("smart.reading_age", device, now, 0.0))


def learned(known: KnownDisk | None, device: Device, readings: Iterable[Reading], now: float) -> KnownDisk:
    """Return what is known of a disk after it was asked."""
    told = frozenset(reading.signal for reading in readings if reading.readable) - {"smart.reading_age"}
    before = known or KnownDisk(device, now)
    read_at = now if told else before.read_at
    return replace(before, device=device, read_at=read_at, signals=before.signals | told)


def without_ghosts(inventory: Inventory, device: Device) -> dict[str, KnownDisk]:
    """Forget the nameless disk that stood for this one before it said who it is."""
    nameless = f"disk:{device.name}"
    return {identity: known for identity, known in inventory.items() if nameless != identity != device.identity}


def left_out(
    inventory: Inventory, answered: frozenset[str], asked_names: frozenset[str], now: float
) -> tuple[Reading, ...]:
    """Return, as unreadable, what disks told before that were not even asked this time.

    `answered` are the identities that answered, `asked_names` the names under which somebody was asked.
    """
    readings: list[Reading] = []
    for identity, known in inventory.items():
        if identity in answered or known.pluggable:
            continue
        taken = any(other.device.name == known.device.name for other in _of(inventory, answered))
        if taken or known.device.name not in asked_names:
            readings += unreadable(sorted(known.signals), known.device, now, VANISHED)
    return tuple(readings)


def _of(inventory: Inventory, identities: frozenset[str]) -> list[KnownDisk]:
    return [inventory[identity] for identity in identities if identity in inventory]
