"""The readings of the past on disk, so that growth, windows and hysteresis survive a restart.

SQLite; one row for each run of readings of the same value (see `series`). A change is written at once; that
nothing has changed is written every five minutes, so a crash costs at most the last confirmations. What is older
than `keep_days`, or does not fit into `keep_mb`, is forgotten, the oldest first. 24 disks, 64 DIMMs and 200
sensors whose every reading differs take some 140 MB in 90 days (`./run bench history`).
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import KnownDisk, Remembered
from watchdog.signals.series import THINNED, ReadingHistory, Run, Series, SeriesKey, append, thinned

VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, signal TEXT NOT NULL, identity TEXT NOT NULL, kind TEXT NOT NULL,
    name TEXT NOT NULL, about TEXT NOT NULL, UNIQUE (signal, identity));
CREATE TABLE IF NOT EXISTS run (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL REFERENCES series(id), at REAL NOT NULL, until REAL NOT NULL,
    readings INTEGER NOT NULL, value REAL, reason TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS run_of_series ON run(series, until);
CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, at REAL NOT NULL);
"""
SELECT = """
SELECT signal, identity, kind, name, about, run.id, at, until, readings, value, reason
FROM run JOIN series ON series.id = run.series WHERE {} ORDER BY series.id, run.id"""

NEWEST_KNOWN = "run.id IN (SELECT max(id) FROM run WHERE value IS NOT NULL AND until >= ? GROUP BY series)"

DAY_S = 86400.0
FLUSH_S = 300.0  # how much of "nothing has changed" a crash may cost
PRUNE_S = 3600.0
CACHE_KIB = 512  # SQLite would take 2 MiB, of which writing a few rows a minute has no use
NOT_TOLD = ("smart.unresponsive", "smart.reading_age")  # said about a drive by the reader, not by the drive
TRUSTED = (
    "hwmon.fan_failed",
    "hwmon.voltage_out_of_range",
    "ipmi.critical",
    "power.supply_failed",
    "power.redundancy_lost",
)
"""Told only about what was in order once; what told them once, can fail after a restart."""

REMEMBERED_S = 7 * DAY_S  # how long a disk that is not seen any more stays in the inventory
DROPPED_SHARE = 0.1  # of the time kept, when the file is too large

_log = logging.getLogger(__name__)


@dataclass
class _Tail:
    """The newest run of a series: its rows, and whether it has grown since it was written."""

    series: int
    row: int
    runs: list[Run]  # exactly one
    device: Device
    grown: bool = False


class ReadingStore:
    """Readings on disk; safe to share between threads.

    A store that fails (a full disk, a damaged file) costs the past, never the present: a damaged file is put
    aside and a new one begun, and what cannot be written is logged and dropped.
    """

    def __init__(self, path: Path, keep_days: float, keep_mb: float = 200.0) -> None:
        self._keep_s = keep_days * DAY_S
        self._keep_bytes = keep_mb * 1e6
        self._lock = threading.Lock()
        self._failing = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = _open(path)
        self._tails = self._read_tails()
        self._flushed_at = self._pruned_at = max((tail.runs[0].until for tail in self._tails.values()), default=0.0)

    def append(self, readings: Sequence[Reading]) -> None:
        """Store readings."""
        newest = max((reading.at for reading in readings), default=self._flushed_at)
        with self._writing():
            for reading in readings:
                self._take(reading)
            if abs(newest - self._flushed_at) >= FLUSH_S:
                self._flush()
                self._flushed_at = newest
        if abs(newest - self._pruned_at) >= PRUNE_S:
            self.prune(newest)

    def history(self, since: float = 0.0, signals: Iterable[str] | None = None) -> ReadingHistory:
        """Return all runs that reach beyond a time (Unix seconds), of some signals or of all."""
        chosen = tuple(signals or ())
        where = "until >= ?" if signals is None else f"until >= ? AND signal IN ({', '.join('?' * len(chosen))})"
        with self._writing():
            self._flush()
        with self._lock:
            found = self._stored(where, (since, *chosen))
        series = {
            key: Series(key[0], device, tuple(run for _, run in rows)) for key, (device, rows) in found.items()
        }
        return ReadingHistory(series)

    def newest(self) -> ReadingHistory:
        """Return only the newest run of each series."""
        with self._lock:
            tails = {key: (tail.device, tuple(tail.runs)) for key, tail in self._tails.items() if tail.runs}
        return ReadingHistory({key: Series(key[0], *found) for key, found in tails.items()})

    def remembered(self, now: float) -> Remembered:
        """Return what readers have told in the last seven days, by the newest value of each series."""
        with self._writing():
            self._flush()
        with self._lock:
            found = self._stored(NEWEST_KNOWN, (now - REMEMBERED_S,))
        recent = [Series(key[0], device, tuple(run for _, run in rows)) for key, (device, rows) in found.items()]
        return Remembered(
            disks=tuple(_known_disks(recent)),
            trusted=frozenset(item.device.identity for item in recent if item.signal in TRUSTED),
            told=tuple((item.signal, item.device) for item in recent),
        )

    def forget(self, identity: str) -> None:
        """Forget all readings of a device."""
        with self._writing():
            where = "series IN (SELECT id FROM series WHERE identity = ?)"
            self._database.execute(f"DELETE FROM run WHERE {where}", (identity,))  # noqa: S608  no value in it
            self._tails = {key: tail for key, tail in self._tails.items() if key[1] != identity}

    def prune(self, now: float) -> None:
        """Thin out what is old, and forget what is too old or too much."""
        self._pruned_at = now
        with self._writing():
            for bucket_s, age_s in THINNED:
                self._thin(bucket_s, now - age_s)
            self._drop(now - self._keep_s)
            if self._used_bytes() > self._keep_bytes:
                oldest = self._database.execute("SELECT min(until) FROM run").fetchone()[0] or now
                _log.warning("the readings take more than keep_mb: the oldest are forgotten")
                self._drop(oldest + (now - oldest) * DROPPED_SHARE)

    def used_bytes(self) -> int:
        """Return how much of the file is in use."""
        with self._lock:
            return self._used_bytes()

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        with self._writing():
            self._flush()
        with self._lock:
            self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the lock and a transaction; an error is logged once until the next success."""
        with self._lock:
            try:
                with self._database:
                    yield
            except sqlite3.Error as error:
                self._tails.clear()  # what the transaction that was rolled back had added
                if not self._failing:
                    _log.error("readings cannot be stored, and are lost at the next restart: %s", error)
                self._failing = True
            else:
                self._failing = False

    def _take(self, reading: Reading) -> None:
        tail = self._tail(reading)
        if tail.runs and tail.runs[-1].until > reading.at:
            self._flush_one(tail)
            self._set_back(tail.series, reading.at)
        before = tail.runs[:]
        if not append(tail.runs, reading):
            tail.grown = True
            return
        if tail.grown:
            self._write(tail.row, before[0])
        run = tail.runs[-1]
        row = (tail.series, run.at, run.until, run.readings, run.value, run.reason)
        added = self._database.execute("INSERT INTO run VALUES (NULL, ?, ?, ?, ?, ?, ?)", row)
        tail.row, tail.runs, tail.grown = added.lastrowid or 0, [run], False

    def _tail(self, reading: Reading) -> _Tail:
        """Return the newest run of a reading's series, which is made when it is new."""
        key = (reading.signal, reading.device.identity)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = _Tail(self._number(reading), 0, [], reading.device)
        elif tail.device != reading.device:
            tail.device = reading.device
            self._number(reading)
        return tail

    def _write(self, row: int, run: Run) -> None:
        self._database.execute(
            "UPDATE run SET at = ?, until = ?, readings = ?, reason = ? WHERE id = ?",
            (run.at, run.until, run.readings, run.reason, row),
        )

    def _set_back(self, series: int, at: float) -> None:
        self._database.execute(
            "UPDATE run SET at = min(at, ?), until = ? WHERE series = ? AND until > ?", (at, at, series, at)
        )

    def _flush(self) -> None:
        for tail in self._tails.values():
            self._flush_one(tail)

    def _flush_one(self, tail: _Tail) -> None:
        if tail.grown:
            self._write(tail.row, tail.runs[0])
            tail.grown = False

    def _number(self, reading: Reading) -> int:
        """Return the number of a reading's series; what is known of its device is brought up to date."""
        device = reading.device
        row = (reading.signal, device.identity, device.kind, device.name, json.dumps(dict(device.about)))
        found = self._database.execute(
            "INSERT INTO series VALUES (NULL, ?, ?, ?, ?, ?) ON CONFLICT (signal, identity) DO UPDATE SET "
            "kind = excluded.kind, name = excluded.name, about = excluded.about RETURNING id",
            row,
        )
        return int(found.fetchone()[0])

    def _thin(self, bucket_s: float, before: float) -> None:
        """Thin the rows that have come of age since the last time."""
        name = f"thinned {bucket_s:g}"
        done = self._database.execute("SELECT at FROM mark WHERE name = ?", (name,)).fetchone()
        since = (done[0] if done else 0.0) - bucket_s
        newest = {tail.row for tail in self._tails.values()}
        for _, rows in self._stored("until >= ? AND until < ?", (since, before)).values():
            aged = [(row, run) for row, run in rows if row not in newest]
            kept = iter(thinned([run for _, run in aged], before, bucket_s))
            following = next(kept, None)
            for row, run in aged:
                if following is None or (following.at, following.until, following.value) != run[:2] + run[3:4]:
                    self._database.execute("DELETE FROM run WHERE id = ?", (row,))
                    continue
                if following.readings != run.readings:
                    self._write(row, following)
                following = next(kept, None)
        self._database.execute("INSERT OR REPLACE INTO mark VALUES (?, ?)", (name, before))

    def _drop(self, before: float) -> None:
        self._database.execute("DELETE FROM run WHERE until < ?", (before,))
        self._database.execute("DELETE FROM series WHERE id NOT IN (SELECT series FROM run)")
        alive = {row for (row,) in self._database.execute("SELECT max(id) FROM run GROUP BY series")}
        self._tails = {key: tail for key, tail in self._tails.items() if tail.row in alive}

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _read_tails(self) -> dict[SeriesKey, _Tail]:
        found = self._stored("run.id IN (SELECT max(id) FROM run GROUP BY series)", ())
        numbers = {(signal, identity): number for number, signal, identity in self._database.execute(
            "SELECT id, signal, identity FROM series"
        )}  # fmt: skip
        return {
            key: _Tail(numbers[key], *rows[0][:1], [rows[0][1]], device) for key, (device, rows) in found.items()
        }

    def _stored(
        self, where: str, values: Sequence[object]
    ) -> dict[SeriesKey, tuple[Device, list[tuple[int, Run]]]]:
        """Return device and numbered runs of each series, oldest first."""
        found: dict[SeriesKey, tuple[Device, list[tuple[int, Run]]]] = {}
        try:
            for signal, identity, kind, name, about, row, *run in self._database.execute(
                SELECT.format(where), values
            ):
                if (signal, identity) not in found:
                    found[signal, identity] = (Device(DeviceKind(kind), identity, name, json.loads(about)), [])
                found[signal, identity][1].append((row, Run(*run)))
        except (sqlite3.DatabaseError, ValueError) as error:
            _log.error("the readings of the past cannot be read: %s", error)
            return {}
        return found


def _known_disks(recent: Iterable[Series]) -> Iterable[KnownDisk]:
    """Return the disks that may be missed, and what each told. Pure."""
    counted: dict[str, Device] = {}
    told: dict[str, dict[str, float]] = {}
    for series in recent:
        if series.device.kind is not DeviceKind.DISK or not series.known:
            continue
        if series.signal == "disk.missing":
            counted[series.device.identity] = series.device
        elif series.signal.startswith("smart.") and series.signal not in NOT_TOLD:
            told.setdefault(series.device.identity, {})[series.signal] = series.known[-1].until
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
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA synchronous = NORMAL")  # a crash of the host may cost the last seconds, no more
        database.executescript(SCHEMA)
        database.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
