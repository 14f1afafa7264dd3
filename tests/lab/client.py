"""A client that would notice: one TCP connection, a request every few milliseconds, every gap measured.

`python client.py ADDRESS PORT --output FILE [--interval-ms 5]` runs until SIGTERM or the end of the
connection, and writes FILE (all or nothing) four times a second and at its end:

    requests, answers, seconds, longest_stall_ms (the longest wait for one answer), stalls (all waits over
    50 ms: at_s, ms), connected, resets, error, boots (ids of the server's runs seen; more than one is a
    restart), last
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

STALL_MS = 50.0
WRITE_EVERY_S = 0.25
ANSWER_TIMEOUT_S = 120.0


@dataclass
class Report:
    """What was seen so far; times in seconds since the beginning (`began_at`: seconds of the epoch)."""

    began_at: float
    requests: int = 0
    answers: int = 0
    seconds: float = 0.0
    longest_stall_ms: float = 0.0
    longest_stall_at_s: float = 0.0
    stalls: list[dict[str, float]] = field(default_factory=list)
    connected: bool = False
    resets: int = 0
    error: str = ""
    boots: list[str] = field(default_factory=list)
    last: dict[str, object] = field(default_factory=dict)

    def note(self, asked_s: float, answered_s: float, answer: dict[str, object]) -> None:
        """Add one answer."""
        waited_ms = (answered_s - asked_s) * 1000
        self.answers += 1
        self.seconds = answered_s
        self.last = answer
        if waited_ms > self.longest_stall_ms:
            self.longest_stall_ms, self.longest_stall_at_s = waited_ms, asked_s
        if waited_ms > STALL_MS:
            self.stalls.append({"at_s": round(asked_s, 4), "ms": round(waited_ms, 2)})
        boot = str(answer["boot"])
        if boot not in self.boots:
            self.boots.append(boot)

    def write(self, path: Path) -> None:
        """Write the report so that a reader never sees half of it."""
        temporary = path.with_suffix(f".{os.getpid()}.new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)


def exchange(
    report: Report, connection: socket.socket, interval_s: float, output: Path, told: Sequence[int]
) -> None:
    """Ask and note the answers until a signal has `told` to stop; raises `OSError` when the connection breaks.

    No `threading.Event`: its lock may be held by the very thread that a signal interrupts.
    """
    began = time.monotonic()
    written = 0.0
    reader = connection.makefile("rb")
    while not told:
        asked = time.monotonic() - began
        report.requests += 1
        connection.sendall(b"count\n")
        line = reader.readline()
        if not line:
            raise ConnectionError("the server hung up")
        now = time.monotonic() - began
        report.note(asked, now, json.loads(line))
        if now - written >= WRITE_EVERY_S:
            report.write(output)
            written = now
        time.sleep(interval_s)


def ask(address: str, port: int, request: str, timeout_s: float = ANSWER_TIMEOUT_S) -> dict[str, object]:
    """Ask one thing on a connection of its own and return the answer."""
    with socket.create_connection((address, port), timeout=timeout_s) as connection:
        connection.sendall(f"{request}\n".encode())
        answer: dict[str, object] = json.loads(connection.makefile("rb").readline())
        return answer


def watch(arguments: argparse.Namespace) -> int:
    """Hold one connection until the end; return 0 when it never broke."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    report = Report(began_at=time.time())
    try:
        with socket.create_connection((arguments.address, arguments.port), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            report.connected = True
            exchange(report, connection, arguments.interval_ms / 1000, arguments.output, told)
    except OSError as error:
        report.connected = False
        report.resets += isinstance(error, ConnectionError)
        report.error = f"{type(error).__name__}: {error}"
    report.write(arguments.output)
    return 0 if report.connected else 1


def main() -> int:
    """Run the client, or with --ask one request."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--output", type=Path, help="where the report goes")
    parser.add_argument("--interval-ms", type=float, default=5.0, help="pause between two requests")
    parser.add_argument("--ask", help="ask one thing, print the answer and end")
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(ask(arguments.address, arguments.port, arguments.ask)))
        return 0
    if arguments.output is None:
        parser.error("--output is needed")
    return watch(arguments)


if __name__ == "__main__":
    sys.exit(main())
