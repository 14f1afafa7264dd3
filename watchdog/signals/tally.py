"""Counters made of events: the kernel only says "it happened again", and a rule wants to know how often.

A tally counts on over restarts and reboots, so the growth within a window comes out right. It is kept in a
small file with the place up to which the source was read, both written at once: no event is counted twice,
and none that the source still has is missed.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchdog.signals.model import Device, DeviceKind, Reading

MOST_COUNTS = 1000  # a log that names ever new devices must not fill the memory
FORGOTTEN_AFTER_S = 90 * 86400.0
BEFORE_S = 0.001  # the zero ahead of the first count, so that the first event is growth

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Count:
    """How often something happened to a device, when last, and what was said then."""

    device: Device
    value: float
    at: float
    remark: str = ""


class Tally:
    """Counts per signal and device. Not for use by several threads at once."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the file it is kept in; without one it is forgotten with the process."""
        self.position: dict[str, Any] = {}
        self.is_new = True  # nothing was ever read: what the source has by now is old
        self._path = path
        self._counts: dict[tuple[str, str], Count] = {}
        self._fresh: set[tuple[str, str]] = set()
        if path is not None:
            self._load(path)

    def add(self, signal: str, device: Device, at: float, by: float = 1.0, remark: str = "") -> None:
        """Count an event, or several."""
        known = self._counts.get((signal, device.identity))
        self._put(signal, Count(device, (known.value if known else 0.0) + by, at, remark))

    def raise_to(self, signal: str, device: Device, at: float, total: float, remark: str = "") -> None:
        """Take a total that the source itself has counted."""
        self._put(signal, Count(device, total, at, remark))

    def _put(self, signal: str, count: Count) -> None:
        key = (signal, count.device.identity)
        if key not in self._counts:
            if len(self._counts) >= MOST_COUNTS:
                del self._counts[min(self._counts, key=lambda each: self._counts[each].at)]
            self._fresh.add(key)
        self._counts[key] = count

    def readings(self, now: float) -> tuple[Reading, ...]:
        """Return every count, and for a new one also the zero before it, unless the whole tally is new."""
        found = []
        for key, count in self._counts.items():
            signal, _ = key
            if key in self._fresh and not self.is_new:
                found.append(Reading(signal, count.device, now - BEFORE_S, 0.0))
            found.append(Reading(signal, count.device, now, count.value, count.remark))
        self._fresh.clear()
        return tuple(found)

    def save(self, now: float) -> None:
        """Write the file; one that cannot be written costs the count at the next restart, and is told."""
        self.is_new = False
        self._counts = {key: count for key, count in self._counts.items() if now - count.at < FORGOTTEN_AFTER_S}
        if self._path is None:
            return
        rows = [[signal, *_row(count)] for (signal, _), count in self._counts.items()]
        text = json.dumps({"position": self.position, "counts": rows})
        aside = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with aside.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
        except OSError as error:
            _log.error("%s cannot be written: %s", self._path, error)

    def _load(self, path: Path) -> None:
        try:
            found = json.loads(path.read_text())
            self.position = dict(found["position"])
            for signal, *row in found["counts"]:
                count = _count(row)
                self._counts[signal, count.device.identity] = count
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.error("%s cannot be read, counting begins anew: %s", path, error)
            self.position, self._counts = {}, {}
            return
        self.is_new = False


def _row(count: Count) -> list[Any]:
    device = count.device
    return [str(device.kind), device.identity, device.name, dict(device.about), count.value, count.at, count.remark]


def _count(row: list[Any]) -> Count:
    kind, identity, name, about, value, at, remark = row
    return Count(Device(DeviceKind(kind), identity, name, about), float(value), float(at), str(remark))
