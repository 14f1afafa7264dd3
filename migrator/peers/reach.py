"""Whether a peer can be reached while a container stands still for it, by the word of the peer's kernel.

A connection to its port is opened and closed again. The kernel there takes it however busy its programs are; one
that says that nobody listens is there, too: a daemon that was killed comes back.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType
from typing import Self

from migrator.errors import PeerError

EVERY_S = 0.25
ANSWER_S = 0.7  # two tries within the patience, on a link of up to so long a round trip
PATIENCE_S = 1.5  # what is left of two seconds goes into noticing it and giving the container back


class Reach:
    """Asks all the time, in a thread of its own, from `__enter__` to `__exit__`; once."""

    def __init__(self, name: str, address: str, port: int) -> None:
        self._name = name
        self._place = (address, port)
        self._heard_at = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Begin; raises `PeerError` when the peer does not answer even now, before anything stands still."""
        if not (self._answers() or self._answers()):
            raise self._error("does not answer")
        self._heard_at = time.monotonic()
        threading.Thread(target=self._run, name="reach", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def check(self) -> None:
        """Raise `PeerError` when the peer has been silent for `PATIENCE_S`."""
        if time.monotonic() - self._heard_at > PATIENCE_S:
            raise self._error(f"has not answered for {PATIENCE_S:g} s, and the container stands still meanwhile")

    def _error(self, what: str) -> PeerError:
        return PeerError(f"{self._name} {what}", code="peer-silent", temporary=True)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self._place, timeout=ANSWER_S).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            if self._answers():
                self._heard_at = time.monotonic()
