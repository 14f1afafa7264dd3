"""The journal: what this host intended and did in every migration, on disk before the next step begins.

SQLite with `synchronous=FULL`, so that a line that was written survives a power cut. Besides the lines it
holds one *decision* per migration: `commit` or `abort`. The first writer wins, whoever it is (the daemon
or, after the daemon's death, the shim that holds the frozen container), so that no two parties can ever
act on different decisions. `POINT_OF_NO_RETURN` is the row `commit`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from migrator.model import MigrationEvent, MigrationOutcome, Phase

SCHEMA = """
CREATE TABLE IF NOT EXISTS migration (
    id TEXT PRIMARY KEY, side TEXT NOT NULL, container TEXT NOT NULL, request TEXT NOT NULL,
    began_at REAL NOT NULL, outcome TEXT);
CREATE TABLE IF NOT EXISTS line (
    number INTEGER PRIMARY KEY AUTOINCREMENT, migration TEXT NOT NULL REFERENCES migration(id),
    at REAL NOT NULL, phase TEXT NOT NULL, event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS line_of_migration ON line(migration);
CREATE TABLE IF NOT EXISTS decision (
    migration TEXT PRIMARY KEY, word TEXT NOT NULL CHECK (word IN ('commit', 'abort')), at REAL NOT NULL);
"""


class Side(StrEnum):
    """Which end of a migration this host is."""

    SOURCE = "source"
    TARGET = "target"


class Decision(StrEnum):
    """The one irrevocable word about a migration."""

    COMMIT = "commit"
    ABORT = "abort"


@dataclass(frozen=True)
class Entry:
    """One migration as the journal knows it; `request` is the JSON it began with."""

    migration: str
    side: Side
    container: str
    request: str
    began_at: float
    phase: Phase
    decision: Decision | None
    outcome: MigrationOutcome | None


class Journal:
    """The journal in one file; safe to share between threads and, through SQLite, between processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._transaction() as database:
            database.executescript(SCHEMA)

    def begin(self, migration: str, side: Side, container: str, request: str) -> None:
        """Record that a migration was asked for, before anything is done for it; idempotent."""
        with self._transaction() as database:
            database.execute(
                "INSERT OR IGNORE INTO migration VALUES (?, ?, ?, ?, ?, NULL)",
                (migration, side, container, request, time.time()),
            )

    def write(self, event: MigrationEvent) -> None:
        """Add one line; on return it is on disk."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO line (migration, at, phase, event) VALUES (?, ?, ?, ?)",
                (event.migration, event.at, event.phase, event.model_dump_json()),
            )

    def decide(self, migration: str, word: Decision) -> Decision:
        """Write the decision unless there is one; return the one that holds, on disk."""
        with self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO decision VALUES (?, ?, ?)", (migration, word, time.time()))
            row = database.execute("SELECT word FROM decision WHERE migration = ?", (migration,)).fetchone()
        return Decision(row[0])

    def decision(self, migration: str) -> Decision | None:
        """Return the decision that holds, None while there is none."""
        with self._transaction() as database:
            row = database.execute("SELECT word FROM decision WHERE migration = ?", (migration,)).fetchone()
        return Decision(row[0]) if row else None

    def finish(self, outcome: MigrationOutcome) -> None:
        """Record how a migration ended."""
        with self._transaction() as database:
            database.execute(
                "UPDATE migration SET outcome = ? WHERE id = ?",
                (outcome.model_dump_json(), outcome.migration),
            )

    def entries(self, *, unfinished: bool = False, limit: int = 1000) -> tuple[Entry, ...]:
        """Return migrations, newest first; with `unfinished`, only those without an outcome."""
        where = "WHERE outcome IS NULL" if unfinished else ""
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT id, side, container, request, began_at, outcome FROM migration {where} "  # noqa: S608  no input in it
                "ORDER BY began_at DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return tuple(self._entry(database, row) for row in rows)

    def entry(self, migration: str) -> Entry | None:
        """Return one migration, None when the journal does not know it."""
        with self._transaction() as database:
            row = database.execute(
                "SELECT id, side, container, request, began_at, outcome FROM migration WHERE id = ?",
                (migration,),
            ).fetchone()
            return self._entry(database, row) if row else None

    def events(self, migration: str) -> tuple[MigrationEvent, ...]:
        """Return the lines of one migration in the order they were written."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT event FROM line WHERE migration = ? ORDER BY number", (migration,)
            ).fetchall()
        return tuple(MigrationEvent.model_validate_json(row[0]) for row in rows)

    def _entry(self, database: sqlite3.Connection, row: tuple[str, str, str, str, float, str | None]) -> Entry:
        migration, side, container, request, began_at, outcome = row
        last = database.execute(
            "SELECT phase FROM line WHERE migration = ? ORDER BY number DESC LIMIT 1", (migration,)
        ).fetchone()
        word = database.execute("SELECT word FROM decision WHERE migration = ?", (migration,)).fetchone()
        return Entry(
            migration=migration,
            side=Side(side),
            container=container,
            request=request,
            began_at=began_at,
            phase=Phase(last[0]) if last else Phase.PREPARE,
            decision=Decision(word[0]) if word else None,
            outcome=MigrationOutcome.parse(outcome) if outcome else None,
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            database = sqlite3.connect(self._path, timeout=10)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
            finally:
                database.close()
