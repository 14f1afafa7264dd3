"""Our own page sink: faults first, on a link of their own; everything else in bulk, on one or more links.

Each link has a thread; the pages are the inflow's. When the link for faults breaks the tree is frozen; the source
calls again, and what had not come is asked for anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from migrator.errors import ExecutionError, LifeboatError
from migrator.pager.greeting import BULK, FAULTS
from migrator.pager.images import lazy_ranges
from migrator.pager.inflow import inflow
from migrator.pager.links import Link, prefer
from migrator.pager.priority import answer_first, let_others_run
from migrator.pager.restored import Task
from migrator.pager.room import Room
from migrator.pager.sink import Sink, SinkOrder, SinkState

POLL_S = 0.05
ROOM_POLL_S = 0.01  # 10 GB/s bring in that time what a room is ahead
POISON_LIMIT_S = 2.0

_log = logging.getLogger("sink")


class OwnSink(Sink):
    """Brings the pages itself."""

    def __init__(self, directory: Path, order: SinkOrder) -> None:
        super().__init__(directory, order)
        self._room = Room(directory, order.room_bytes)
        self._image_files = Path()
        self._inflow = inflow(self.guard)
        self._flowing = threading.Event()
        self._flowing.set()
        self._began = False
        self._links_lock = threading.Lock()
        self._bulk_links = 0

    def brace(self) -> None:
        """Make no more room: it takes the processor's and the kernel's time."""
        self._room.suffice()

    def begin(self, images: Path) -> None:
        """Begin to answer faults; the restore itself has a few."""
        self._room.yield_to(0)
        prefer(self.link(FAULTS))
        self._image_files = images
        if not self._began:
            self._began = True
            self._start(self._serve_faults, FAULTS)

    def take(self, task: Task) -> None:
        """Know what is missing of a new process."""
        if task.userfault is not None:
            self._inflow.add(task.pid, task.userfault, lazy_ranges(self._image_files, task.pid))

    def hold(self) -> None:
        """Give no page until `release`."""
        self._flowing.clear()
        self._inflow.hold()

    def release(self) -> None:
        """Give pages, and begin to fetch all others."""
        self._inflow.release()
        self._flowing.set()
        purposes = [purpose for purpose in list(self.links) if purpose.startswith(BULK)]
        if not purposes:
            raise ExecutionError("the page source does not call (bulk)", code="no-page-source")
        self._bulk_links = len(purposes)
        for purpose in purposes:
            self._start(partial(self._serve_bulk, purpose), purpose)
        self._start(self._yield_room, "room")

    @property
    def drained_bytes(self) -> int:
        """Return how much has come."""
        return self._inflow.received_bytes

    def details(self) -> dict[str, object]:
        """Return what `statistics` counts."""
        return self._inflow.tell()

    def surrender_userfaults(self) -> list[int]:
        """Return all of them, to be closed; from here on none is used."""
        return self._inflow.surrender()

    def poison(self) -> int:
        """See `Sink.poison`."""
        total, done = self._inflow.poison()
        deadline = time.monotonic() + POISON_LIMIT_S
        while not done and time.monotonic() < deadline:
            time.sleep(POLL_S)  # for whoever has to be woken by an event that was read
            more, done = self._inflow.poison()
            total += more
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

    def _serve_faults(self) -> None:
        answer_first()
        while not self.is_over:
            self._flowing.wait()
            link = self.link(FAULTS)
            try:
                self._inflow.answer(link)
            except OSError as error:
                self._mend_faults(link, error)

    def _serve_bulk(self, purpose: str) -> None:
        let_others_run()
        fetcher = self._inflow.fetcher()
        while self.state is SinkState.DRAINING:
            link = self.link(purpose)
            try:
                fetcher.fetch(link)
            except OSError as error:
                if not self._mend_bulk(purpose, link, error):
                    return
            else:
                if not self._inflow.rest():
                    self.complete()

    def _yield_room(self) -> None:
        """Return the room that was made, ahead of the pages that come."""
        while self.state is SinkState.DRAINING:
            self._room.yield_to(self.drained_bytes)
            time.sleep(ROOM_POLL_S)
        self._room.close()

    def _mend_faults(self, broken: Link, error: OSError) -> None:
        """Freeze the tree, wait for the source to call again, and let the tree go on.

        When the bulk brings the rest meanwhile, `complete` lets it go on.
        """
        with self.changed:
            if self.is_over:
                return  # nobody needs the link any more
            _log.warning("the %s link broke: %s", FAULTS, error)
            self.freeze_tree()
        prefer(self._link_again(FAULTS, broken, error))
        with self.changed:  # nobody loses it between the look and the thaw
            if self.state is not SinkState.LOST:
                self.thaw_tree()

    def _mend_bulk(self, purpose: str, broken: Link, error: OSError) -> bool:
        """Wait for the source to call again; return whether it has. The last of these links must come back."""
        if self.state is not SinkState.DRAINING:
            return False
        _log.warning("the %s link broke: %s", purpose, error)
        try:
            self._link_again(purpose, broken, error)
        except ExecutionError:
            with self._links_lock:
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
