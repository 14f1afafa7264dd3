"""Disks: how each of them is, and which do not answer.

`smart_scan` finds them, `smartctl --json=c -n standby,3 -d TYPE -x DEV` tells how they are, each asked in a
thread of its own with a time-out. A sleeping drive is left asleep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from migrator.command import CommandResult, run
from migrator.errors import CommandError, LifeboatError
from watchdog.signals.attempts import Attempts
from watchdog.signals.disks import is_pluggable
from watchdog.signals.inventory import (
    Asked,
    asked_disk,
    disk_at,
    learned,
    left_out,
    told_by,
    without_ghosts,
)
from watchdog.signals.model import Device, Reading
from watchdog.signals.reader import NOTHING_REMEMBERED, KnownDisk, Remembered, is_ignored, sight
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart_answer import Answer, Drive, parse_answer, refusal
from watchdog.signals.smart_scan import SCAN_TIMEOUT_S, scan

AT_ONCE = 8  # controllers and their cables are shared
GRACE_S = 5.0  # for a program that was killed to be gone

Question = Callable[[], Any]


class SmartReader:
    """Reads every drive of the host."""

    name = "smart"

    def __init__(
        self,
        settings: SignalSettings,
        *,
        sysfs: Path = Path("/sys"),
        remembered: Remembered = NOTHING_REMEMBERED,
        door: Callable[..., CommandResult] = run,
        find: Callable[[], Sequence[Drive]] = scan,
        patience_s: float | None = None,
    ) -> None:
        """`door` is the way to smartctl, `find` the scan for drives.

        `patience_s` is how long a program is waited for that cannot even be killed; it follows from the
        time-outs unless given.
        """
        self.poll_s = settings.smart_poll_s
        self._settings = settings
        self._sysfs = sysfs
        self._door, self._find = door, find
        self._extra = tuple(Drive(extra.device, extra.type) for extra in settings.drives)
        self._drives: tuple[Drive, ...] = self._extra
        self._attempts: Attempts[Any] = Attempts(AT_ONCE, settings.smart_timeout_s)
        self._limit_s = patience_s or max(2 * settings.smart_timeout_s, SCAN_TIMEOUT_S) + GRACE_S
        self._inventory = {
            known.device.identity: known
            for known in remembered.disks
            if not is_ignored(known.device, settings.ignored_devices)
        }
        self._awake: tuple[Drive, ...] = ()
        self._forgotten: set[str] = set()
        self._published: Mapping[str, KnownDisk] = dict(self._inventory)

    def forget(self, identity: str) -> None:
        """Forget a disk that was replaced, or taken out on purpose; from any thread."""
        self._forgotten.add(identity)
        self._published = {key: known for key, known in self._published.items() if key != identity}

    def awake(self) -> tuple[Drive, ...]:
        """Return the drives that told how they are at the last reading; from any thread."""
        return self._awake

    def inventory(self) -> Mapping[str, KnownDisk]:
        """Return the disks known after the last reading, by identity; from any thread."""
        return self._published

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of all drives; those of a drive that is gone are unreadable."""
        while self._forgotten:
            self._inventory.pop(self._forgotten.pop(), None)
        asked, blind = self._ask_all(now)
        readings: list[Reading] = []
        seen: set[str] = set()
        answered: set[str] = set()
        for item in sorted(asked, key=lambda item: item.answer is None):
            device = asked_disk(self._inventory, item)
            if device.identity in seen or is_ignored(device, self._settings.ignored_devices):
                continue  # seen: a second path to the same drive
            seen.add(device.identity)
            if item.is_there:
                answered.add(device.identity)
            readings += self._of_drive(item, device, now)
        names = frozenset(item.drive.name for item in asked)
        readings += left_out(self._inventory, frozenset(answered), names, now)
        self._published = dict(self._inventory)
        self._awake = tuple(item.drive for item in asked if item.answer is not None and not refusal(item.answer))
        if not (blind or asked):
            blind = "no disk of this host can tell how it is, as in a virtual machine"
        return (*readings, sight(self.name, now, blind))

    def _ask_all(self, now: float) -> tuple[list[Asked], str]:
        """Ask all drives, and return also why the scan failed, or an empty text.

        The drives known so far are asked while the scan runs, those that it adds after it. After a failed scan
        the drives of the last good one stand: a missing smartctl is no missing disk. A drive that the scan
        leaves out is still asked as long as its device file is there.
        """
        known = {drive.name: self._question(drive, now) for drive in self._drives}
        futures = self._attempts.run({"scan": self._find, **known}, self._limit_s)
        found, blind, _ = _outcome(futures["scan"], "the scan for drives does not end")
        drives = list(dict.fromkeys((*(found or ()), *self._extra)))
        listed = {drive.path for drive in drives}
        drives += [drive for drive in self._drives if drive.path not in listed and (blind or _exists(drive))]
        added = {drive.name: self._question(drive, now) for drive in drives if drive.name not in known}
        futures |= self._attempts.run(added, self._limit_s)
        self._drives = tuple(drives)
        return [self._asked(drive, futures[drive.name]) for drive in drives], blind

    def _question(self, drive: Drive, now: float) -> Question:
        known, limit_s = disk_at(self._inventory, drive.name), self._settings.smart_wake_after_s
        overdue = bool(limit_s and known and now - known.read_at >= limit_s)
        return lambda: self._ask(drive, wake=overdue)

    def _ask(self, drive: Drive, *, wake: bool) -> Answer:
        # 3 for a drive that sleeps: without it the status is 2, the same as for one that does not open
        power = "never" if wake else "standby,3"
        argv = ["smartctl", "--json=c", "-n", power, "-d", drive.type, "-x", drive.path]
        result = self._door(argv, timeout_s=self._settings.smart_timeout_s, check=False)
        try:
            return parse_answer(result.output)
        except ValueError as error:
            raise CommandError("smartctl answered something that is not JSON", code="not-json") from error

    def _asked(self, drive: Drive, future: Future[Any]) -> Asked:
        answer, reason, late = _outcome(future, "the drive does not answer, and smartctl cannot be ended")
        return Asked(drive, answer, reason, late)

    def _of_drive(self, asked: Asked, device: Device, now: float) -> list[Reading]:
        known = self._inventory.get(device.identity)
        if known is None:
            known = KnownDisk(device, now, pluggable=is_pluggable(asked.drive.path, self._sysfs))
        readings = told_by(asked, device, known, now)
        if asked.is_there:
            self._inventory = without_ghosts(self._inventory, device)
            self._inventory[device.identity] = learned(known, device, readings, now)
        known_to_be_late = asked.answer is not None or asked.timed_out
        late = float(asked.timed_out) if known_to_be_late else None
        return [*readings, Reading("smart.unresponsive", device, now, late, asked.reason)]


def _outcome(future: Future[Any], hung: str) -> tuple[Any, str, bool]:
    """Return the result, or why there is none, and whether that was for lack of time."""
    if not future.done():
        return None, hung, True
    error = future.exception()
    if error is None:
        return future.result(), "", False
    if isinstance(error, LifeboatError):
        return None, error.message, error.code == "command-timeout"
    raise error


def _exists(drive: Drive) -> bool:
    return Path(drive.path).exists()
