"""A client that never gives up: it asks and writes rows all the time, and notes whatever two copies would betray.

`python watcher.py ADDRESS PORT --output FILE` runs until SIGTERM, over as many connections as it takes. Two copies
of one container have the same memory, so they tell the same boot; but each counts its own requests. So within one
boot a count that does not grow, or a boot that comes back after another one, was a second copy.

FILE (written all or nothing, four times a second): answers, boots, backwards (counts that did not grow), returned
(boots that came back), acknowledged (numbers of rows), asked (all numbers sent), longest_gap_s, gap_at (epoch),
connections.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT_S = 4.0
CONNECT_TIMEOUT_S = 0.5
WRITE_EVERY_S = 0.25
PUT_EVERY = 10  # requests between two rows


@dataclass
class Seen:
    """Everything that was seen."""

    answers: int = 0
    boots: list[str] = field(default_factory=list)
    last_count: int = 0
    backwards: list[str] = field(default_factory=list)
    returned: list[str] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    asked: int = 0
    longest_gap_s: float = 0.0
    gap_at: float = 0.0
    last_at: float = 0.0
    connections: int = 0

    def note(self, answer: dict[str, Any]) -> None:
        """Add one answer."""
        now, boot, count = time.time(), str(answer["boot"]), int(answer["count"])
        if self.last_at and now - self.last_at > self.longest_gap_s:
            self.longest_gap_s, self.gap_at = now - self.last_at, self.last_at
        self.answers, self.last_at = self.answers + 1, now
        if not self.boots or self.boots[-1] != boot:
            if boot in self.boots:
                self.returned.append(boot)
            self.boots.append(boot)
        elif count <= self.last_count:
            self.backwards.append(f"{self.last_count} -> {count}")
        self.last_count = count


class Watcher:
    """Asks until told to stop."""

    def __init__(self, address: str, port: int, output: Path) -> None:
        self._address, self._port, self._output = address, port, output
        self._seen = Seen()
        self._written_at = 0.0
        self.stopping = False  # no `Event`: its lock may be held by the very thread that a signal interrupts

    def end(self) -> None:
        """Ask no more."""
        self.stopping = True

    def run(self) -> None:
        """Connect again whenever the connection ends."""
        while not self.stopping:
            try:
                with socket.create_connection((self._address, self._port), CONNECT_TIMEOUT_S) as connection:
                    connection.settimeout(ANSWER_TIMEOUT_S)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._seen.connections += 1
                    self._exchange(connection)
            except (OSError, ValueError, KeyError):
                self._write()
                time.sleep(0.02)
        self._write(always=True)

    def _exchange(self, connection: socket.socket) -> None:
        reader = connection.makefile("rb")
        number = 0
        while not self.stopping:
            number += 1
            row = 0
            request = "count"
            if number % PUT_EVERY == 0:
                self._seen.asked += 1
                row = self._seen.asked
                request = f"put {row}"
            connection.sendall(f"{request}\n".encode())
            line = reader.readline()
            if not line:
                raise ConnectionError("hung up")
            self._seen.note(json.loads(line))
            if row:
                self._seen.acknowledged.append(row)
            self._write()
            time.sleep(0.005)

    def _write(self, *, always: bool = False) -> None:
        if always or time.monotonic() - self._written_at > WRITE_EVERY_S:
            self._written_at = time.monotonic()
            temporary = self._output.with_suffix(f".{os.getpid()}.new")
            temporary.write_text(json.dumps(asdict(self._seen)))
            temporary.replace(self._output)


def main() -> int:
    """Run the watcher."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    watcher = Watcher(arguments.address, arguments.port, arguments.output)
    signal.signal(signal.SIGTERM, lambda *_: watcher.end())
    watcher.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
