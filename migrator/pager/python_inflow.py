"""An inflow in Python, for hosts on which the C part was not built (inflow.c, which does the same).

One lock is held while events are read and while pages are filled (see `space`). Who answers faults goes first for
that lock, and the bulk follows the faults: it goes on behind the page that was touched last.
"""

from __future__ import annotations

import mmap
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from migrator.errors import ExecutionError
from migrator.pager import userfault
from migrator.pager.greeting import HELD, PAGES, ask, receive_held, receive_pages
from migrator.pager.guard import Holder
from migrator.pager.links import Link
from migrator.pager.packing import PAGE_BYTES, Pages
from migrator.pager.pending import Range
from migrator.pager.space import Space
from migrator.pager.statistics import Statistics
from migrator.pager.userfault import Kind, TreeGoneError

FAULT_BYTES = 8 << 10  # the bulk goes on behind it, so its neighbours come next
FAULTS_AT_ONCE = 16
BULK_BYTES = 1 << 20
BULK_UNDER_WAY = 4
LOCKED_PAGES = 16  # so much is filled before a fault may have the lock
POLL_S = 0.05
OWED_S = 0.001  # until faults are tried again that had to wait for an event; nobody runs while we do not sleep

Lock = Callable[[], AbstractContextManager[None]]
Fault = tuple[Space, int, float]  # the address, and when it was read
Request = tuple[Space, Range, bool]  # whether it asks what is held, not for pages


class PythonInflow:
    """See `Inflow`."""

    def __init__(self, guard: Holder) -> None:
        self._guard = guard
        self._spaces: dict[int, Space] = {}  # by userfaultfd
        self._events = select.epoll()
        self._memory = threading.Condition(threading.Lock())
        self._calm = threading.Event()  # no fault waits for the lock
        self._calm.set()
        self._flowing = True
        self._owed: list[Fault] = []
        self._buffer = memoryview(mmap.mmap(-1, FAULT_BYTES))
        self._statistics = Statistics()

    def add(self, pid: int, userfault: int, ranges: list[tuple[int, int]]) -> None:
        """See `Inflow`."""
        with self._memory:
            self._add(Space.of(pid, userfault, ranges))

    def hold(self) -> None:
        """See `Inflow`."""
        with self._urgently():
            self._flowing = False

    def release(self) -> None:
        """See `Inflow`."""
        with self._urgently():
            self._flowing = True

    def answer(self, link: Link) -> None:
        """See `Inflow`; one fault may have to wait for further events."""
        pause_s = 0.0 if self._owed else POLL_S
        while True:
            found = self._events.poll(pause_s)
            with self._urgently():
                if not self._flowing:
                    return
                for descriptor, _ in found:
                    if space := self._spaces.get(descriptor):
                        self._read_events(space, self._owed)
            if not found and not self._owed:
                return
            before = len(self._owed)
            self._owed = self._answer_faults(link, self._owed)
            pause_s = POLL_S if not self._owed else 0.0 if len(self._owed) < before else OWED_S

    def fetcher(self) -> PythonFetcher:
        """See `Inflow`."""
        return PythonFetcher(self)

    def rest(self) -> bool:
        """See `Inflow`."""
        with self._memory:
            missing = any(not space.pending.empty for space in self._spaces.values())
            if missing:
                self._memory.wait(POLL_S)
            return missing

    def poison(self) -> tuple[int, bool]:
        """See `Inflow`; forks that were not heard of yet are followed."""
        total = 0
        with self._memory:
            for space in list(self._spaces.values()):
                with suppress(TreeGoneError):
                    self._read_events(space, [])
                    total += space.poison()
            return total, all(space.pending.empty for space in self._spaces.values())

    def surrender(self) -> list[int]:
        """See `Inflow`."""
        with self._memory:
            for space in self._spaces.values():
                space.gone = True
            found = list(self._spaces)
            self._spaces.clear()
            return found

    @property
    def received_bytes(self) -> int:
        """See `Inflow`."""
        return self._statistics.received_bytes

    def tell(self) -> dict[str, object]:
        """See `Inflow`."""
        with self._memory:
            missing = sum(space.pending.bytes for space in self._spaces.values())
        return self._statistics.tell(time.monotonic(), missing)

    @contextmanager
    def _urgently(self) -> Iterator[None]:
        """Hold the lock before the bulk gets it again."""
        self._calm.clear()
        with self._memory:
            self._calm.set()
            yield

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Hold the lock when no fault waits for it."""
        self._calm.wait()
        with self._memory:
            yield

    def next_request(self) -> Request | None:
        """Return what the bulk is to ask for next; the lock is held."""
        for space in self._spaces.values():
            if found := space.next_range(BULK_BYTES):
                space.under_way += 1
                return space, *found
        return None

    def fill(self, space: Space, part: Range, pages: Pages, wire_bytes: int, lock: Lock | None = None) -> None:
        """Fill an answer in small steps."""
        for first in range(0, pages.count, LOCKED_PAGES):
            with (lock or self.patiently)():
                if space.gone or not self._flowing:
                    break
                try:
                    last = min(first + LOCKED_PAGES, pages.count)
                    with _no_way_on():
                        space.fill(part, pages, first, last, self._statistics)
                except TreeGoneError:
                    self._forget(space)
        with (lock or self.patiently)():
            self._statistics.wire_bytes += wire_bytes

    def end_request(self, space: Space) -> None:
        """A request of the bulk was answered, or will not be."""
        with self._memory:
            space.under_way -= 1
            self._memory.notify_all()

    def _add(self, space: Space) -> None:
        self._spaces[space.userfault] = space
        self._events.register(space.userfault, select.EPOLLIN)

    def _forget(self, space: Space) -> None:
        """The process has exited; the lock is held."""
        if not space.gone:
            space.gone = True
            del self._spaces[space.userfault]
            self._events.unregister(space.userfault)  # the guard holds it, too: it stays open
            os.close(space.userfault)

    def _read_events(self, space: Space, faults: list[Fault]) -> None:
        """Read all events of a space; follow them, and note the faults among them. The lock is held."""
        now = time.monotonic()
        with _no_way_on():
            while event := userfault.read_event(space.userfault):
                if event.kind is Kind.PAGEFAULT:
                    faults.append((space, event.first, now))
                elif event.kind is Kind.FORK:
                    self._guard.hold(event.first)
                    self._add(space.child(event.first))
                else:
                    space.follow(event)

    def _answer_faults(self, link: Link, owed: list[Fault]) -> list[Fault]:
        """Answer faults, several at once; return those that are still owed. Raises `OSError`."""
        batch, later = owed[:FAULTS_AT_ONCE], owed[FAULTS_AT_ONCE:]
        asked: list[tuple[Fault, Range]] = []
        for fault in batch:
            part = self._wanted(fault, asked)
            if part is None:
                later.append(fault)
            elif part.start < part.end:
                ask(link, PAGES, fault[0].pid, part.origin, part.end - part.start)
                asked.append((fault, part))
        for fault, part in asked:
            pages, wire = receive_pages(link, self._buffer, (part.end - part.start) // PAGE_BYTES)
            self.fill(fault[0], part, pages, wire, self._urgently)
            if not self._is_answered(fault):
                later.append(fault)
        return later

    def _wanted(self, fault: Fault, asked: list[tuple[Fault, Range]]) -> Range | None:
        """Return what to ask for: an empty range when the fault is answered, None when it has to wait."""
        space, address, _ = fault
        if any(space is other[0] and part.start <= address < part.end for other, part in asked):
            return None
        with self._urgently():
            if space.gone:
                return Range(0, 0, 0)
            if not self._flowing:
                return None
            found = space.pending.find(address, address + FAULT_BYTES)
            if found and found[0].start == address:
                space.asked.drop(address, found[0].end)
                space.cursor = found[0].end
                return found[0]
            done = self._give_zero(space, address)
        if done:
            self._note(fault)
        return Range(0, 0, 0) if done else None

    def _is_answered(self, fault: Fault) -> bool:
        space, address, _ = fault
        with self._urgently():
            answered = space.gone or not space.pending.find(address, address + PAGE_BYTES)
        if answered:
            self._note(fault)
        return answered

    def _note(self, fault: Fault) -> None:
        self._statistics.faults += 1
        self._statistics.latencies.note(time.monotonic() - fault[2])

    def _give_zero(self, space: Space, address: int) -> bool:
        """Give a page the process never had, or wake who waits for one that has come; the lock is held."""
        try:
            with _no_way_on():
                return userfault.fill_zero(space.userfault, address)
        except TreeGoneError:
            self._forget(space)
            return True


class PythonFetcher:
    """See `Fetcher`."""

    def __init__(self, inflow: PythonInflow) -> None:
        self._inflow = inflow
        self._buffer = memoryview(mmap.mmap(-1, BULK_BYTES))  # on a page's border, where the kernel copies fastest
        self._under_way: deque[Request] = deque()

    def fetch(self, link: Link) -> None:
        """See `Fetcher`."""
        try:
            self._ask_on(link)
            while self._under_way:
                self._receive(link)
                self._ask_on(link)
        except OSError:
            while self._under_way:
                self._end_request()
            raise

    def _ask_on(self, link: Link) -> None:
        while len(self._under_way) < BULK_UNDER_WAY:
            with self._inflow.patiently():
                request = self._inflow.next_request()
            if request is None:
                return
            space, part, held = request
            self._under_way.append(request)
            ask(link, HELD if held else PAGES, space.pid, part.origin, part.end - part.start)

    def _receive(self, link: Link) -> None:
        space, part, held = self._under_way[0]
        if held:
            ranges = receive_held(link, part.origin, part.origin + part.end - part.start)
            with self._inflow.patiently():
                space.narrow(part, ranges)
        else:
            pages, wire = receive_pages(link, self._buffer, (part.end - part.start) // PAGE_BYTES)
            self._inflow.fill(space, part, pages, wire)
        self._end_request()

    def _end_request(self) -> None:
        self._inflow.end_request(self._under_way.popleft()[0])


@contextmanager
def _no_way_on() -> Iterator[None]:
    """What the kernel refuses is no broken link, after which one could go on: raises `ExecutionError`."""
    try:
        yield
    except OSError as error:
        raise ExecutionError(f"the pager: {error}", code="pager") from error
