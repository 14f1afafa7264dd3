"""Maintenance windows and silences: what fires meanwhile does less. Pure.

A silence is an admin's word for a while (`lifeboat silence`), a window is written in a policy file and comes
again. Neither stops the judgement: what would have been done is still shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from migrator.model import Value
from watchdog.policy.model import DAYS, Mode, Window
from watchdog.signals.model import Device


class Silence(Value):
    """One silence: `what` is a rule, or a device by name, identity or serial number; `*` is allowed."""

    what: str
    until: float  # Unix seconds
    why: str
    since: float


@dataclass(frozen=True)
class Quiet:
    """A silence or a window in force: for which rules and devices, what they may cause at most, and why."""

    rules: tuple[str, ...]
    devices: tuple[str, ...]
    mode: Mode
    why: str
    either: bool = False  # one of rule and device is enough

    def is_for(self, rule: str, device: Device) -> bool:
        """Say whether it concerns a rule on a device."""
        of_rule = any(fnmatchcase(rule, pattern) for pattern in self.rules)
        of_device = self.covers(device)
        return (of_rule or of_device) if self.either else (of_rule and of_device)

    def covers(self, device: Device) -> bool:
        """Say whether it concerns a device, whatever the rule."""
        names = (device.name, device.identity, device.about.get("serial", ""))
        return any(fnmatchcase(name, pattern) for name in names if name for pattern in self.devices)


def in_force(windows: Sequence[Window], silences: Iterable[Silence], moment: datetime) -> tuple[Quiet, ...]:
    """Return what is quiet at a moment, which is in local time."""
    found = [
        Quiet(window.rules, window.devices, window.mode, f"window {window.name}: {window.why}")
        for window in windows
        if is_open(window, moment)
    ]
    found += [
        Quiet((silence.what,), (silence.what,), Mode.RECORD, f"silenced: {silence.why}", either=True)
        for silence in silences
        if silence.until > moment.timestamp()
    ]
    return tuple(found)


def is_open(window: Window, moment: datetime) -> bool:
    """Say whether a window is open at a moment in local time; one that ends before it starts ends the next day."""
    clock = f"{moment:%H:%M}"
    today, yesterday = (DAYS[day.weekday()] in window.days for day in (moment, moment - timedelta(days=1)))
    if window.start < window.end:
        return today and window.start <= clock < window.end
    return (today and clock >= window.start) or (yesterday and clock < window.end)


def softened(mode: Mode, quiets: Iterable[Quiet]) -> Mode:
    """Return what a rule may cause while it is quiet."""
    return max((mode, *(quiet.mode for quiet in quiets)), key=list(Mode).index)
