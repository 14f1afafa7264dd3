"""Our own page source: answers the sink from the memory of the frozen tree, straight from /proc/PID/mem.

CRIU's dump stands by with its page server connected and idle: it holds the tree by ptrace, and how its
connection ends decides what becomes of the tree (see `CriuHold`). Links that break are made anew, and the
sink asks again for what it did not get.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from pathlib import Path

from migrator.errors import LifeboatError
from migrator.pager import native
from migrator.pager.criu_source import CriuHold
from migrator.pager.greeting import BULK, FAULTS, HELD, PAIR, REQUEST, greet
from migrator.pager.images import pid_in_images
from migrator.pager.links import Link, call_link, prefer
from migrator.pager.memory import FrozenMemory, MemoryGoneError
from migrator.pager.packing import ANSWER, COMPRESSED, MOST_PAGES, PAGE_BYTES, PLAIN, compressor, pack
from migrator.pager.priority import answer_first, let_others_run
from migrator.pager.rate import Economy, Throttle
from migrator.settings import MigratorSettings
from migrator.shim.order import PagerAddress

RETRY_S = 0.5
REQUESTS_AT_ONCE = 8  # of the bulk, answered before it is asked again whether compression pays
FAULTS_AT_ONCE = 1 << 20

Request = tuple[int, int, int, int]  # kind, pid, address, length

_log = logging.getLogger("shim")


class PageSource:
    """One drain, seen from the source."""

    def __init__(self, address: PagerAddress, pki: Path, migration: str, settings: MigratorSettings) -> None:
        """Call the sink now, while the container runs, so that nothing of this is in the freeze.

        The threads begin here, too: they stay in this network namespace, and so can call again, when the
        caller of `start` has gone to another.
        """
        self.address, self.pki, self.migration, self.settings = address, pki, migration, settings
        self._hold = CriuHold()
        self.throttle = Throttle(settings.pager_limit_mib_s * (1 << 20))
        self.memory: dict[int, FrozenMemory] = {}
        self.started = threading.Event()
        self.ended = threading.Event()
        self.lost = False
        links = max(settings.pager_links, len(self.addresses))
        self._servers = [LinkServer(self, FAULTS, 0), *(LinkServer(self, f"{BULK}{n}", n) for n in range(links))]
        for server in self._servers:
            threading.Thread(target=server.run, name=server.purpose, daemon=True).start()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses at which the sink may be called."""
        return self.address.addresses or (self.address.address,)

    @property
    def sent_bytes(self) -> int:
        """Return how much memory the sink was given."""
        return sum(server.sent_bytes for server in self._servers)

    def start(self, port: int | None, pids: tuple[int, ...]) -> None:
        """Take hold of CRIU's page server, if there is still one, and serve the memory of the frozen processes."""
        if port is not None:
            self._hold.take(port)
            self._hold.arm()
        self.memory = {pid_in_images(pid): FrozenMemory(pid) for pid in pids}
        self.started.set()

    def finish(self) -> None:
        """The sink has everything, and the tree was killed: let CRIU end."""
        self._end()
        self._hold.fail()

    def fail(self) -> None:
        """The sink shall have nothing: let CRIU let go of the tree (into the frozen cgroup)."""
        self._end()
        self._hold.fail()

    def _end(self) -> None:
        self.ended.set()
        self.started.set()
        for server in self._servers:
            server.link.hang_up()


class LinkServer:
    """Answers what the sink asks on one link."""

    def __init__(self, source: PageSource, purpose: str, number: int) -> None:
        self.purpose = purpose
        self._sent_bytes = 0
        self._served = native.Served()
        self._source = source
        self._number = number
        self.link = self._call(number)
        self._economy = Economy(source.settings.pager_compression)
        self._compressor = compressor(True)
        self._area = memoryview(mmap.mmap(-1, (1 + MOST_PAGES) * PAGE_BYTES))  # the head ends where the pages begin

    def run(self) -> None:
        """Answer until the drain has ended, over as many links as it takes."""
        if self.purpose == FAULTS:
            answer_first()
        else:
            let_others_run()
        self._source.started.wait()
        try:
            while not self._source.ended.is_set() and self._serve_link():
                pass
        except Exception as error:  # a thread's entry point: the sink must not wait for an answer for ever
            logging.exception("%s failed", self.purpose)
            self._give_up(str(error))

    def _serve_link(self) -> bool:
        """Answer on one link until it breaks; return whether there is another one."""
        try:
            self._serve(self.link)
        except OSError as error:
            if self._source.ended.is_set():
                return False
            _log.warning("the %s link broke: %s", self.purpose, error)
            self.link.hang_up()
            if not self._call_again():
                self._source.lost = True
                return False
        except MemoryGoneError as error:
            if not self._source.ended.is_set():
                self._give_up(str(error))
            return False
        return True

    def _give_up(self, reason: str) -> None:
        _log.error("%s: %s", self.purpose, reason)
        self._source.lost = True
        self.link.hang_up()

    @property
    def sent_bytes(self) -> int:
        """Return how much memory was sent."""
        return self._sent_bytes + int(self._served.bytes)

    def _serve(self, link: Link) -> None:
        bulk = self.purpose != FAULTS
        memories = {pid: memory.descriptor for pid, memory in self._source.memory.items()}
        while True:
            compress = bulk and self._compressor is not None and self._economy.compress()
            limited = self._source.throttle.limited
            if native.BUILT and not compress and not limited:
                request = self._serve_in_c(link, memories, REQUESTS_AT_ONCE if bulk else FAULTS_AT_ONCE)
            else:
                request = _receive_request(link)
            if request is not None:
                self._answer(link, *request, compress=compress)

    def _serve_in_c(self, link: Link, memories: dict[int, int], most: int) -> Request | None:
        """Answer so many requests the usual way; return one that cannot be answered so."""
        served = self._served
        bytes_before, seconds_before = served.bytes, served.seconds
        unusual = native.serve(link.handle, memories, self._area, most, served)
        if served.bytes > bytes_before:
            self._economy.learn(False, served.bytes - bytes_before, served.seconds - seconds_before)
        return REQUEST.unpack(served.unusual) if unusual else None

    def _answer(self, link: Link, kind: int, pid: int, address: int, length: int, *, compress: bool) -> None:
        memory = self._source.memory.get(pid)
        if memory is None:
            raise ConnectionError(f"the sink asks for a process {pid} that is not ours")
        if kind == HELD:
            held = b"".join(PAIR.pack(*part) for part in memory.held(address, address + length))
            link.send(memoryview(bytearray(ANSWER.pack(len(held), PLAIN, 0) + held)))
        else:
            self._send_pages(link, memory, address, length, compress)

    def _send_pages(self, link: Link, memory: FrozenMemory, address: int, length: int, compress: bool) -> None:
        pages = length // PAGE_BYTES
        if not 0 < pages <= MOST_PAGES:
            raise ConnectionError(f"the sink asks for {length} bytes")
        began_at = time.monotonic()
        contents = self._area[PAGE_BYTES : PAGE_BYTES + length]
        kinds = self._area[PAGE_BYTES - 2 * pages : PAGE_BYTES]
        kept = pack(contents, kinds, memory.read(contents, address)) * PAGE_BYTES
        self._send(link, len(kinds), kept, compressed=compress)
        self._economy.learn(compress, length, time.monotonic() - began_at)
        self._sent_bytes += length

    def _send(self, link: Link, kinds: int, kept: int, *, compressed: bool) -> None:
        """Send what stands in our area; compressed only if that makes it less."""
        body = self._area[PAGE_BYTES : PAGE_BYTES + kept]
        packed = self._compressor.compress(body) if compressed and kept else b""
        compressed = 0 < len(packed) < kept
        head = PAGE_BYTES - kinds - ANSWER.size
        length = len(packed) if compressed else kept
        ANSWER.pack_into(self._area, head, kinds + length, COMPRESSED if compressed else PLAIN, 0)
        self._wait(kinds + length)
        if compressed:
            link.send(self._area[head:PAGE_BYTES])
            link.send(memoryview(bytearray(packed)))
        else:
            link.send(self._area[head : PAGE_BYTES + kept])

    def _wait(self, count: int) -> None:
        """Keep to the bandwidth limit; faults count, and do not wait."""
        delay_s = self._source.throttle.delay_s(time.monotonic(), count)
        if delay_s and self.purpose != FAULTS:
            self._source.ended.wait(delay_s)

    def _call(self, attempt: int) -> Link:
        source, address = self._source, self._source.address
        where = source.addresses[attempt % len(source.addresses)]
        link = call_link(address.host, where, address.port, source.pki, plain=address.plain)
        greet(link, source.migration, address.secret, self.purpose)
        link.settle()
        if self.purpose == FAULTS:
            prefer(link)
        return link

    def _call_again(self) -> bool:
        deadline = time.monotonic() + self._source.settings.reconnect_limit_s
        attempt = self._number
        while time.monotonic() < deadline and not self._source.ended.is_set():
            try:
                self.link = self._call(attempt)
            except (LifeboatError, OSError):
                attempt += 1  # another of its addresses may answer
                self._source.ended.wait(RETRY_S)
            else:
                return True
        return False


def _receive_request(link: Link) -> Request:
    request = memoryview(bytearray(REQUEST.size))
    link.receive(request)
    return REQUEST.unpack(request)
