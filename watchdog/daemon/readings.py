"""The readings the tick judges: in memory for speed, on disk for the next start."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from watchdog.policy.evaluate import ReadingHistory, SeriesKey
from watchdog.signals.model import Reading
from watchdog.signals.reader import Remembered
from watchdog.signals.store import DAY_S, ReadingStore

MEMORY_READINGS = 2000  # of one series; windows that reach further back see what is older on disk at start


class Readings:
    """All readings of the window; safe to share between threads."""

    def __init__(self, path: Path, keep_days: float, window_days: float) -> None:
        self._store = ReadingStore(path, keep_days)
        self._lock = threading.Lock()
        self._series: dict[SeriesKey, list[Reading]] = {}
        self._window_s = window_days * DAY_S
        for reading in self._store.since(time.time() - self._window_s):
            self._add(reading)
        self.version = 0

    def take(self, readings: Sequence[Reading]) -> None:
        """Take new readings from a reader's thread."""
        self._store.append(readings)
        with self._lock:
            for reading in readings:
                self._add(reading)
            self.version += 1

    def history(self) -> ReadingHistory:
        """Return what the evaluation sees."""
        with self._lock:
            return ReadingHistory({key: tuple(series) for key, series in self._series.items()})

    def remembered(self, now: float) -> Remembered:
        """Return what readers knew before the daemon was restarted."""
        return self._store.remembered(now)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _add(self, reading: Reading) -> None:
        series = self._series.setdefault((reading.signal, reading.device.identity), [])
        series.append(reading)
        oldest = reading.at - self._window_s
        while len(series) > MEMORY_READINGS or series[0].at < oldest:
            del series[0]
