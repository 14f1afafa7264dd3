"""The outbox: events wait on disk until their receiver has taken them, each once.

SQLite with `synchronous=FULL`. An event is put in with one row for each receiver; a row leaves by being
marked delivered in the same transaction in which that is noticed, or given up after too many attempts.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from watchdog.alerts.model import Event

SCHEMA = """
CREATE TABLE IF NOT EXISTS parcel (
    event TEXT NOT NULL, url TEXT NOT NULL, body TEXT NOT NULL, put_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, next_at REAL NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    error TEXT NOT NULL DEFAULT '', PRIMARY KEY (event, url));
"""
COLUMNS = ("event", "url", "body", "put_at", "attempts", "next_at", "state", "error")
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 900.0
KEPT_S = 30 * 86400.0  # delivered parcels are remembered this long


Row = tuple[object, ...]
"""A parcel as it is stored, by `COLUMNS`."""


@dataclass(frozen=True)
class Parcel:
    """One event for one receiver."""

    event: Event
    url: str
    attempts: int


class Outbox:
    """Parcels on disk, or in memory without a path; safe to share between threads."""

    def __init__(self, path: Path | None) -> None:
        self._lock = threading.Lock()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = sqlite3.connect(path or ":memory:", check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(SCHEMA)

    def put(self, event: Event, urls: tuple[str, ...]) -> None:
        """Keep an event for its receivers; on return it is on disk. Putting it again changes nothing."""
        rows = [(event.id, url, event.model_dump_json(), event.at, event.at) for url in urls]
        with self._lock, self._database:
            self._database.executemany(
                "INSERT OR IGNORE INTO parcel (event, url, body, put_at, next_at) VALUES (?, ?, ?, ?, ?)", rows
            )
            self._database.execute(
                "DELETE FROM parcel WHERE state != 'waiting' AND put_at < ?", (event.at - KEPT_S,)
            )

    def due(self, now: float) -> tuple[Parcel, ...]:
        """Return the parcels to be delivered now, oldest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT body, url, attempts FROM parcel WHERE state = 'waiting' AND next_at <= ? ORDER BY put_at",
                (now,),
            ).fetchall()
        return tuple(Parcel(Event.model_validate_json(body), url, attempts) for body, url, attempts in rows)

    def next_at(self) -> float | None:
        """Return when the next parcel is due (Unix seconds), None while there is none."""
        with self._lock:
            row = self._database.execute("SELECT min(next_at) FROM parcel WHERE state = 'waiting'").fetchone()
        return None if row[0] is None else float(row[0])

    def delivered(self, parcel: Parcel) -> None:
        """The receiver has it."""
        self._mark(parcel, "delivered", "", 0.0, attempts=parcel.attempts + 1)

    def failed(self, parcel: Parcel, reason: str, now: float, limit: int) -> bool:
        """Delivery failed: try again later, or give up after `limit` attempts; return whether it was given up."""
        state = "given-up" if parcel.attempts + 1 >= limit else "waiting"
        self._mark(parcel, state, reason, now + self._pause_s(parcel), attempts=parcel.attempts + 1)
        return state == "given-up"

    def postpone(self, parcel: Parcel, reason: str, now: float) -> None:
        """Its receiver is down: look again after the usual pause, without counting an attempt."""
        self._mark(parcel, "waiting", reason, now + self._pause_s(parcel), attempts=parcel.attempts)

    def waiting(self) -> int:
        """Return how many parcels wait."""
        with self._lock:
            row = self._database.execute("SELECT count(*) FROM parcel WHERE state = 'waiting'").fetchone()
        return int(row[0])

    def has(self, parcel: Parcel) -> bool:
        """Say whether a parcel is here, whatever became of it."""
        with self._lock:
            found = self._database.execute(
                "SELECT 1 FROM parcel WHERE event = ? AND url = ?", (parcel.event.id, parcel.url)
            ).fetchone()
        return found is not None

    def rows(self) -> tuple[Row, ...]:
        """Return everything, for `take_over`."""
        with self._lock:
            return tuple(self._database.execute(f"SELECT {', '.join(COLUMNS)} FROM parcel"))  # noqa: S608  constants

    def take_over(self, rows: Sequence[Row]) -> None:
        """Take what another outbox has, which is newer than what is here of the same parcels."""
        insert = f"INSERT OR REPLACE INTO parcel ({', '.join(COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constants
        with self._lock, self._database:
            self._database.executemany(insert, rows)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM parcel")

    def drop_beyond(self, limit: int) -> int:
        """Keep so many parcels, the newest of those that wait before all others; return how many of these went."""
        before = self.waiting()
        with self._lock, self._database:
            self._database.execute(
                "DELETE FROM parcel WHERE rowid IN (SELECT rowid FROM parcel "
                "ORDER BY state != 'waiting', put_at DESC LIMIT -1 OFFSET ?)",
                (limit,),
            )
        return before - self.waiting()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _pause_s(self, parcel: Parcel) -> float:
        return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(parcel.attempts, 20))

    def _mark(self, parcel: Parcel, state: str, error: str, next_at: float, *, attempts: int) -> None:
        with self._lock, self._database:
            self._database.execute(
                "UPDATE parcel SET state = ?, error = ?, attempts = ?, next_at = ? WHERE event = ? AND url = ?",
                (state, error, attempts, next_at, parcel.event.id, parcel.url),
            )
