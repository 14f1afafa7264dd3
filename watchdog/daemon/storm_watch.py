"""Asks the other hosts how they are, for as long as this one is failing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from migrator.errors import LifeboatError
from migrator.peers.neighbours import Survey

_log = logging.getLogger(__name__)


class StormWatch:
    """One survey at a time, in a thread; the tick looks at the latest and never waits."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._thread: threading.Thread | None = None
        self._begun_at = float("-inf")
        self._lock = threading.Lock()
        self._latest: Survey | None = None

    @property
    def latest(self) -> Survey | None:
        """Return the latest survey since `forget`, None while there is none."""
        with self._lock:
            return self._latest

    def forget(self) -> None:
        """This host is not failing any more: the next time it asks anew."""
        with self._lock:
            self._latest = None
            self._begun_at = float("-inf")

    def look(self, survey: Callable[[], Survey], done: Callable[[], None]) -> None:
        """Begin a survey when none is under way and the last is old enough; `done` is called at its end."""
        if self.asking or time.monotonic() - self._begun_at < self._every_s:
            return
        self._begun_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(survey, done), name="survey", daemon=True)
        self._thread.start()

    @property
    def asking(self) -> bool:
        """Say whether a survey is under way."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, survey: Callable[[], Survey], done: Callable[[], None]) -> None:
        try:
            found = survey()
        except (LifeboatError, OSError) as error:  # a host whose disk fails must not wait for ever to be asked
            _log.warning("the other hosts cannot be asked how they are: %s", error)
            found = Survey((), ())
        with self._lock:
            self._latest = found
        done()
