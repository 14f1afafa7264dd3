"""Our own page source: answers the sink from the memory of the frozen tree, straight from /proc/PID/mem.

CRIU's dump stands by with its page server connected and idle: it holds the tree by ptrace, and how its
connection ends decides what becomes of the tree (see `CriuHold`). Links that break are made anew, and the
sink asks again for what it did not get.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
import time
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.pager.criu_source import CriuHold
from migrator.pager.greeting import (
    BULK,
    COUNT,
    FAULTS,
    HELD,
    PAIR,
    REQUEST,
    UNREADABLE,
    greet,
    receive,
)
from migrator.pager.images import pid_in_images
from migrator.pager.scan import held_ranges
from migrator.peers.tls import BUFFER_BYTES, call
from migrator.shim.order import PagerAddress

RETRY_S = 0.5

_log = logging.getLogger("shim")


class FrozenMemory:
    """The memory of one process that stands still."""

    def __init__(self, pid: int) -> None:
        self._contents = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)

    def held(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the parts of a range that hold something."""
        return held_ranges(self._pagemap, start, end)

    def read(self, into: memoryview, address: int) -> bool:
        """Read memory; return False when some of it cannot be read.

        What was never there reads as zeros, a guard too, which the kernel refuses to read just as it refuses
        a page whose memory has failed.
        """
        if self._copy(into, address):
            return True
        into[:] = bytes(len(into))
        parts = self.held(address, address + len(into))
        return all(self._copy(into[start - address : end - address], start) for start, end in parts)

    def _copy(self, into: memoryview, address: int) -> bool:
        try:
            return os.preadv(self._contents, [into], address) == len(into)
        except OSError:
            return False


class PageSource:
    """One drain, seen from the source."""

    def __init__(self, address: PagerAddress, pki: Path, migration: str, reconnect_limit_s: float) -> None:
        """Call the sink now, while the container runs, so that nothing of this is in the freeze."""
        self._address = address
        self._pki = pki
        self._migration = migration
        self._limit_s = reconnect_limit_s
        self._hold = CriuHold()
        self._links = {purpose: self._call(purpose) for purpose in (FAULTS, BULK)}
        self._sent = dict.fromkeys(self._links, 0)
        self._memory: dict[int, FrozenMemory] = {}
        self._ended = False
        self.lost = False

    @property
    def sent_bytes(self) -> int:
        """Return how much has gone to the sink."""
        return sum(self._sent.values())

    def start(self, port: int | None, pids: tuple[int, ...]) -> None:
        """Take hold of CRIU's page server, if there is still one, and serve the memory of the frozen processes."""
        if port is not None:
            self._hold.take(port)
            self._hold.arm()
        self._memory = {pid_in_images(pid): FrozenMemory(pid) for pid in pids}
        for purpose in self._links:
            threading.Thread(target=self._serve, args=(purpose,), name=purpose, daemon=True).start()

    def finish(self) -> None:
        """The sink has everything, and the tree was killed: let CRIU end."""
        self._ended = True
        self._hold.fail()

    def fail(self) -> None:
        """The sink shall have nothing: let CRIU let go of the tree (into the frozen cgroup)."""
        self._ended = True
        self._hold.fail()

    def _call(self, purpose: str) -> ssl.SSLSocket:
        address = self._address
        link = call(address.host, address.address, address.port, self._pki)
        greet(link, self._migration, purpose)
        return link

    def _serve(self, purpose: str) -> None:
        while not self._ended:
            try:
                self._answer(purpose)
            except OSError as error:
                if self._ended:
                    return
                _log.warning("the %s link broke: %s", purpose, error)
                if not self._call_again(purpose):
                    self.lost = True
                    return

    def _answer(self, purpose: str) -> None:
        link, buffer = self._links[purpose], memoryview(bytearray(COUNT.size + BUFFER_BYTES))
        request = bytearray(REQUEST.size)
        while True:
            receive(link, request)
            kind, pid, address, length = REQUEST.unpack(request)
            memory = self._memory[pid]
            if kind == HELD:
                held = b"".join(PAIR.pack(*part) for part in memory.held(address, address + length))
                link.sendall(COUNT.pack(len(held)) + held)
            elif memory.read(buffer[COUNT.size : COUNT.size + length], address):
                COUNT.pack_into(buffer, 0, length)
                link.sendall(buffer[: COUNT.size + length])
                self._sent[purpose] += length
            else:
                _log.error("%d bytes at %#x of process %d cannot be read", length, address, pid)
                link.sendall(COUNT.pack(UNREADABLE))

    def _call_again(self, purpose: str) -> bool:
        deadline = time.monotonic() + self._limit_s
        while time.monotonic() < deadline and not self._ended:
            try:
                self._links[purpose] = self._call(purpose)
            except LifeboatError:
                time.sleep(RETRY_S)
            else:
                return True
        return False
