"""The kernel log: follows /dev/kmsg, and counts what the patterns know, per device.

Any number of lines a second is taken in slices: what the kernel overwrites meanwhile is counted as lost.
"""

from __future__ import annotations

import math
import re
import select
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from watchdog.signals.block import BlockDevices
from watchdog.signals.catalog import CATALOG
from watchdog.signals.kernel_patterns import Found, Patterns
from watchdog.signals.kmsg import KERNEL, Kmsg, Record, boot_id, plain_lines
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.mounts import MOUNTINFO, mounted_from, parse_mounts
from watchdog.signals.reader import THIS_HOST, is_ignored, sight
from watchdog.signals.tally import Tally

DAY_S = 86400.0
MOST_REMEMBERED = 10_000  # lines that were counted already; the oldest are forgotten first
LONGEST_REMARK = 200
NEWS_TO = {DeviceKind.DISK: "disks", DeviceKind.FILE_SYSTEM: "mounts"}
OWN_MATCHES = "kernel.matches"
LOST = "kernel.lost_lines"


OTHERS = re.compile(r"^(?:sr|fd|loop|zram|dm-|md|ram)\d")
"""Drives for removable media, and what is made of disks."""


class Log(Protocol):
    """Where records come from; `lost` were overwritten before they could be read."""

    descriptor: int
    lost: int

    def records(self) -> Iterator[Record]:
        """Return what is new."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class Naming:
    """How what a line names becomes a device; None is for what is nobody's business."""

    disk: Callable[[str], Device | None]
    file_system: Callable[[str], Device | None]

    def device(self, found: Found, record: Record) -> Device | None:
        """Return what a line is about."""
        kind = CATALOG[found.pattern.signal].device_kind
        if found.pattern.signal == OWN_MATCHES:
            name = found.pattern.id
            return Device(DeviceKind.HOST, f"pattern:{name}", f"pattern {name}", {"pattern": name})
        if kind is DeviceKind.DISK:
            named = next((found.groups[name] for name in ("disk", "disk_", "port") if name in found.groups), "")
            return self.disk(named or record.device)
        if kind is DeviceKind.FILE_SYSTEM:
            return self.file_system(found.groups.get("file_system", ""))
        if kind is DeviceKind.PROCESSOR:
            name = found.groups.get("processor", "")
            return Device(kind, f"kernel-log:{name or 'processors'}", name or "processors, by the kernel log")
        return THIS_HOST


class KernelLogReader:
    """Reads the kernel log."""

    name = "kernel"

    def __init__(
        self,
        poll_s: float,
        patterns: Patterns,
        *,
        state: Path | None = None,
        open_log: Callable[[], Log] = Kmsg.open,
        sysfs: Path = Path("/sys"),
        left_out: Callable[[], frozenset[str]] = frozenset,
        ignored: Sequence[str] = (),
        naming: Naming | None = None,
        is_history: bool = False,
    ) -> None:
        """`state` is the file of the counts; `left_out` names the signals that somebody else counts better.

        What the log holds at the very first start is old, and no growth, unless it `is_history` to be judged.
        """
        self.poll_s = poll_s
        self._patterns, self._open, self._left_out = patterns, open_log, left_out
        self._ignored = tuple(ignored)
        self._tally = Tally(state)
        self._tally.is_new = self._tally.is_new and not is_history
        self._blocks = BlockDevices(sysfs)
        self._sysfs = sysfs
        self._naming = naming or Naming(self._disk, self._file_system)
        self._log: Log | None = None
        self._seen: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._saved_at, self._told_at = 0.0, -math.inf
        self._news: set[str] = set()

    def alarm(self) -> tuple[int, int] | None:
        """Wake when there is a new line."""
        return (self._log.descriptor, select.EPOLLIN) if self._log is not None else None

    def news(self) -> frozenset[str]:
        """What is in trouble is looked at at once: a file system goes read-only without an event of its own."""
        return frozenset(self._news)

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return all counts, when one has changed or it is time to; without the log they are unreadable."""
        self._blocks.learn()
        self._news.clear()
        try:
            self._log = self._log or self._open()
            changed = self._take(self._log, now)
        except OSError as error:
            self._close()
            reason = f"the kernel log cannot be read: {error.strerror}"
            lost = [Reading(item.signal, item.device, now, None, reason) for item in self._tally.readings(now)]
            return (*lost, sight(self.name, now, reason))
        if not changed and 0 <= now - self._told_at < 0.9 * self.poll_s:
            return ()
        self._told_at = now
        readings = self._tally.readings(now)
        if changed or self._tally.is_new or now - self._saved_at >= DAY_S:
            self._tally.save(now)
            self._saved_at = now
        return (*readings, sight(self.name, now))

    def _take(self, log: Log, now: float) -> bool:
        """Count the new lines, and say whether there was any that counts."""
        position = self._tally.position
        boot = boot_id()
        known = position.get("sequence", -1) if position.get("boot") == boot else -1
        lost_before, changed, last = log.lost, False, known
        for record in log.records():
            last = record.sequence
            if record.facility == KERNEL and record.sequence > known:
                changed = self._count(record, now) or changed
        if log.lost > lost_before:  # in a flood that is all the time: told with the next counts
            self._tally.add(LOST, THIS_HOST, now, log.lost - lost_before)
        position.update(boot=boot, sequence=max(last, known))
        return changed

    def _count(self, record: Record, now: float) -> bool:
        found = self._patterns.find(record.text)
        if found is None or found.pattern.signal in self._left_out() or self._is_repeated(found, now):
            return False
        device = self._naming.device(found, record)
        if device is None or is_ignored(device, self._ignored):
            return False
        if device.kind in NEWS_TO:
            self._news.add(NEWS_TO[device.kind])
        remark = record.text[:LONGEST_REMARK]
        if found.total is not None:
            self._tally.raise_to(found.pattern.signal, device, now, found.total, remark)
        else:
            self._tally.add(found.pattern.signal, device, now, remark=remark)
        return True

    def _is_repeated(self, found: Found, now: float) -> bool:
        key = found.once_key
        if not key:
            return False
        counted_at = self._seen.get(key)
        if counted_at is not None and now - counted_at < DAY_S:
            return True
        self._seen[key] = now
        self._seen.move_to_end(key)
        if len(self._seen) > MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _disk(self, name: str) -> Device | None:
        if name.startswith("b"):  # the DEVICE= field: b8:16, +scsi:0:0:0:0, +nvme:nvme0
            number = name[1:]
            there = self._sysfs / "dev/block" / number
            return self._blocks.disk(there.resolve().name) if there.exists() else None
        return self._blocks.disk(name.partition(":")[2] if name.startswith("+") else name)

    def _file_system(self, name: str) -> Device | None:
        try:
            mount = mounted_from(parse_mounts(MOUNTINFO.read_text()), name)
        except OSError:
            mount = None
        if mount is not None:
            return mount.file_system
        return Device(DeviceKind.FILE_SYSTEM, f"filesystem:{name}", name, {"device": f"/dev/{name}"})

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


class SavedLog:
    """A log that was saved as text, in the place of the kernel's."""

    descriptor = -1
    lost = 0

    def __init__(self, text: str) -> None:
        self._text = text

    def records(self) -> Iterator[Record]:
        """Return all lines."""
        return plain_lines(self._text)

    def close(self) -> None:
        """Nothing was opened."""


def read_log(text: str, patterns: Patterns, now: float) -> tuple[Reading, ...]:
    """Return what a saved log (dmesg, journalctl, syslog, /dev/kmsg) tells; devices are named as the log does.

    Each count comes with a zero just before it, as everything happened after the log began.
    """
    blocks = BlockDevices(Path("/nonexistent"))
    naming = Naming(
        lambda name: blocks.disk(name) or (_named(name) if name and not OTHERS.match(name) else None),
        lambda name: Device(DeviceKind.FILE_SYSTEM, f"filesystem:{name}", name),
    )
    reader = KernelLogReader(0.0, patterns, open_log=lambda: SavedLog(text), naming=naming, is_history=True)
    return reader.read(now)


def _named(name: str) -> Device:
    return Device(DeviceKind.DISK, f"disk:{name}", name)
