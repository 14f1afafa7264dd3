"""The readings of the past, so that rates, windows and hysteresis survive a restart.

SQLite; at most `keep_days`. A value that does not change is stored once an hour: growth and spans come out
the same, and the file stays small.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading

SCHEMA = """
CREATE TABLE IF NOT EXISTS reading (
    at REAL NOT NULL, signal TEXT NOT NULL, identity TEXT NOT NULL, value REAL, reason TEXT NOT NULL,
    device TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS reading_at ON reading(at);
"""
SAMPLE_S = 3600.0
ALWAYS_KEPT = 3  # a new value is stored so often in a row, for "in N successive readings"
DAY_S = 86400.0


class ReadingStore:
    """Readings on disk; safe to share between threads."""

    def __init__(self, path: Path, keep_days: float) -> None:
        self._keep_s = keep_days * DAY_S
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.executescript(SCHEMA)
        self._last: dict[tuple[str, str], tuple[float | None, float, int]] = {}

    def append(self, readings: Sequence[Reading]) -> None:
        """Store what is worth storing, and forget what is too old."""
        with self._lock, self._database:
            kept = [reading for reading in readings if self._worth(reading)]
            self._database.executemany("INSERT INTO reading VALUES (?, ?, ?, ?, ?, ?)", map(_row, kept))
            if readings:
                oldest = readings[-1].at - self._keep_s
                self._database.execute("DELETE FROM reading WHERE at < ?", (oldest,))

    def since(self, at: float) -> tuple[Reading, ...]:
        """Return the stored readings from a time on, oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT at, signal, value, reason, device FROM reading WHERE at >= ? ORDER BY at", (at,)
            ).fetchall()
        return tuple(_reading(*row) for row in rows)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _worth(self, reading: Reading) -> bool:
        key = (reading.signal, reading.device.identity)
        value, at, repeated = self._last.get(key, (None, 0.0, 0))
        same = key in self._last and value == reading.value
        repeated = repeated + 1 if same else 0
        if same and repeated >= ALWAYS_KEPT and reading.at - at < SAMPLE_S:
            self._last[key] = (reading.value, at, repeated)
            return False
        self._last[key] = (reading.value, reading.at, repeated)
        return True


def _row(reading: Reading) -> tuple[float, str, str, float | None, str, str]:
    device = {
        "kind": reading.device.kind,
        "identity": reading.device.identity,
        "name": reading.device.name,
        "about": dict(reading.device.about),
    }
    identity = reading.device.identity
    return reading.at, reading.signal, identity, reading.value, reading.reason, json.dumps(device)


def _reading(at: float, signal: str, value: float | None, reason: str, device: str) -> Reading:
    told = json.loads(device)
    where = Device(DeviceKind(told["kind"]), told["identity"], told["name"], told["about"])
    return Reading(signal, where, at, value, reason)
