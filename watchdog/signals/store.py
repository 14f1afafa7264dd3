"""The readings of the past, so that growth, windows and hysteresis survive a restart.

SQLite; at most `keep_days`. Of each signal of each device are stored: every change, the first readings of a
new value (for "in N successive readings"), and one reading an hour while nothing changes. Signals that never
stand still (temperatures, speeds, voltages) are stored every five minutes and for seven days. Growth and spans
come out the same, and the file stays small: a reading takes 30 bytes, 40 sensors and 10 disks 13 MB in 90 days.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import KnownDisk, Remembered

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, signal TEXT NOT NULL, restless INTEGER NOT NULL, kind TEXT NOT NULL,
    identity TEXT NOT NULL, name TEXT NOT NULL, about TEXT NOT NULL,
    UNIQUE (signal, kind, identity, name, about));
CREATE TABLE IF NOT EXISTS reading (
    series INTEGER NOT NULL REFERENCES series(id), at REAL NOT NULL, value REAL, reason TEXT NOT NULL,
    PRIMARY KEY (series, at)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reading_at ON reading(at);
"""
SELECT = """
SELECT series, signal, kind, identity, name, about, at, value, reason
FROM reading JOIN series ON series.id = reading.series WHERE {} ORDER BY at"""

SAMPLE_S = 3600.0
RESTLESS_S = 300.0
RESTLESS_KEEP_S = 7 * 86400.0  # no policy looks further back on these; for curves there is /metrics
RESTLESS_UNITS = ("celsius", "rpm", "volt", "watt", "seconds")
ALWAYS_KEPT = 3  # a new value is stored so often in a row, for "in N successive readings"
DAY_S = 86400.0
NOT_TOLD = ("smart.unresponsive", "smart.reading_age")  # said about a drive by the reader, not by the drive
REMEMBERED_S = 7 * DAY_S  # how long a disk that is not seen any more stays in the inventory

_log = logging.getLogger(__name__)


class ReadingStore:
    """Readings on disk; safe to share between threads.

    A store that fails (a full disk, a damaged file) costs the past, never the present: a damaged file is put
    aside and a new one begun, and what cannot be written is logged and dropped.
    """

    def __init__(self, path: Path, keep_days: float) -> None:
        self._keep_s = keep_days * DAY_S
        self._lock = threading.Lock()
        self._last: dict[tuple[str, str], tuple[float | None, float, int]] = {}
        self._series: dict[tuple[str, ...], int] = {}
        self._pruned_at = 0.0
        self._failing = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = _open(path)

    def append(self, readings: Sequence[Reading]) -> None:
        """Store what is worth storing, and forget what is too old."""
        with self._lock:
            try:
                with self._database:
                    self._write(readings)
            except sqlite3.Error as error:
                self._series.clear()  # what the transaction that was rolled back had added
                self._last.clear()
                if not self._failing:
                    _log.error("readings cannot be stored, and are lost at the next restart: %s", error)
                self._failing = True
            else:
                self._failing = False

    def since(self, at: float) -> tuple[Reading, ...]:
        """Return the stored readings from a time (Unix seconds) on, oldest first."""
        return self._select("at >= ?", (at,))

    def series(self, signal: str, identity: str, since: float = 0.0) -> tuple[Reading, ...]:
        """Return the stored readings of one signal of one device, oldest first."""
        return self._select("signal = ? AND identity = ? AND at >= ?", (signal, identity, since))

    def remembered(self, now: float) -> Remembered:
        """Return what readers knew of disks and sensors in the last seven days."""
        recent = self.since(now - REMEMBERED_S)
        return Remembered(
            disks=tuple(_known_disks(recent)),
            trusted=frozenset(
                reading.device.identity
                for reading in recent
                if reading.readable and reading.signal in ("hwmon.fan_failed", "hwmon.voltage_out_of_range")
            ),
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _select(self, where: str, values: tuple[object, ...]) -> tuple[Reading, ...]:
        with self._lock:
            try:
                rows = self._database.execute(SELECT.format(where), values).fetchall()
            except sqlite3.DatabaseError as error:
                _log.error("the readings of the past cannot be read: %s", error)
                return ()
        return _readings(rows)

    def _write(self, readings: Sequence[Reading]) -> None:
        for reading in readings:
            key = (reading.signal, reading.device.identity)
            last = self._last.get(key)
            repeated = last[2] + 1 if last is not None and last[0] == reading.value else 0
            if last is not None and not _is_worth(reading, last, repeated):
                self._last[key] = (last[0], last[1], repeated)
                continue
            self._last[key] = (reading.value, reading.at, repeated)
            row = (self._number(reading), reading.at, reading.value, reading.reason)
            self._database.execute("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", row)
        newest = max((reading.at for reading in readings), default=0.0)
        if newest - self._pruned_at >= SAMPLE_S:
            self._pruned_at = newest
            self._prune(newest)

    def _prune(self, now: float) -> None:
        self._database.execute("DELETE FROM reading WHERE at < ?", (now - self._keep_s,))
        restless = "SELECT id FROM series WHERE restless"
        where = f"series IN ({restless}) AND at < ?"
        self._database.execute(f"DELETE FROM reading WHERE {where}", (now - RESTLESS_KEEP_S,))  # noqa: S608

    def _number(self, reading: Reading) -> int:
        """Return the number of a reading's series, which is made when it is new."""
        device = reading.device
        about = json.dumps(dict(device.about), sort_keys=True)
        key = (reading.signal, str(device.kind), device.identity, device.name, about)
        if key not in self._series:
            row = (reading.signal, _is_restless(reading.signal), *key[1:])
            self._database.execute("INSERT OR IGNORE INTO series VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
            where = "signal = ? AND kind = ? AND identity = ? AND name = ? AND about = ?"
            found = self._database.execute(f"SELECT id FROM series WHERE {where}", key)  # noqa: S608
            self._series[key] = found.fetchone()[0]
        return self._series[key]


def _is_restless(signal: str) -> bool:
    return signal in CATALOG and CATALOG[signal].unit in RESTLESS_UNITS


def _is_worth(reading: Reading, last: tuple[float | None, float, int], repeated: int) -> bool:
    """Say whether a reading is stored, given the last stored one (value, time, repetitions). Pure."""
    value, at, _ = last
    if _is_restless(reading.signal) and reading.readable and value is not None:
        return reading.at - at >= (SAMPLE_S if reading.value == value else RESTLESS_S)
    return reading.value != value or repeated < ALWAYS_KEPT or reading.at - at >= SAMPLE_S


def _known_disks(readings: Iterable[Reading]) -> Iterable[KnownDisk]:
    """Return the disks that may be missed, and what each told. Pure."""
    counted: dict[str, Device] = {}
    told: dict[str, dict[str, float]] = {}
    for reading in readings:
        if reading.device.kind is not DeviceKind.DISK or not reading.readable:
            continue
        if reading.signal == "disk.missing":
            counted[reading.device.identity] = reading.device
        elif reading.signal.startswith("smart.") and reading.signal not in NOT_TOLD:
            told.setdefault(reading.device.identity, {})[reading.signal] = reading.at
    for identity, device in counted.items():
        signals = told.get(identity, {})
        yield KnownDisk(device, max(signals.values(), default=0.0), frozenset(signals))


def _open(path: Path) -> sqlite3.Connection:
    try:
        return _connect(str(path))
    except sqlite3.OperationalError as error:
        _log.error(
            "%s cannot be opened (%s): readings are kept in memory, and lost at the next restart", path, error
        )
        return _connect(":memory:")
    except sqlite3.DatabaseError as error:
        aside = path.with_name(f"{path.name}.damaged")
        _log.error("%s is damaged (%s): put aside as %s, and a new one begun", path, error, aside.name)
        path.replace(aside)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connect(str(path))


def _connect(path: str) -> sqlite3.Connection:
    """Open the file; an unknown or older layout counts as damaged."""
    database = sqlite3.connect(path, check_same_thread=False)
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        filled = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if filled and version != VERSION:
            raise sqlite3.DatabaseError(f"layout {version}, and {VERSION} is needed")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(SCHEMA)
        database.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _readings(rows: Iterable[tuple[Any, ...]]) -> tuple[Reading, ...]:
    devices: dict[int, Device] = {}
    readings = []
    for number, signal, kind, identity, name, about, at, value, reason in rows:
        if number not in devices:
            devices[number] = Device(DeviceKind(kind), identity, name, json.loads(about))
        readings.append(Reading(signal, devices[number], at, value, reason))
    return tuple(readings)
