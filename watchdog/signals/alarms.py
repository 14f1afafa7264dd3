"""Waits for all sources that tell by themselves that there is something to read, in one thread (epoll)."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

from migrator.vital import vital_thread

_log = logging.getLogger(__name__)


class Alarms:
    """Calls `wake` with a name when what was armed under it has something to read; once for each arming."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._armed: dict[int, str] = {}
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._thread = vital_thread("alarms", self._run)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait until nothing is called any more."""
        os.eventfd_write(self._stop, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._epoll.close()
        os.close(self._stop)

    def arm(self, name: str, descriptor: int, events: int) -> None:
        """Wait for a descriptor; it fires at once when there is something to read already."""
        with self._lock:
            self._armed[descriptor] = name
            try:
                self._epoll.modify(descriptor, events | select.EPOLLONESHOT)
            except FileNotFoundError:  # not registered, or closed meanwhile and its number used again
                self._epoll.register(descriptor, events | select.EPOLLONESHOT)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._stop:
                    return
                with self._lock:
                    name = self._armed.get(descriptor, "")
                self._wake(name)
