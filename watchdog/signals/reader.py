"""What every reader of signals is."""

from __future__ import annotations

from typing import Protocol

from watchdog.signals.model import Device, Reading


class Reader(Protocol):
    """Reads one kind of source; `poll_s` is how often it should be asked."""

    name: str
    poll_s: float

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now (Unix seconds); what cannot be read is a reading without a value."""


def unreadable(signals: tuple[str, ...], device: Device, now: float, reason: str) -> tuple[Reading, ...]:
    """Return a reading without a value for each signal the device should have."""
    return tuple(Reading(signal, device, now, None, reason) for signal in signals)
