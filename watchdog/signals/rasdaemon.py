"""What rasdaemon has recorded (its ras-record.c): a SQLite file, opened to be read only."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

DATABASE = Path("/var/lib/rasdaemon/ras-mc_event.db")
NEEDED = ("id", "status")
MOST_AT_ONCE = 10_000
REGISTER = (1 << 64) - 1  # registers are stored as signed numbers


@dataclass(frozen=True)
class MceRecord:
    """One machine check."""

    number: int
    status: int
    socket: int
    is_intel: bool
    message: str


@dataclass(frozen=True)
class Records:
    """New records, and the number of the last one."""

    rows: tuple[MceRecord, ...]
    last: int


class RasDatabase:
    """The table of machine checks; older versions lack columns, or the table."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def since(self, last: int) -> Records | None:
        """Return the records after a number; None when there is no database, or none of machine checks.

        With -1 nothing is returned but the number of the last one: what was recorded before is old.
        """
        if not self._path.exists():
            return None
        try:
            database = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=1.0)
        except sqlite3.Error:
            return None
        try:
            return _read(database, last)
        except sqlite3.Error:
            return None
        finally:
            database.close()


def _read(database: sqlite3.Connection, last: int) -> Records | None:
    columns = {row[1] for row in database.execute("PRAGMA table_info(mce_record)")}
    if not set(NEEDED) <= columns:
        return None
    newest = database.execute("SELECT coalesce(max(id), 0) FROM mce_record").fetchone()[0]
    if last < 0:
        return Records((), newest)
    wanted = ", ".join(
        name if name in columns else f"NULL AS {name}"
        for name in ("id", "status", "socketid", "cpuvendor", "error_msg")
    )
    after = 0 if newest < last else last  # the numbers begin anew when somebody deletes the file
    query = f"SELECT {wanted} FROM mce_record WHERE id > ? ORDER BY id LIMIT {MOST_AT_ONCE}"  # noqa: S608
    rows = tuple(
        MceRecord(number, int(status or 0) & REGISTER, int(socket or 0), vendor == 0, str(message or "recorded"))
        for number, status, socket, vendor, message in database.execute(query, (after,))
    )
    return Records(rows, rows[-1].number if rows else newest)
