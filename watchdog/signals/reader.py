"""What every reader of signals is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from watchdog.signals.model import Device, DeviceKind, Reading


class Reader(Protocol):
    """Reads one kind of source; `poll_s` is how often it should be asked."""

    name: str
    poll_s: float

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now (Unix seconds); what cannot be read is a reading without a value.

        Nothing at all says that there is nothing new, or that the host never had anything of the kind.
        """


@runtime_checkable
class Alarmed(Protocol):
    """A reader that learns at once that there is something to read."""

    def alarm(self) -> tuple[int, int] | None:
        """Return a file descriptor and the epoll events on which to read; None while there is none.

        Asked anew after every reading, which must take away what raised the alarm.
        """


@runtime_checkable
class Telling(Protocol):
    """A reader that learns what is news to others."""

    def news(self) -> frozenset[str]:
        """Return the names of readers that shall read at once, by what was read last."""


@dataclass(frozen=True)
class KnownDisk:
    """What earlier readings say of a disk.

    `read_at` (Unix seconds) is when it last told how it is, or was first seen; `signals` are those it told.
    A `pluggable` one (USB) may go without being missed.
    """

    device: Device
    read_at: float
    signals: frozenset[str] = frozenset()
    pluggable: bool = False


@dataclass(frozen=True)
class Remembered:
    """What readers knew before the daemon was restarted; see `ReadingStore.remembered`.

    `disks` were there, so that one which vanished meanwhile is missed; `trusted` are identities of fans that
    turned, of voltages that were inside their limits, of supplies that delivered, so that those can fail. `told` is
    every signal of every device that had a value lately, so that one which is not told any more is missed.
    """

    disks: tuple[KnownDisk, ...] = ()
    trusted: frozenset[str] = frozenset()
    told: tuple[tuple[str, Device], ...] = ()


NOTHING_REMEMBERED = Remembered()
THIS_HOST = Device(DeviceKind.HOST, "host", "this host")


def unreadable(signals: Sequence[str], device: Device, now: float, reason: str) -> tuple[Reading, ...]:
    """Return a reading without a value for each signal the device should have."""
    return tuple(Reading(signal, device, now, None, reason) for signal in signals)


def sight(reader: str, now: float, blind: str = "") -> Reading:
    """Return whether a reader sees anything; `blind` is the reason why it does not.

    A host without the driver, or a reader that fails, would otherwise leave no trace and look healthy. The
    reading becomes readable as soon as the source does.
    """
    device = Device(DeviceKind.HOST, f"reader:{reader}", f"reader {reader}")
    return Reading("reader.blind", device, now, None if blind else 0.0, blind)


def is_ignored(device: Device, patterns: Sequence[str]) -> bool:
    """Say whether settings tell to leave a device alone: by serial number, name or identity, `*` allowed."""
    names = (device.identity, device.name, device.about.get("serial", ""))
    return any(fnmatchcase(name, pattern) for name in names if name for pattern in patterns)
