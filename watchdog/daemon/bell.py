"""Wakes one waiting thread; may be rung by any thread, and by a signal handler.

A `threading.Event` may not: its lock is taken by the very thread that the handler interrupts.
"""

from __future__ import annotations

import os
import select


class Bell:
    """Something to wait for."""

    def __init__(self) -> None:
        self._counter = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._counter, select.POLLIN)

    def ring(self) -> None:
        """Wake who waits, or who waits next."""
        os.eventfd_write(self._counter, 1)

    def wait(self, limit_s: float) -> bool:
        """Wait until it rings, at most so long; return whether it did."""
        if not self._poll.poll(limit_s * 1000):
            return False
        os.eventfd_read(self._counter)
        return True
