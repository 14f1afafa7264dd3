"""A program worth moving: it holds memory it knows the content of, checks it all the time, and serves TCP.

Runs in a container with nothing but Python: `python3 workload.py --memory MIB [--port 7000] [--mode MODE]`. In
mode `check` it looks at random pages and rewrites some, with pauses; in mode `busy` it touches random pages without
any, and takes the time of those the kernel had to make it wait for; in mode `idle` it does nothing. With `--hollow`
MIB it has as much memory again that it has read but never written: it takes no room, and has to stay zeros. One
request is one line, one answer is one line of JSON:

    count    {"count": requests so far, "boot": id of this run, "checked": pages checked, "wrong": wrong ones}
    verify   the same after checking every page, and {"verified": pages, "wrong_now": wrong ones of them}
    put N    writes the row N to the database (--database) and answers when it is on disk
    rows     the same, and {"rows": [every N in the database, in order]}
    faults   {"faults": page faults in mode busy since this was last asked, "median_us", "p99_us", "max_us"}
    stop     answers, then exits with status 0
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import resource
import socketserver
import sqlite3
import struct
import sys
import threading
import time
import uuid

PAGE_BYTES = 4096
PAGES_PER_ROUND = 64
ROUND_PAUSE_S = 0.002
NOISE = random.Random(1).randbytes(1 << 16)  # noqa: S311 - the same in every process, and not compressible
WRITE_SHARE = 0.25
"""Of the pages looked at, how many are written anew: a moving container's memory has to stay writable."""


class Memory:
    """Anonymous private memory; page N holds N, a generation and a pattern made of both."""

    def __init__(self, mib: int, hollow_mib: int = 0) -> None:
        self.hollow = mmap.mmap(-1, max(hollow_mib << 20, PAGE_BYTES), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.pages = mib * 1024 * 1024 // PAGE_BYTES
        self.area = mmap.mmap(-1, max(self.pages, 1) * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.lock = threading.Lock()
        self.checked = 0
        self.wrong = 0
        self.waits_ns: list[int] = []
        for number in range(self.pages):
            self.fill(number, 0)
        self.verify_hollow()

    def fill(self, number: int, generation: int) -> None:
        """Write a page."""
        offset = number * PAGE_BYTES
        self.area[offset : offset + PAGE_BYTES] = pattern(number, generation)

    def check(self, number: int) -> bool:
        """Tell whether a page is what was last written to it; a page of zeros is wrong as well."""
        offset = number * PAGE_BYTES
        content = self.area[offset : offset + PAGE_BYTES]
        found, generation = struct.unpack_from("<QQ", content)
        right: bool = found == number + 1 and content == pattern(number, generation)
        self.checked += 1
        self.wrong += not right
        return right

    def verify(self) -> int:
        """Check every page; return how many are wrong."""
        wrong = 0
        for number in range(self.pages):
            with self.lock:
                wrong += not self.check(number)
        return wrong + self.verify_hollow()

    def verify_hollow(self) -> int:
        """Read every page that was never written; return how many do not begin with a zero."""
        firsts = self.hollow[::PAGE_BYTES]
        return len(firsts) - firsts.count(0)

    def touch_for_ever(self) -> None:
        """Check random pages and rewrite some of them, for as long as the process lives."""
        choose = random.Random(os.getpid())  # noqa: S311 - any spread over the pages will do
        while self.pages:
            with self.lock:
                for _ in range(PAGES_PER_ROUND):
                    number = choose.randrange(self.pages)
                    if self.check(number) and choose.random() < WRITE_SHARE:
                        self.fill(number, choose.getrandbits(32))
            time.sleep(ROUND_PAUSE_S)

    def touch_without_pause(self) -> None:
        """Read random pages for as long as the process lives; note how long each page fault took."""
        choose = random.Random(os.getpid())  # noqa: S311 - as above
        faults = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        while self.pages:
            number = choose.randrange(self.pages)
            offset = number * PAGE_BYTES
            began = time.perf_counter_ns()
            found = self.area[offset]
            took = time.perf_counter_ns() - began
            now = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
            if now != faults:
                faults = now
                self.waits_ns.append(took)
            self.checked += 1
            self.wrong += found != (number + 1) & 0xFF

    def faults(self) -> dict[str, object]:
        """Return what is known of the page faults since the last time."""
        found, self.waits_ns = sorted(self.waits_ns), []
        last = len(found) - 1
        times = {"median_us": 0.5, "p99_us": 0.99, "max_us": 1.0}
        return {"faults": len(found)} | {
            name: found[int(last * share)] / 1000 if found else None for name, share in times.items()
        }


def pattern(number: int, generation: int) -> bytes:
    """Return what page `number` holds; never zeros, as the number is stored plus one."""
    start = (number * 31 + generation) % (len(NOISE) - PAGE_BYTES)
    return struct.pack("<QQ", number + 1, generation) + NOISE[start : start + PAGE_BYTES - 16]


class Handler(socketserver.StreamRequestHandler):
    """Answers the lines of one connection."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        """Answer until the client hangs up."""
        server = self.server
        assert isinstance(server, Server)
        for line in self.rfile:
            request = line.decode().strip()
            self.wfile.write(json.dumps(server.answer(request)).encode() + b"\n")
            if request == "stop":
                server.stopping.set()
                return


class Server(socketserver.ThreadingTCPServer):
    """Holds what all connections see."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, memory: Memory, database: str) -> None:
        super().__init__(("0.0.0.0", port), Handler)
        self.memory = memory
        self.database = database
        self.writing = threading.Lock()
        self.boot = uuid.uuid4().hex
        self.count = 0
        self.stopping = threading.Event()

    def answer(self, request: str) -> dict[str, object]:
        """Return the answer to one request."""
        self.count += 1
        result: dict[str, object] = {"count": self.count, "boot": self.boot}
        if request.startswith("put "):
            self.put(int(request.removeprefix("put ")))
        if request == "rows":
            with self.writing, sqlite3.connect(self.database) as database:
                result["rows"] = [row[0] for row in database.execute("SELECT n FROM t ORDER BY rowid")]
        if request == "verify":
            result |= {"verified": self.memory.pages, "wrong_now": self.memory.verify()}
        elif request == "faults":
            result |= self.memory.faults()
        return result | {"checked": self.memory.checked, "wrong": self.memory.wrong}

    def put(self, number: int) -> None:
        """Write a row; nothing keeps a number from being there twice, so that a test can see it."""
        with self.writing, sqlite3.connect(self.database) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER)")
            database.execute("INSERT INTO t VALUES (?)", (number,))


def main() -> None:
    """Fill the memory, then serve until somebody says stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, default=64, help="MiB")
    parser.add_argument("--hollow", type=int, default=0, help="MiB that are read and never written")
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--database", default="/tmp/rows.db", help="an SQLite file")
    parser.add_argument("--mode", choices=["check", "busy", "idle"], default="check")
    arguments = parser.parse_args()
    memory = Memory(arguments.memory, arguments.hollow)
    server = Server(arguments.port, memory, arguments.database)
    deeds = {"check": memory.touch_for_ever, "busy": memory.touch_without_pause}
    if arguments.mode in deeds:
        threading.Thread(target=deeds[arguments.mode], daemon=True).start()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"serving {arguments.memory} MiB on port {arguments.port}, boot {server.boot}", flush=True)
    server.stopping.wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
