"""Whose turn it is: how many migrations of this host may be away, or frozen, at once.

A migration is *away* from the park to the end of its drain. While one drains the next is parked and frozen,
so the link is never idle; but one freeze at a time, for eleven freezes at once are worse than one after
the other. Who is earliest in the plan goes first among those whose target has a place.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from migrator.planning.limits import Limits

LOOK_S = 0.2  # how soon one who waits notices that it was stopped
SENT_LASTS_S = 60.0  # a target that said it lacked an image does not lack one that was sent since

Ticket = tuple[float, int]


@dataclass
class _Line:
    """One stage: who has a place, who waits for one."""

    places: int
    per_target: int
    held: list[str] = field(default_factory=list)  # targets
    waiting: dict[Ticket, str] = field(default_factory=dict)

    def next_one(self) -> Ticket | None:
        """Return who may go now."""
        if len(self.held) >= self.places:
            return None
        free = (ticket for ticket, target in self.waiting.items() if self.held.count(target) < self.per_target)
        return min(free, default=None)


@dataclass
class _Sending:
    lock: threading.Lock = field(default_factory=threading.Lock)
    sent_at: float = float("-inf")


class Turns:
    """The lines of one host; safe to share between threads."""

    def __init__(self, limits: Limits | None = None) -> None:
        chosen = limits or Limits()
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._away = _Line(chosen.away, chosen.away_per_target)
        self._freezes = _Line(chosen.freezes, chosen.freezes)
        self._images: dict[tuple[str, str], _Sending] = {}

    @contextmanager
    def image(self, target: str, image_id: str) -> Iterator[bool]:
        """Send an image to a target once: the value says whether another migration has sent it meanwhile."""
        with self._changed:
            sending = self._images.setdefault((target, image_id), _Sending())
        with sending.lock:
            yield sending.sent_at > time.monotonic() - SENT_LASTS_S
            sending.sent_at = time.monotonic()

    @contextmanager
    def away(self, target: str, order: float, go_on: Callable[[], None]) -> Iterator[float]:
        """Hold a place among those that are away; the value is how long that took to get, in seconds.

        `order` is the place in the plan, the lowest first. `go_on` raises when the migration was stopped.
        """
        with self._place(self._away, target, order, go_on) as waited_s:
            yield waited_s

    @contextmanager
    def freeze(self, target: str, order: float, go_on: Callable[[], None]) -> Iterator[float]:
        """Hold a place among those that are frozen, from the freeze to the open gate."""
        with self._place(self._freezes, target, order, go_on) as waited_s:
            yield waited_s

    @contextmanager
    def _place(self, line: _Line, target: str, order: float, go_on: Callable[[], None]) -> Iterator[float]:
        began_at = time.monotonic()
        ticket = (order, next(self._numbers))
        with self._changed:
            line.waiting[ticket] = target
            try:
                while line.next_one() != ticket:
                    go_on()
                    self._changed.wait(LOOK_S)
                line.held.append(target)
            finally:
                del line.waiting[ticket]
                self._changed.notify_all()
        try:
            yield time.monotonic() - began_at
        finally:
            with self._changed:
                line.held.remove(target)
                self._changed.notify_all()
