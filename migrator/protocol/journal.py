"""The journal: what this host intended and did in every migration, on disk before the next step begins.

SQLite with `synchronous=FULL`, so that a line that was written survives a power cut. Besides the lines it
holds one *decision* per migration: `commit` or `abort`, and one *fate* where
a commit did not end well. The first writer wins, whoever it is (the daemon or, after the daemon's death, the shim
that holds the frozen container), so that no two parties can ever act on different decisions. `POINT_OF_NO_RETURN`
is the row `commit`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from migrator import terms
from migrator.errors import ExecutionError, JournalBusyError
from migrator.model import MigrationEvent, MigrationOutcome, Phase

SCHEMA = """
CREATE TABLE IF NOT EXISTS migration (
    id TEXT PRIMARY KEY, side TEXT NOT NULL, container TEXT NOT NULL, request TEXT NOT NULL,
    began_at REAL NOT NULL, outcome TEXT, settled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS line (
    number INTEGER PRIMARY KEY AUTOINCREMENT, migration TEXT NOT NULL REFERENCES migration(id),
    at REAL NOT NULL, phase TEXT NOT NULL, event TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS line_of_migration ON line(migration);
CREATE TABLE IF NOT EXISTS decision (
    migration TEXT PRIMARY KEY, word TEXT NOT NULL CHECK (word IN ('commit', 'abort')), at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS fate (migration TEXT PRIMARY KEY, word TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS ownership (container TEXT PRIMARY KEY, epoch INTEGER NOT NULL);
"""

LOCK_WAIT_S = 10.0
"""How long a thread waits for another one's row: as long as SQLite waits for another process.

Sick disks need seconds for a row, and hosts with such disks are the ones to be emptied.
"""

DECISION_WAIT_S = 2.0
"""The same for a decision, for a container stands frozen meanwhile.

A row takes a slow disk some 50 ms, and those that other migrations write at the same time are through by then.
A write that has begun is never cut short.
"""

Side = terms.Side


class Decision(StrEnum):
    """The one irrevocable word about a migration."""

    COMMIT = "commit"
    ABORT = "abort"


class Fate(StrEnum):
    """What became of a committed migration that did not end by itself: one more irrevocable word."""

    RESUME = "resume"  # source: a human let the container run here again
    RELEASE = "release"  # source: its target needs nothing more for any member of its pod
    FORGET = "forget"  # a human threw away what is here
    YIELD = "yield"  # target: it shall never run here, for a human resumes it at the source
    FALL_BACK = "fall back"  # target: started anew, or left down, as its fallback says


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
    fate: Fate | None
    outcome: MigrationOutcome | None
    settled: bool  # nothing is left to do, for anybody


Row = tuple[str, str, str, str, float, str | None, int]


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
                "INSERT OR IGNORE INTO migration VALUES (?, ?, ?, ?, ?, NULL, 0)",
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
        return Decision(self._first("decision", migration, word))

    def decide_all(self, migrations: Sequence[str], word: Decision) -> Decision:
        """Write one decision for all of a pod, or none: a word that any of them has holds for all. On disk.

        Raises `JournalBusyError` when nothing was written, nor will be; after any other error nobody knows.
        """
        return Decision(self._first_of_all("decision", migrations, word, DECISION_WAIT_S))

    def decision(self, migration: str) -> Decision | None:
        """Return the decision that holds, None while there is none."""
        with self._transaction() as database:
            word = _word(database, "decision", migration)
        return Decision(word) if word else None

    def seal(self, migration: str, word: Fate) -> Fate:
        """Write the fate of a committed migration unless it has one; return the one that holds, on disk."""
        return Fate(self._first("fate", migration, word))

    def seal_all(self, migrations: Sequence[str], word: Fate) -> Fate:
        """As `decide_all`, for the fate of all of a pod."""
        return Fate(self._first_of_all("fate", migrations, word))

    def fate(self, migration: str) -> Fate | None:
        """Return the fate that holds, None while there is none."""
        with self._transaction() as database:
            word = _word(database, "fate", migration)
        return Fate(word) if word else None

    def epoch(self, container: str) -> int:
        """Return the latest epoch of a container (its id) that this host has heard of; 0 when it has not moved."""
        with self._transaction() as database:
            row = database.execute("SELECT epoch FROM ownership WHERE container = ?", (container,)).fetchone()
        return int(row[0]) if row else 0

    def learn_epoch(self, container: str, epoch: int) -> None:
        """Remember an epoch; an older one changes nothing."""
        with self._transaction() as database:
            database.execute(
                "INSERT INTO ownership VALUES (?, ?) ON CONFLICT (container) DO UPDATE "
                "SET epoch = max(epoch, excluded.epoch)",
                (container, epoch),
            )

    def finish(self, outcome: MigrationOutcome, *, settled: bool = True) -> None:
        """Record how a migration ended; one that is not settled is still looked after."""
        with self._transaction() as database:
            database.execute(
                "UPDATE migration SET outcome = ?, settled = ? WHERE id = ?",
                (outcome.model_dump_json(), int(settled), outcome.migration),
            )

    def forget_kept(self, container: str, latest: str) -> None:
        """Forget the checkpoints of a container (its name) before the latest: there may be one every minute."""
        old = (
            "SELECT id FROM migration WHERE settled = 1 AND container = ? AND id != ? "
            "AND json_extract(outcome, '$.phase') = ?"
        )
        chosen = (container, latest, Phase.KEPT)
        with self._transaction() as database:
            for table, column in (("line", "migration"), ("decision", "migration"), ("migration", "id")):
                database.execute(f"DELETE FROM {table} WHERE {column} IN ({old})", chosen)  # noqa: S608  constants

    def entries(self, *, unfinished: bool = False, limit: int = 1000) -> tuple[Entry, ...]:
        """Return migrations, newest first; with `unfinished`, only those that are not settled."""
        where = "WHERE settled = 0" if unfinished else ""
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT id, side, container, request, began_at, outcome, settled FROM migration {where} "  # noqa: S608  no input in it
                "ORDER BY began_at DESC LIMIT ?",
                (limit,),
            ).fetchall()
            return tuple(self._entry(database, row) for row in rows)

    def entry(self, migration: str) -> Entry | None:
        """Return one migration, None when the journal does not know it."""
        with self._transaction() as database:
            row = database.execute(
                "SELECT id, side, container, request, began_at, outcome, settled FROM migration WHERE id = ?",
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

    def _first(self, table: str, migration: str, word: str) -> str:
        """Insert a word unless there is one; return the one that stands there."""
        with self._transaction() as database:
            insert = f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)"  # noqa: S608  no input in it
            database.execute(insert, (migration, word, time.time()))
            return _word(database, table, migration)

    def _first_of_all(self, table: str, migrations: Sequence[str], word: str, wait_s: float | None = None) -> str:
        """Insert one word for all of them, in one transaction: the first that any has, or else this one."""
        with self._transaction(wait_s) as database:
            database.execute("BEGIN IMMEDIATE")  # or another process could write between the look and the words
            holds = one_word([_word(database, table, item) for item in migrations], word)
            insert = f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)"  # noqa: S608  no input in it
            database.executemany(insert, [(item, holds, time.time()) for item in migrations])
            return holds

    def _entry(self, database: sqlite3.Connection, row: Row) -> Entry:
        migration, side, container, request, began_at, outcome, settled = row
        last = database.execute(
            "SELECT phase FROM line WHERE migration = ? ORDER BY number DESC LIMIT 1", (migration,)
        ).fetchone()
        word, fate = (_word(database, table, migration) for table in ("decision", "fate"))
        return Entry(
            migration=migration,
            side=Side(side),
            container=container,
            request=request,
            began_at=began_at,
            phase=Phase(last[0]) if last else Phase.PREPARE,
            decision=Decision(word) if word else None,
            fate=Fate(fate) if fate else None,
            outcome=MigrationOutcome.parse(outcome) if outcome else None,
            settled=bool(settled),
        )

    @contextmanager
    def _transaction(self, wait_s: float | None = None) -> Iterator[sqlite3.Connection]:
        """Have the journal within `wait_s` seconds (`LOCK_WAIT_S`), or raise `JournalBusyError`."""
        wait_s = LOCK_WAIT_S if wait_s is None else wait_s
        if not self._lock.acquire(timeout=wait_s):
            why = f"the journal {self._path} is not free after {wait_s:g} s: its disk hangs"
            raise JournalBusyError(why, code="journal", temporary=True)
        try:
            with closing(sqlite3.connect(self._path, timeout=10)) as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise ExecutionError(
                f"the journal {self._path} cannot be used: {error}", code="journal", temporary=True
            ) from error
        finally:
            self._lock.release()


def one_word(words: Sequence[str | None], wanted: str) -> str:
    """Return the word that holds for all of a pod: the first that any of them has, or else the wanted one."""
    return next(filter(None, words), wanted)


def _word(database: sqlite3.Connection, table: str, migration: str) -> str:
    query = f"SELECT word FROM {table} WHERE migration = ?"  # noqa: S608  no input in it
    row = database.execute(query, (migration,)).fetchone()
    return str(row[0]) if row else ""
