"""Nothing vanishes into health: what a reader told once, and does not tell any more, is unreadable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, Reading
from watchdog.signals.reader import Reader, Remembered, is_ignored

GRACE = 2
"""Readings in a row that may leave a signal out: some are only told from the second one on."""

OF_OTHERS = ("lvm", "zfs", "ipmi")
"""Second part of an identity (array:zfs:tank, power:ipmi:PS1) where it names the reader, not the signal does."""

REASON = "it was told before, and is not any more"


class Missed:
    """A reader whose signals are missed when they are gone, also over restarts of the daemon."""

    def __init__(self, reader: Reader, remembered: Remembered, ignored: Sequence[str] = ()) -> None:
        """`ignored` are patterns of devices that nobody misses."""
        self.name, self.poll_s = reader.name, reader.poll_s
        self._reader = reader
        self._known = {
            (signal, device.identity): device
            for signal, device in remembered.told
            if teller(signal, device) == reader.name and not is_ignored(device, ignored)
        }
        self._left_out: dict[tuple[str, str], int] = {}

    def alarm(self) -> tuple[int, int] | None:
        """Return the reader's own alarm, if it has one."""
        alarm = getattr(self._reader, "alarm", None)
        found: tuple[int, int] | None = alarm() if alarm is not None else None
        return found

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return what the reader tells, and as unreadable what it leaves out."""
        readings = self._reader.read(now)
        told = {(item.signal, item.device.identity) for item in readings}
        self._known |= {
            (item.signal, item.device.identity): item.device
            for item in readings
            if item.readable and item.signal != "reader.blind"
        }
        self._left_out = {key: self._left_out.get(key, 0) + 1 for key in self._known if key not in told}
        return (*readings, *self._lost(now))

    def forget(self, identity: str) -> None:
        """Forget a device: it was replaced, or taken out on purpose."""
        self._known = {key: device for key, device in self._known.items() if key[1] != identity}
        forget = getattr(self._reader, "forget", None)
        if forget is not None:
            forget(identity)

    def _lost(self, now: float) -> Iterable[Reading]:
        for (signal, identity), times in self._left_out.items():
            if times >= GRACE:
                yield Reading(signal, self._known[signal, identity], now, None, REASON)


def teller(signal: str, device: Device) -> str:
    """Return the name of the reader that tells a signal of a device; empty for one that nobody tells any more."""
    maker = device.identity.split(":")[1:2]
    if maker and maker[0] in OF_OTHERS:
        return maker[0]
    return CATALOG[signal].source if signal in CATALOG else ""
