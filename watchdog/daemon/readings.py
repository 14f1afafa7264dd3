"""The readings the tick judges: in memory what rules look at, on disk the whole past."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from watchdog.signals.model import Device, Reading
from watchdog.signals.reader import Remembered
from watchdog.signals.series import THINNED, ReadingHistory, Run, Series, SeriesKey, append, thinned
from watchdog.signals.store import DAY_S, PRUNE_S, ReadingStore

ABSENT = ("disk.missing", "smart.unresponsive", "disk.offline")


class Readings:
    """All readings; safe to share between threads.

    Of a signal that no rule names only the newest run stays in memory, of the others as much as rules look back.
    """

    def __init__(
        self, path: Path, keep_days: float, keep_mb: float, now: float, forgotten: Iterable[str] = ()
    ) -> None:
        """`forgotten` are identities of devices that were replaced; see `forget`."""
        self._store = ReadingStore(path, keep_days, keep_mb)
        self._keep_s = keep_days * DAY_S
        self._lock = threading.Lock()
        self._runs: dict[SeriesKey, list[Run]] = {}
        self._devices: dict[SeriesKey, Device] = {}
        self._shown: dict[SeriesKey, Series] = {}
        self._look_back: Mapping[str, float] = {}
        self._trimmed_at = now
        self.forgotten = frozenset(forgotten)
        self.version = 0
        self.look_back({}, now)

    def look_back(self, wanted: Mapping[str, float], now: float) -> None:
        """Keep in memory of each named signal what is not older than so many seconds, and read it from disk."""
        found = dict(self._store.newest().series)
        for signal, seconds in wanted.items():
            found.update(self._store.history(now - seconds, (signal,)).series)
        with self._lock:
            self._look_back = dict(wanted)
            for key, series in found.items():
                self._runs[key] = list(series.runs)
                self._devices[key] = series.device
            self._trim(now)
            self.version += 1

    def take(self, told: Sequence[Reading]) -> None:
        """Take new readings from a reader's thread."""
        readings = [reading for reading in told if not self._is_of_forgotten(reading)]
        self._store.append(readings)
        with self._lock:
            for reading in readings:
                key = (reading.signal, reading.device.identity)
                runs = self._runs.setdefault(key, [])
                if append(runs, reading) and reading.signal not in self._look_back:
                    del runs[:-1]
                self._devices[key] = reading.device
                self._shown.pop(key, None)
            newest = max((reading.at for reading in readings), default=self._trimmed_at)
            if abs(newest - self._trimmed_at) >= PRUNE_S:
                self._trim(newest)
            self.version += 1

    def history(self) -> ReadingHistory:
        """Return what the evaluation sees."""
        with self._lock:
            for key, runs in self._runs.items():
                if key not in self._shown:
                    self._shown[key] = Series(key[0], self._devices[key], tuple(runs))
            return ReadingHistory(dict(self._shown))

    def past(self, since: float) -> ReadingHistory:
        """Return everything on disk that reaches beyond a time (Unix seconds)."""
        return self._store.history(since)

    def remembered(self, now: float) -> Remembered:
        """Return what readers knew before the daemon was restarted."""
        return self._store.remembered(now)

    def forget(self, identity: str) -> None:
        """Forget all readings of a device: it was replaced. That it is gone is no news until it is seen again."""
        self._store.forget(identity)
        with self._lock:
            self.forgotten |= {identity}
            for key in [key for key in self._runs if key[1] == identity]:
                for table in (self._runs, self._devices, self._shown):
                    table.pop(key, None)
            self.version += 1

    def _is_of_forgotten(self, reading: Reading) -> bool:
        identity = reading.device.identity
        if identity not in self.forgotten:
            return False
        if is_absence(reading):
            return True
        with self._lock:
            self.forgotten -= {identity}
        return False

    def used_bytes(self) -> int:
        """Return how much of the file is in use."""
        return self._store.used_bytes()

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        self._store.close()

    def _trim(self, now: float) -> None:
        """Drop what no rule looks back to, and thin out the rest as it is thinned out on disk."""
        self._trimmed_at = now
        for key in [key for key, runs in self._runs.items() if runs[-1].until < now - self._keep_s]:
            del self._runs[key]
        for key, runs in self._runs.items():
            oldest = now - self._look_back.get(key[0], -math.inf)
            kept = [run for run in runs[:-1] if run.until >= oldest]
            for bucket_s, age_s in THINNED:
                kept = list(thinned(kept, now - age_s, bucket_s))
            self._runs[key] = [*kept, *runs[-1:]]
        self._shown.clear()


def is_absence(reading: Reading) -> bool:
    """Say whether a reading only tells that its device is not there. Pure."""
    return reading.value is None or (reading.signal in ABSENT and reading.value == 1.0)
