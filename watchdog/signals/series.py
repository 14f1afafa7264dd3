"""Readings over time, kept small without losing what rules look at. Pure.

Most signals stand still: successive readings of the same value are one *run*, which knows when it began, when
it was last confirmed, and how many readings it is. So counts and spans stay exact, however long nothing
happens. Signals that never stand still are thinned out as they age: of each bucket of time the lowest, the
highest and the last reading are kept, so a limit that was crossed stays crossed, and growth stays growth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from watchdog.signals.model import Device, Reading

SeriesKey = tuple[str, str]
"""Signal, device identity."""


THINNED = ((300.0, 3600.0), (7200.0, 86400.0))
"""(Bucket, age) in seconds: what is older than an hour is thinned to five minutes, than a day to two hours."""


class Run(NamedTuple):
    """Successive readings of one value: `at` is the first, `until` the last (Unix seconds), `readings` how many.

    `value` is None for what was unreadable; `reason` is that of the newest reading.
    """

    at: float
    until: float
    readings: int
    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Series:
    """All runs of one signal of one device, oldest first."""

    signal: str
    device: Device
    runs: tuple[Run, ...]

    @property
    def latest(self) -> Reading:
        """Return the newest reading."""
        last = self.runs[-1]
        return Reading(self.signal, self.device, last.until, last.value, last.reason)

    @property
    def known(self) -> tuple[Run, ...]:
        """Return the runs that have a value."""
        return tuple(run for run in self.runs if run.value is not None)


@dataclass(frozen=True)
class ReadingHistory:
    """The readings of the past of each signal of each device."""

    series: Mapping[SeriesKey, Series]

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> ReadingHistory:
        """Sort readings into series by time."""
        runs: dict[SeriesKey, list[Run]] = {}
        devices: dict[SeriesKey, Device] = {}
        for reading in sorted(readings, key=lambda reading: reading.at):
            key = (reading.signal, reading.device.identity)
            append(runs.setdefault(key, []), reading)
            devices[key] = reading.device
        return cls({key: Series(key[0], devices[key], tuple(found)) for key, found in runs.items()})

    def latest(self) -> tuple[Reading, ...]:
        """Return the newest reading of each series."""
        return tuple(series.latest for series in self.series.values())


def append(runs: list[Run], reading: Reading) -> bool:
    """Add a reading to the runs of its series; return whether it began a new run.

    When the clock was set back, what came before is moved to before the reading: nothing is lost, and no time
    runs backwards.
    """
    if runs and runs[-1].until > reading.at:
        set_back(runs, reading.at)
    if runs and runs[-1].value == reading.value:
        last = runs[-1]
        runs[-1] = Run(last.at, reading.at, last.readings + 1, last.value, reading.reason)
        return False
    runs.append(Run(reading.at, reading.at, 1, reading.value, reading.reason))
    return True


def set_back(runs: list[Run], at: float) -> None:
    """Move what lies after a time to that time."""
    for index in range(len(runs) - 1, -1, -1):
        run = runs[index]
        if run.until <= at:
            break
        runs[index] = run._replace(at=min(run.at, at), until=at)


def thinned(runs: Sequence[Run], before: float, bucket_s: float) -> Iterator[Run]:
    """Return the runs, of those older than `before` only the lowest, highest and last of each bucket.

    The kept ones count for the others, and what was unreadable stays. Thinning twice changes nothing.
    """
    for bucket, group in groupby(runs, key=lambda run: run.until // bucket_s):
        found = list(group)
        if (bucket + 1) * bucket_s > before or len(found) <= 3:
            yield from found
            continue
        kept = _kept(found)
        lost = sum(run.readings for number, run in enumerate(found) if number not in kept)
        for number in sorted(kept):
            run = found[number]
            own = 0 if run.value is None else lost
            lost -= own
            yield run._replace(readings=run.readings + own)


def _kept(found: Sequence[Run]) -> set[int]:
    """Return which runs of a bucket stay: what was unreadable, the lowest, the highest, and the last value."""
    unreadable = {number for number, run in enumerate(found) if run.value is None}
    known = [number for number in range(len(found)) if number not in unreadable]
    if not known:
        return unreadable
    low = min(known, key=lambda number: found[number].value or 0.0)
    high = max(known, key=lambda number: found[number].value or 0.0)
    return unreadable | {low, high, known[-1]}
