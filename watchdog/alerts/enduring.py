"""An outbox that takes everything: on disk, and in memory what the disk does not take.

The disk may be the one that fails, and the alert about it must go out. What is kept in memory has the same rows and
the same pauses as on disk, and is written there as soon as the disk takes it; a daemon that dies before loses it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from watchdog.alerts.model import Event
from watchdog.alerts.outbox import Outbox, Parcel

KEPT_PARCELS = 500  # in memory; beyond that the oldest are lost, those first that need not be delivered any more

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


class EnduringOutbox:
    """As `Outbox`, and no call raises for a disk's sake; safe to share between threads."""

    def __init__(self, path: Path, opened: Callable[[Path], Outbox] = Outbox) -> None:
        self._path = path
        self._opened = opened
        self._lock = threading.RLock()
        self._disk: Outbox | None = None
        self._memory = Outbox(None)
        self._failing = False
        self._try(lambda disk: disk.waiting())

    def put(self, event: Event, urls: tuple[str, ...]) -> None:
        """Keep an event for its receivers. Putting it again changes nothing, unless the disk cannot be read."""
        with self._lock:
            if self._try(lambda disk: disk.put(event, urls)) is not None:
                self._failing = False
                return
            self._memory.put(event, urls)
            self._drop()

    def due(self, now: float) -> tuple[Parcel, ...]:
        """Return the parcels to be delivered now, oldest first."""
        with self._lock:
            self._write_down()
            on_disk = self._try(lambda disk: disk.due(now))
            newer = [item for item in (on_disk[0] if on_disk else ()) if not self._memory.has(item)]
            return tuple(sorted((*self._memory.due(now), *newer), key=lambda item: item.event.at))

    def next_at(self) -> float | None:
        """Return when the next parcel is due (Unix seconds), None while there is none."""
        with self._lock:
            on_disk = self._try(lambda disk: disk.next_at())
            found = (self._memory.next_at(), on_disk[0] if on_disk else None)
        return min((at for at in found if at is not None), default=None)

    def delivered(self, parcel: Parcel) -> None:
        """The receiver has it."""
        self._mark(parcel, lambda outbox: outbox.delivered(parcel))

    def failed(self, parcel: Parcel, reason: str, now: float, limit: int) -> bool:
        """Delivery failed: see `Outbox.failed`."""
        return self._mark(parcel, lambda outbox: outbox.failed(parcel, reason, now, limit))

    def postpone(self, parcel: Parcel, reason: str, now: float) -> None:
        """Its receiver is down: see `Outbox.postpone`."""
        self._mark(parcel, lambda outbox: outbox.postpone(parcel, reason, now))

    def waiting(self) -> int:
        """Return how many parcels wait."""
        return len(self.due(float("inf")))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._write_down()
            if self._disk is not None:
                self._disk.close()
            self._memory.close()

    def _mark(self, parcel: Parcel, mark: Callable[[Outbox], Answer]) -> Answer:
        """Note what became of a parcel, where it is; in memory when its own disk takes no note."""
        with self._lock:
            if not self._memory.has(parcel):
                marked = self._try(mark)
                if marked is not None:
                    return marked[0]
                self._memory.put(parcel.event, (parcel.url,))
            answer = mark(self._memory)
            self._drop()
            return answer

    def _write_down(self) -> None:
        """Write to disk what is only in memory."""
        rows = self._memory.rows()
        if rows and self._try(lambda disk: disk.take_over(rows)) is not None:
            self._memory.clear()
            self._failing = False
            _log.info("%s takes alerts again", self._path)

    def _drop(self) -> None:
        if lost := self._memory.drop_beyond(KEPT_PARCELS):
            _log.error("%d alerts are lost: more than %d wait in memory", lost, KEPT_PARCELS)

    def _try(self, ask: Callable[[Outbox], Answer]) -> tuple[Answer] | None:
        """Return the disk's answer, None when it has none; that is logged once until it takes something again."""
        try:
            if self._disk is None:
                self._disk = self._opened(self._path)
            answer = ask(self._disk)
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                _log.error("%s cannot be used, alerts are kept in memory meanwhile: %s", self._path, error)
            self._failing = True
            return None
        return (answer,)
