"""Sysfs and procfs: single files, which may vanish or refuse, and what their readers have in common."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from watchdog.signals.model import Reading
from watchdog.signals.reader import NOTHING_REMEMBERED, Remembered, is_ignored

PART_BYTES = 1 << 16


def load(path: Path | str) -> str:
    """Return a file's text; raises `OSError`.

    By the bare system calls, for a host has a thousand such files of a few bytes, and each is read every minute.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while part := os.read(descriptor, PART_BYTES):
            found += part
    finally:
        os.close(descriptor)
    return found.decode(errors="replace")


def read_text(path: Path | str) -> str:
    """Return a file's text without white space around it; empty when it cannot be read."""
    try:
        return load(path).strip()
    except OSError:
        return ""


def read_number(path: Path | str) -> int | None:
    """Return the whole number in a file; None when there is none."""
    try:
        return int(load(path))
    except (OSError, ValueError):
        return None


class SysfsReader:
    """A reader of places below /sys.

    `_trusted` are identities of what was seen in order before, so that it can fail; devices in `ignored` are left
    alone.
    """

    def __init__(
        self,
        poll_s: float,
        sysfs: Path = Path("/sys"),
        ignored: Sequence[str] = (),
        remembered: Remembered = NOTHING_REMEMBERED,
    ) -> None:
        self.poll_s = poll_s
        self._sysfs = sysfs
        self._ignored = tuple(ignored)
        self._trusted = set(remembered.trusted)

    def _kept(self, readings: Iterable[Reading]) -> tuple[Reading, ...]:
        """Return the readings of devices that are not to be left alone."""
        return tuple(item for item in readings if not is_ignored(item.device, self._ignored))
