"""Stop a migration at a line of a host's journal, from outside, with the daemon as it is.

The journal is an SQLite file. A small program in the host waits for a line and then takes the file's write lock:
whoever wants to write the next line waits, and so stands exactly between the two. SQLite lets a writer wait for ten
seconds (migrator/protocol/journal.py), so a stop must be over sooner.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from migrator.command import kill_group
from migrator.errors import ExecutionError
from tests.lab.host import Host

JOURNAL = "/var/lib/lifeboat/journal.db"
STOPPED, LATE = "stopped", "late"

PROGRAM = """
import sqlite3, sys, time
path, query, limit_s, begun = sys.argv[1:]
deadline = time.monotonic() + float(limit_s)
database = sqlite3.connect(path, timeout=5, isolation_level=None)
known = [] if begun else [row[0] for row in database.execute("SELECT id FROM migration")]
where = " AND migration NOT IN (%s)" % ", ".join("?" * len(known))
print("watching", flush=True)
while not database.execute(query + where, known).fetchone():
    if time.monotonic() > deadline:
        print("late", flush=True)
        sys.exit()
    time.sleep(0.001)
database.execute("BEGIN IMMEDIATE")
print("stopped", flush=True)
sys.stdin.readline()
database.execute("ROLLBACK")
"""


@dataclass(frozen=True)
class Stop:
    """A line of a journal: on the source or the target, a phase and how the message begins; or a row of its own.

    That is the decision, or the fate that a human's word gives a migration that did not end by itself.
    """

    name: str
    side: str  # source, target
    phase: str = ""
    message: str = ""
    decision: bool = False
    fate: bool = False

    @property
    def query(self) -> str:
        """Return the SQL that finds it."""
        if self.decision:
            return "SELECT 1 FROM decision WHERE word = 'commit'"
        if self.fate:
            return "SELECT 1 FROM fate WHERE word != ''"
        where = f"phase = '{self.phase}' AND json_extract(event, '$.message') LIKE '{self.message}%'"
        return f"SELECT 1 FROM line WHERE {where}"  # noqa: S608  constants


STOPS = (
    Stop("source: prepare", "source", "prepare"),
    Stop("target: reserved", "target", "prepare", "reserved"),
    Stop("source: copying ahead", "source", "prepare", "copying layer"),
    Stop("target: restore parked", "target", "prepare", "restore parked"),
    Stop("source: parked", "source", "prepare", "parked"),
    Stop("source: freeze", "source", "freeze"),
    Stop("source: restore", "source", "restore"),
    Stop("source: COMMIT", "source", decision=True),
    Stop("target: commit", "target", decision=True),
    Stop("source: commit told", "source", "commit"),
    Stop("target: gate open", "target", "commit"),
    Stop("source: drain", "source", "drain"),
    Stop("target: all memory here", "target", "drain", "all memory"),
    Stop("target: files on disk", "target", "drain", "its files"),
    Stop("source: release", "source", "release"),
    Stop("target: complete", "target", "done"),
    Stop("source: done", "source", "done"),
)

ROLLBACK_STOPS = (
    Stop("target: promised", "target", fate=True),
    Stop("source: sealed", "source", fate=True),
    Stop("source: resumed", "source", "aborted"),
)
"""What is written when a human lets a container run again where it was."""


def stop_named(name: str) -> Stop:
    """Return a stop by its name."""
    return next(stop for stop in (*STOPS, *ROLLBACK_STOPS) if stop.name == name)


class Turnstile:
    """One stop of the next migration in a host."""

    def __init__(self, host: Host, stop: Stop, timeout_s: float, *, begun: bool = False) -> None:
        """Begin to watch; migrations that the journal knows already count only when it has `begun`."""
        self._stop = stop
        argv = ["python3", "-c", PROGRAM, JOURNAL, stop.query, str(timeout_s), "begun" if begun else ""]
        self._process = host.spawn(argv, stdin=subprocess.PIPE)
        self._line()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Wait for the line, and let nobody write the next one until the block ends; raises `ExecutionError`."""
        if (said := self._line()) != STOPPED:
            raise ExecutionError(f"no line {self._stop.name!r}: {said}", code="lab-timeout")
        try:
            yield
        finally:
            self.close()

    def close(self) -> None:
        """Let go, also of a host that was killed meanwhile."""
        kill_group(self._process)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _line(self) -> str:
        stdout = self._process.stdout
        return stdout.readline().decode().strip() if stdout is not None else ""
