"""Memory this host holds for evacuations of others: a promise with an expiry, renewed while they go on.

Each evacuating host has one promise here. A new one replaces it, and every migration that comes takes its
part of it, so that nothing is counted twice. What nobody renews is free again by itself.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pydantic import Field

from migrator.model import Value
from migrator.names import Bytes, HostName

LONGEST_S = 300.0


class Hold(Value):
    """A host asks that memory be held for what it will send."""

    source: HostName
    memory_bytes: Bytes
    seconds: float = Field(ge=0)


class Held(Value):
    """How much is held for it from now on: what it asked for, or nothing."""

    memory_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class _Promise:
    memory_bytes: int
    until: float


class Reservations:
    """The promises of one host, in memory only: after a restart the evacuating hosts ask again."""

    def __init__(self) -> None:
        self._promises: dict[str, _Promise] = {}
        self._lock = threading.Lock()

    def hold(self, wish: Hold, free_bytes: int, now: float) -> Held:
        """Promise what is asked for, all or nothing; `free_bytes` is what no migration takes and no headroom.

        `now` is monotonic time in seconds.
        """
        with self._lock:
            others = self._others(wish.source, now)
            if wish.memory_bytes > free_bytes - others:
                self._promises.pop(wish.source, None)
                free = max(0, free_bytes - others) >> 20
                return Held(memory_bytes=0, reason=f"{wish.memory_bytes >> 20} MiB asked for, {free} MiB are free")
            if wish.memory_bytes > 0:
                until = now + min(wish.seconds, LONGEST_S)
                self._promises[wish.source] = _Promise(wish.memory_bytes, until)
            else:
                self._promises.pop(wish.source, None)
            return Held(memory_bytes=max(0, wish.memory_bytes))

    def take(self, source: str, memory_bytes: int) -> None:
        """A migration came: its part of the promise is a reservation of its own from here on."""
        with self._lock:
            promise = self._promises.get(source)
            if promise is not None:
                left = max(0, promise.memory_bytes - memory_bytes)
                self._promises[source] = _Promise(left, promise.until)

    def held(self, now: float) -> dict[str, int]:
        """Return what is held for whom."""
        with self._lock:
            return {source: item.memory_bytes for source, item in self._promises.items() if item.until > now}

    def held_for_others(self, source: str, now: float) -> int:
        """Return what is held for everyone but one host."""
        with self._lock:
            return self._others(source, now)

    def _others(self, source: str, now: float) -> int:
        return sum(
            item.memory_bytes for holder, item in self._promises.items() if holder != source and item.until > now
        )
