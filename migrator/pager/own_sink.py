"""Our own page sink: faults first, on a link of their own; everything else in bulk, on one or more links.

Each link has a thread, and one lock is held while events are read and while pages are filled (see `space`).
The thread that answers faults goes first for that lock, and the bulk follows it: it goes on behind the page
that was touched last. When the link for faults breaks the tree is frozen; the source calls again, and what
had not come is asked for anew.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from ctypes import c_int
from functools import partial
from pathlib import Path

from migrator.errors import ExecutionError, LifeboatError
from migrator.pager import userfault
from migrator.pager.greeting import BULK, FAULTS, HELD, PAGES, ask, receive_held, receive_pages
from migrator.pager.images import lazy_ranges
from migrator.pager.links import Link, prefer
from migrator.pager.packing import PAGE_BYTES, Pages
from migrator.pager.pending import Range
from migrator.pager.priority import answer_first
from migrator.pager.sink import Sink, SinkOrder, SinkState, Task
from migrator.pager.space import Space
from migrator.pager.statistics import Statistics
from migrator.pager.userfault import Kind, TreeGoneError

FAULT_BYTES = 32 << 10  # a fault brings its neighbours along: one round trip costs more than these
FAULTS_AT_ONCE = 16
BULK_BYTES = 1 << 20
BULK_UNDER_WAY = 4
LOCKED_PAGES = 64  # so much is filled before a fault may have the lock
POLL_S = 0.05
OWED_S = 0.001  # until faults are tried again that had to wait for an event; nobody runs while we do not sleep
POISON_LIMIT_S = 2.0

_log = logging.getLogger("sink")

Lock = Callable[[], AbstractContextManager[None]]
Fault = tuple[Space, int, float]  # the address, and when it was read
Request = tuple[Space, Range, bool]  # whether it asks what is held, not for pages


class OwnSink(Sink):
    """Brings the pages itself."""

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        super().__init__(directory, order)
        self._image_files = Path()
        self._spaces: dict[int, Space] = {}  # by userfaultfd
        self._events = select.epoll()
        self._memory = threading.Condition(threading.Lock())
        self._calm = threading.Event()  # no fault waits for the lock
        self._calm.set()
        self._urgent = c_int(0)  # the same, for C
        self._flowing = threading.Event()
        self._flowing.set()
        self._began = False
        self._bulk_links = 0
        self.statistics = Statistics()

    def begin(self, images: Path) -> None:
        """Begin to answer faults; the restore itself has a few."""
        prefer(self.link(FAULTS))
        self._image_files = images
        if not self._began:
            self._began = True
            self._start(self._serve_faults, FAULTS)

    def take(self, task: Task) -> None:
        """Know what is missing of a new process."""
        if task.userfault is None:
            return
        ranges = lazy_ranges(self._image_files, task.pid)
        with self._memory:
            self._add(Space.of(task.pid, task.userfault, ranges, self._urgent))

    def hold(self) -> None:
        """Give no page until `release`."""
        with self._memory:
            self._flowing.clear()

    def release(self) -> None:
        """Give pages, and begin to fetch all others."""
        self._flowing.set()
        purposes = [purpose for purpose in list(self.links) if purpose.startswith(BULK)]
        if not purposes:
            raise ExecutionError("the page source does not call (bulk)", code="no-page-source")
        self._bulk_links = len(purposes)
        for purpose in purposes:
            self._start(partial(self._serve_bulk, purpose), purpose)

    @property
    def drained_bytes(self) -> int:
        """Return how much has come."""
        return self.statistics.received_bytes

    def details(self) -> dict[str, object]:
        """Return what `statistics` counts."""
        with self._memory:
            missing = sum(space.pending.bytes for space in self._spaces.values())
        return self.statistics.tell(time.monotonic(), missing)

    def surrender_userfaults(self) -> list[int]:
        """Return all of them, to be closed; from here on none is used."""
        with self._memory:
            for space in self._spaces.values():
                space.gone = True
            found = list(self._spaces)
            self._spaces.clear()
            return found

    def poison(self) -> int:
        """See `Sink.poison`; forks that were not heard of yet are followed."""
        total = 0
        deadline = time.monotonic() + POISON_LIMIT_S
        with self._memory:
            while time.monotonic() < deadline:
                for space in list(self._spaces.values()):
                    with suppress(TreeGoneError):
                        self._read_events(space)
                        total += space.poison()
                if all(space.pending.empty for space in self._spaces.values()):
                    break
                self._memory.wait(POLL_S)  # for whoever has to be woken by an event that was read
        return total

    def tidy(self) -> None:
        """End the links."""
        for link in self.links.values():
            link.hang_up()

    def _start(self, work: Callable[[], None], name: str) -> None:
        threading.Thread(target=self._watch, args=(work, name), name=name, daemon=True).start()

    def _watch(self, work: Callable[[], None], name: str) -> None:
        """Run a thread's work; whatever ends it badly must not leave the tree on missing pages."""
        try:
            work()
        except (LifeboatError, OSError) as error:
            self.lose(f"{name}: {error}")
        except Exception as error:  # a thread's entry point: a mistake of ours must freeze the tree, too
            logging.exception("%s failed", name)
            self.lose(f"{name}: {error!r}")

    @contextmanager
    def _urgently(self) -> Iterator[None]:
        """Hold the lock before the bulk gets it again."""
        self._calm.clear()
        self._urgent.value = 1
        with self._memory:
            self._urgent.value = 0
            self._calm.set()
            yield

    @contextmanager
    def _patiently(self) -> Iterator[None]:
        self._calm.wait()
        with self._memory:
            yield

    def _add(self, space: Space) -> None:
        self._spaces[space.userfault] = space
        self._events.register(space.userfault, select.EPOLLIN)

    def _forget(self, space: Space) -> None:
        """The process has exited."""
        with self._memory:
            if not space.gone:
                space.gone = True
                del self._spaces[space.userfault]
                os.close(space.userfault)
            self._memory.notify_all()

    def _serve_faults(self) -> None:
        """Read events, then answer the faults that are owed; one may have to wait for further events."""
        answer_first()
        buffer = memoryview(mmap.mmap(-1, FAULT_BYTES))
        owed: list[Fault] = []
        pause_s = POLL_S
        while self.state in (SinkState.WAITING, SinkState.DRAINING):
            self._flowing.wait()
            for descriptor, _ in self._events.poll(pause_s):
                with self._urgently():
                    space = self._spaces.get(descriptor)
                    if space is not None and self._flowing.is_set():
                        owed += self._read_events(space)
            pause_s = POLL_S
            if owed and self._flowing.is_set():
                before = len(owed)
                owed = self._answer_faults(owed, buffer)
                pause_s = 0.0 if len(owed) < before else OWED_S

    def _read_events(self, space: Space) -> list[Fault]:
        """Read all events of a space; follow them, and return the faults among them. The lock is held."""
        faults: list[Fault] = []
        now = time.monotonic()
        while event := userfault.read_event(space.userfault):
            if event.kind is Kind.PAGEFAULT:
                faults.append((space, event.first, now))
            elif event.kind is Kind.FORK:
                self.guard.hold(event.first)
                self._add(space.child(event.first))
            else:
                space.follow(event)
        return faults

    def _answer_faults(self, owed: list[Fault], buffer: memoryview) -> list[Fault]:
        """Answer faults, several at once; return those that are still owed."""
        batch, later = owed[:FAULTS_AT_ONCE], owed[FAULTS_AT_ONCE:]
        link = self.link(FAULTS)
        asked: list[tuple[Fault, Range]] = []
        try:
            for fault in batch:
                part = self._wanted(fault, asked)
                if part is None:
                    later.append(fault)
                elif part.start < part.end:
                    ask(link, PAGES, fault[0].pid, part.origin, part.end - part.start)
                    asked.append((fault, part))
            for fault, part in asked:
                pages, wire = receive_pages(link, buffer, (part.end - part.start) // PAGE_BYTES)
                self.statistics.wire_bytes += wire
                if not self._fill(fault[0], part, pages, self._urgently, fault):
                    later.append(fault)
        except OSError as error:
            self._mend_faults(link, error)
            return owed
        return later

    def _wanted(self, fault: Fault, asked: list[tuple[Fault, Range]]) -> Range | None:
        """Return what to ask for: an empty range when the fault is answered, None when it has to wait."""
        space, address, _ = fault
        if any(space is other[0] and part.start <= address < part.end for other, part in asked):
            return None
        with self._urgently():
            if space.gone:
                return Range(0, 0, 0)
            found = space.pending.find(address, address + FAULT_BYTES)
            if found and found[0].start == address:
                space.asked.drop(address, found[0].end)
                space.cursor = found[0].end
                return found[0]
            done = _give_zero(space, address)
        if done:
            self._note(fault)
        return Range(0, 0, 0) if done else None

    def _note(self, fault: Fault) -> None:
        self.statistics.faults += 1
        self.statistics.latencies.note(time.monotonic() - fault[2])

    def _fill(self, space: Space, part: Range, pages: Pages, lock: Lock, fault: Fault | None = None) -> bool:
        """Fill an answer in small steps; return whether nothing of it, or of the fault, is missing any more."""
        try:
            first = 0
            while first < pages.count:
                with lock():
                    if space.gone:
                        return True
                    last = min(first + LOCKED_PAGES, pages.count)
                    first = space.fill(part, pages, first, last, self.statistics)
        except TreeGoneError:
            self._forget(space)
            return True
        if fault is None:
            return True
        with self._memory:
            answered = not space.pending.find(fault[1], fault[1] + PAGE_BYTES)
        if answered:
            self._note(fault)
        return answered

    def _serve_bulk(self, purpose: str) -> None:
        buffer = memoryview(mmap.mmap(-1, BULK_BYTES))  # on a page's border, where the kernel copies fastest
        under_way: deque[Request] = deque()
        while self.state is SinkState.DRAINING:
            link = self.link(purpose)
            try:
                self._ask_on(link, under_way)
                if under_way:
                    self._receive(link, under_way, buffer)
                elif not self._rest():
                    self.complete()
            except OSError as error:
                self._end_requests(under_way)
                if not self._mend_bulk(purpose, link, error):
                    return

    def _ask_on(self, link: Link, under_way: deque[Request]) -> None:
        while len(under_way) < BULK_UNDER_WAY:
            with self._patiently():
                request = self._next_request()
            if request is None:
                return
            space, part, held = request
            under_way.append(request)
            ask(link, HELD if held else PAGES, space.pid, part.origin, part.end - part.start)

    def _next_request(self) -> Request | None:
        """Return what to ask for next; the lock is held."""
        for space in self._spaces.values():
            if found := space.next_range(BULK_BYTES):
                space.under_way += 1
                return space, *found
        return None

    def _receive(self, link: Link, under_way: deque[Request], buffer: memoryview) -> None:
        space, part, held = under_way[0]
        if held:
            ranges = receive_held(link)
            with self._patiently():
                space.narrow(part, ranges)
        else:
            pages, wire = receive_pages(link, buffer, (part.end - part.start) // PAGE_BYTES)
            self._fill(space, part, pages, self._patiently)
            with self._patiently():
                self.statistics.wire_bytes += wire
        under_way.popleft()
        with self._memory:
            space.under_way -= 1
            self._memory.notify_all()

    def _rest(self) -> bool:
        """Wait a moment for what others bring; return whether anything is missing."""
        with self._memory:
            missing = any(not space.pending.empty for space in self._spaces.values())
            if missing:
                self._memory.wait(POLL_S)
            return missing

    def _end_requests(self, under_way: deque[Request]) -> None:
        """Nothing of this will come; the next pass asks for it."""
        with self._memory:
            for space, _, _ in under_way:
                space.under_way -= 1
        under_way.clear()

    def _mend_faults(self, broken: Link, error: OSError) -> None:
        """Freeze the tree, wait for the source to call again, and let the tree go on."""
        _log.warning("the %s link broke: %s", FAULTS, error)
        ours = self.freeze_tree()
        prefer(self._link_again(FAULTS, broken, error))
        if ours:
            self.thaw_tree()

    def _mend_bulk(self, purpose: str, broken: Link, error: OSError) -> bool:
        """Wait for the source to call again; return whether it has. The last of these links must come back."""
        if self.state is not SinkState.DRAINING:
            return False
        _log.warning("the %s link broke: %s", purpose, error)
        try:
            self._link_again(purpose, broken, error)
        except ExecutionError:
            with self._memory:
                self._bulk_links -= 1
                if not self._bulk_links:
                    raise
            return False
        return True

    def _link_again(self, purpose: str, broken: Link, error: OSError) -> Link:
        with self.changed:
            if self.state is SinkState.LOST:
                raise ExecutionError("the drain is lost", code="drain-lost")
            if self.links.get(purpose) is broken:
                del self.links[purpose]
        broken.hang_up()
        try:
            link = self.link(purpose, self.order.reconnect_limit_s)
        except ExecutionError as failure:
            raise ExecutionError(
                f"the page source is gone: {error}; it did not call again within "
                f"{self.order.reconnect_limit_s:g} s",
                code="source-lost",
            ) from failure
        _log.warning("the %s link is back", purpose)
        return link


def _give_zero(space: Space, address: int) -> bool:
    """Give a page the process never had before, or wake who waits for one that has come; the lock is held."""
    try:
        return userfault.fill_zero(space.userfault, address)
    except TreeGoneError:
        return True
