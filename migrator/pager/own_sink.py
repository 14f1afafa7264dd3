"""Our own page sink: faults first, on a link of their own; everything else in bulk, many requests under way.

Two threads bring pages, and one lock is held while events are read and while pages are filled, so that no
page is ever put where the process has given the address away. The bulk follows the faults: it goes on
behind the page that was touched last. When a link breaks the tree is frozen, the source calls again, and
what had not come is asked for anew.
"""

from __future__ import annotations

import logging
import os
import select
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from migrator.errors import ExecutionError, LifeboatError
from migrator.pager import userfault
from migrator.pager.greeting import BULK, FAULTS, HELD, PAGES, PAIR, REQUEST, receive_answer
from migrator.pager.images import PAGE_BYTES, lazy_ranges
from migrator.pager.pending import Pending, Range
from migrator.pager.sink import Sink, SinkOrder, SinkState, Task
from migrator.pager.userfault import Event, Kind, TreeGoneError

FAULT_BYTES = 32 << 10  # a fault brings its neighbours along: one round trip costs more than these
BULK_BYTES = 256 << 10
BULK_UNDER_WAY = 8
HELD_BYTES = 1 << 30
POLL_S = 0.05

_log = logging.getLogger("sink")


@dataclass
class Space:
    """One address space: whose memory it is at the source, and what of it is missing here."""

    pid: int
    userfault: int
    pending: Pending
    cursor: int = 0
    narrowed: bool = False  # whether it was asked which of it the source holds


class OwnSink(Sink):
    """Brings the pages itself."""

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        super().__init__(directory, order)
        self._image_files = Path()
        self._spaces: list[Space] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._received = 0
        self._broken: set[str] = set()
        self._ready = threading.Event()
        self._more = os.eventfd(
            0, os.EFD_NONBLOCK | os.EFD_CLOEXEC
        )  # a process came; its restore may fault at once

    def begin(self, images: Path) -> None:
        """Begin to answer faults; the restore itself has a few."""
        for purpose in (FAULTS, BULK):
            self.link(purpose)
        self._image_files = images
        if not self._ready.is_set():
            self._ready.set()
            threading.Thread(target=self._watch, args=(self._serve_faults,), name="faults", daemon=True).start()

    def take(self, task: Task) -> None:
        """Know what is missing of a new process."""
        if task.userfault is None:
            return
        ranges = lazy_ranges(self._image_files, task.pid)
        with self._lock:
            self._spaces.append(Space(task.pid, task.userfault, Pending.of(ranges)))
        os.eventfd_write(self._more, 1)

    def hold(self) -> None:
        """Give no page until `release`."""
        self._flowing.clear()

    def release(self) -> None:
        """Give pages, and begin to fetch all others."""
        self._flowing.set()
        threading.Thread(target=self._watch, args=(self._serve_bulk,), name="bulk", daemon=True).start()

    @property
    def drained_bytes(self) -> int:
        """Return how much has come."""
        return self._received

    def userfaults(self) -> list[int]:
        """Return those of all processes, also of those that were forked meanwhile."""
        with self._lock:
            return [space.userfault for space in self._spaces]

    def tidy(self) -> None:
        """Close the links."""
        for link in self.links.values():
            link.close()

    def _watch(self, work: Callable[[], None]) -> None:
        """Run a thread's work; whatever ends it badly must not leave the tree on missing pages."""
        try:
            work()
        except (LifeboatError, OSError, ValueError) as error:
            self.lose(f"{work.__name__.removeprefix('_')}: {error}")

    def _serve_faults(self) -> None:
        """Read events, then answer the faults that are owed; one may have to wait for further events."""
        owed: list[tuple[Space, int]] = []
        while self.state in (SinkState.WAITING, SinkState.DRAINING):
            self._flowing.wait()
            with self._lock:
                known = {space.userfault: space for space in self._spaces}
            ready, _, _ = select.select([self._more, *known], [], [], 0.0 if owed else POLL_S)
            if self._more in ready:
                os.eventfd_read(self._more)
                continue
            if not self._flowing.is_set():
                continue  # held while we looked: what is there stays unread
            for descriptor in ready:
                owed += self._read_events(known[descriptor])
            owed = [fault for fault in owed if not self._answer_fault(*fault)]

    def _read_events(self, space: Space) -> list[tuple[Space, int]]:
        """Read all events of a space; follow them, and return the faults among them."""
        faults = []
        with self._lock:
            while space in self._spaces and (event := userfault.read_event(space.userfault)):
                if event.kind is Kind.PAGEFAULT:
                    faults.append((space, event.first))
                else:
                    self._follow(space, event)
        return faults

    def _answer_fault(self, space: Space, address: int) -> bool:
        """Answer one fault; return whether that was done."""
        with self._lock:
            if space not in self._spaces:
                return True
            wanted = space.pending.find(address, address + FAULT_BYTES)
        try:
            if not wanted or wanted[0].start != address:
                with self._lock:
                    return userfault.fill_zero(space.userfault, address)
            space.cursor = wanted[0].end
            self._fetch(space, wanted[0])
            return not space.pending.find(address, address + PAGE_BYTES)
        except TreeGoneError:
            self._forget(space)
            return True

    def _follow(self, space: Space, event: Event) -> None:
        """Follow what the process did to its mappings; the lock is held."""
        if event.kind is Kind.FORK:
            self.guard.hold(event.first)
            self._spaces.append(Space(space.pid, event.first, space.pending.copy()))
        elif event.kind is Kind.REMAP:
            space.pending.move(event.first, event.second, event.third)
        else:
            space.pending.drop(event.first, event.second)

    def _fetch(self, space: Space, part: Range) -> None:
        """Ask for one range on the fault link and fill it, over as many links as it takes."""
        buffer = memoryview(bytearray(part.end - part.start))
        while True:
            link = self.link(FAULTS)
            try:
                link.sendall(REQUEST.pack(PAGES, space.pid, part.origin, len(buffer)))
                receive_answer(link, buffer, len(buffer))
            except OSError as error:
                self._mend(FAULTS, link, error)
                continue
            self._fill(space, part, buffer)
            return

    def _fill(self, space: Space, part: Range, data: memoryview) -> None:
        """Fill what of a range is still missing; the process may have changed its mappings meanwhile."""
        with self._lock:
            self._received += len(data)
            for missing in space.pending.find(part.start, part.end):
                offset = missing.start - part.start
                if missing.origin - part.origin != offset:
                    continue  # moved here from elsewhere since we asked
                length = missing.end - missing.start
                done = userfault.fill(space.userfault, missing.start, data[offset : offset + length])
                space.pending.drop(missing.start, missing.start + done)

    def _serve_bulk(self) -> None:
        while self.state is SinkState.DRAINING:
            with self._lock:
                space = next((space for space in self._spaces if not space.pending.empty), None)
            if space is None:
                self.complete()
                return
            link = self.link(BULK)
            try:
                if not space.narrowed:
                    self._narrow(space, link)
                self._pass(space, link)
            except OSError as error:
                self._mend(BULK, link, error)
            except TreeGoneError:
                self._forget(space)

    def _narrow(self, space: Space, link: ssl.SSLSocket) -> None:
        """Ask what of the large ranges the source holds; mappings that CRIU was spared come whole at first."""
        for part in space.pending.find(0, 1 << 64):
            end = part.origin + part.end - part.start
            for start in range(part.origin, end, HELD_BYTES) if part.end - part.start > BULK_BYTES else ():
                length = min(HELD_BYTES, end - start)
                link.sendall(REQUEST.pack(HELD, space.pid, start, length))
                held = list(PAIR.iter_unpack(receive_answer(link, memoryview(b""))))
                with self._lock:
                    space.pending.narrow(start, start + length, held)
        space.narrowed = True

    def _pass(self, space: Space, link: ssl.SSLSocket) -> None:
        """Go once through what is missing of a space, with several requests under way."""
        under_way: deque[Range] = deque()
        asked = Pending(space.pending.find(0, 1 << 64))
        buffer = memoryview(bytearray(BULK_BYTES))
        while under_way or not asked.empty:
            while not asked.empty and len(under_way) < BULK_UNDER_WAY:
                part = self._next(space, asked)
                link.sendall(REQUEST.pack(PAGES, space.pid, part.origin, part.end - part.start))
                under_way.append(part)
            part = under_way.popleft()
            self._fill(space, part, receive_answer(link, buffer, part.end - part.start))

    def _next(self, space: Space, asked: Pending) -> Range:
        part = asked.next(space.cursor, BULK_BYTES)
        if part is None:
            raise ExecutionError("nothing is left to ask for", code="pager")
        asked.drop(part.start, part.end)
        space.cursor = part.end
        return part

    def _mend(self, purpose: str, broken: ssl.SSLSocket, error: OSError) -> None:
        """Freeze the tree, wait for the source to call again, and let the tree go on."""
        with self.changed:
            if self.state is SinkState.LOST:
                raise ExecutionError("the drain is lost", code="drain-lost")
            _log.warning("the %s link broke: %s", purpose, error)
            self._broken.add(purpose)
            self.freeze_tree()
            if self.links.get(purpose) is broken:
                del self.links[purpose]
        try:
            self.link(purpose, self.order.reconnect_limit_s)
        except ExecutionError as failure:
            raise ExecutionError(
                f"the page source is gone: {error}; it did not call again within "
                f"{self.order.reconnect_limit_s:g} s",
                code="source-lost",
            ) from failure
        with self.changed:
            self._broken.discard(purpose)
            if not self._broken:
                self.thaw_tree()
        _log.warning("the %s link is back", purpose)

    def _forget(self, space: Space) -> None:
        """The process has exited."""
        with self._lock:
            if space in self._spaces:
                self._spaces.remove(space)
                os.close(space.userfault)


assert FAULT_BYTES % PAGE_BYTES == 0 == BULK_BYTES % PAGE_BYTES  # noqa: S101  ranges are whole pages
