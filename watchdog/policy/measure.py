"""What a condition looks at, and in which spans of time it holds. Pure.

Within one run the value stands still, so what is looked at either stands still as well or, for windows, only
falls, as older growth leaves the window. That is why a run has one part in which a condition holds, and then one
in which it does not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import median

from watchdog.policy.model import Change, Condition
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind
from watchdog.signals.series import Run, Series

PRECISION_S = 1.0
SAMPLES = 32
"""Points a trend is fitted to: Theil and Sen's median of all slopes, which single readings cannot move."""

LEAST_SHARE = 0.5  # of its window a trend must rest on
NEVER_S = math.inf


@dataclass(frozen=True)
class Span:
    """A time in which a condition does not change: from the first reading to the last, and how many there are.

    `clears` is its opposite, but for values between `clear_at` and the limit. With `readings` 0 it is known at
    every moment, and not only when something is read.
    """

    start: float
    end: float
    readings: int
    holds: bool
    clears: bool


class Past:
    """The runs of a series that have a value, and how far a counter had grown when each began."""

    def __init__(self, series: Series) -> None:
        self.runs = series.known
        steps = ((after.value or 0.0) - (before.value or 0.0) for before, after in pairwise(self.runs))
        # A fall is a reset (driver reloaded, counters cleared), never a negative growth.
        self._grown = list(accumulate((max(step, 0.0) for step in steps), initial=0.0))

    def first_within(self, index: int, since: float) -> int:
        """Return the last run up to `index` that began at or before a time, or the first of all."""
        return max(bisect_right(self.runs, since, hi=index + 1, key=lambda run: run.at) - 1, 0)

    def growth(self, index: int, since: float) -> float:
        """Return by how much a counter grew between a time and the run at `index`.

        When in a gap between readings it grew is not known, so the growth is spread over the gap.
        """
        first = self.first_within(index, since)
        grown = self._grown[index] - self._grown[first]
        run = self.runs[first]
        if first < index and run.until < since:
            following = self.runs[first + 1]
            share = (since - run.until) / (following.at - run.until)
            grown -= share * (self._grown[first + 1] - self._grown[first])
        return grown


def spans(condition: Condition, series: Series, now: float, clear_at: float | None = None) -> tuple[Span, ...]:
    """Return when a condition held on a device, oldest first; what was unreadable is left out."""
    if condition.blind_for is not None:
        return tuple(_blindness(condition.blind_for, series, now))
    past = Past(series)
    return tuple(part for index in range(len(past.runs)) for part in _of_run(condition, past, index, clear_at))


def measure(condition: Condition, past: Past, index: int, at: float) -> float | None:
    """Return what a condition compares at a time within the run at `index`; None when that cannot be said yet."""
    value = past.runs[index].value or 0.0
    if condition.within is None:
        return value
    since = at - condition.within
    if condition.will_reach is not None:
        return _time_left_s(past, index, since, at, condition.will_reach)
    if condition.changes is not None:
        return float(_changes(condition.changes, past, index, since))
    is_counter = CATALOG[condition.signal].kind is SignalKind.COUNTER
    grown = past.growth(index, since) if is_counter else _rise(past, index, since)
    if condition.rate_at_least is not None and condition.per is not None:
        return grown / condition.within * condition.per
    return grown


def limit_of(condition: Condition) -> float:
    """Return what the measure is compared with."""
    limits = (
        condition.at_least,
        condition.at_most,
        condition.grows_by,
        condition.rate_at_least,
        condition.ahead,
        condition.blind_for,
    )
    return next((limit for limit in limits if limit is not None), 1.0)


def is_met(condition: Condition, measured: float | None) -> bool:
    """Say whether a condition holds for what was measured."""
    if measured is None:
        return False
    if condition.is_set is not None:
        return bool(measured) == condition.is_set
    if condition.at_most is not None or condition.will_reach is not None:
        return measured <= limit_of(condition)
    return measured >= limit_of(condition)


def age_s(series: Series, now: float) -> float:
    """Return for how long a series could not be read."""
    known = series.known
    return max(now - (known[-1].until if known else series.runs[0].at), 0.0)


def _of_run(condition: Condition, past: Past, index: int, clear_at: float | None) -> Iterator[Span]:
    run = past.runs[index]
    first = is_met(condition, measure(condition, past, index, run.at))
    if not first or condition.within is None or is_met(condition, measure(condition, past, index, run.until)):
        yield Span(run.at, run.until, run.readings, first, _clears(condition, run.value or 0.0, first, clear_at))
        return
    good, bad = run.at, run.until
    while bad - good > PRECISION_S:
        middle = (good + bad) / 2
        if is_met(condition, measure(condition, past, index, middle)):
            good = middle
        else:
            bad = middle
    held = 1 + int((run.readings - 1) * (good - run.at) / (run.until - run.at))
    yield Span(run.at, good, held, holds=True, clears=False)
    yield Span(bad, run.until, max(run.readings - held, 1), holds=False, clears=True)


def _clears(condition: Condition, value: float, met: bool, clear_at: float | None) -> bool:
    if met or clear_at is None:
        return not met
    return value > clear_at if condition.at_most is not None else value < clear_at


def _blindness(limit_s: float, series: Series, now: float) -> Iterator[Span]:
    """Return the spans in which the newest value was older than the limit, and those in which it was not."""
    known = series.known
    seen = [Run(series.runs[0].at, series.runs[0].at, 1, None), *known]
    for run, following in zip(seen, [*seen[1:], None], strict=True):
        gone = following.at if following is not None else max(now, run.until)
        yield Span(run.at, min(run.until + limit_s, gone), 0, holds=False, clears=True)
        if gone - run.until >= limit_s:
            yield Span(run.until + limit_s, gone, 0, holds=True, clears=False)


def _rise(past: Past, index: int, since: float) -> float:
    """Return how far a value is above its least one in the window."""
    window = past.runs[past.first_within(index, since) : index + 1]
    least = min(run.value or 0.0 for run in window if run.until >= since or run is window[-1])
    return (past.runs[index].value or 0.0) - least


def _changes(change: Change, past: Past, index: int, since: float) -> int:
    """Return how many changes of a kind there are in the window."""
    window = past.runs[past.first_within(index, since) : index + 1]
    steps = [(after.value or 0.0) - (before.value or 0.0) for before, after in pairwise(window)]
    return len([step for step in steps if step and (change is Change.ANY or (step > 0) == (change is Change.UP))])


def _time_left_s(past: Past, index: int, since: float, at: float, limit: float) -> float | None:
    """Return after what time the trend crosses a limit: infinite when it never does, None when unknown."""
    value = past.runs[index].value or 0.0
    start = max(since, past.runs[0].at)
    if at - start < LEAST_SHARE * (at - since) or at <= start:
        return None
    slope = _slope(past.runs, index, start, at)
    if slope == 0:
        return 0.0 if value == limit else NEVER_S
    left = (limit - value) / slope
    if (value >= limit) if slope > 0 else (value <= limit):
        return 0.0
    return left if left >= 0 else NEVER_S


def _slope(runs: Sequence[Run], index: int, start: float, at: float) -> float:
    """Return the median slope between evenly spaced points of the window, per second."""
    step = (at - start) / (SAMPLES - 1)
    points: list[tuple[float, float]] = []
    place = 0
    for number in range(SAMPLES):
        moment = start + number * step
        while place < index and runs[place + 1].at <= moment:
            place += 1
        points.append((moment, runs[place].value or 0.0))
    return median(
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(points)
        for later in points[number + 1 :]
        if later[0] > earlier[0]
    )
