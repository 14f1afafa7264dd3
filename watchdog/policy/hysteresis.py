"""When a rule fires, and when it clears again. Pure.

It is a walk over the spans in which a condition held and did not, so what it says depends on the readings alone:
after a restart the same readings fire the same rules, and a replay of the past is the same walk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from watchdog.policy.measure import Span
from watchdog.policy.model import Rule


@dataclass(frozen=True)
class Firing:
    """One time for which a rule had fired; `end` is None while it has."""

    start: float
    end: float | None


@dataclass(frozen=True)
class Course:
    """How a rule went on one device: its firings, and the run of holding or of clearing it is in.

    `since` is when the condition began to hold, None while it does not; `readings` and `lasted_s` are how many
    readings it has held since, and for how long.
    """

    firings: tuple[Firing, ...] = ()
    since: float | None = None
    readings: int = 0
    lasted_s: float = 0.0

    @property
    def fired(self) -> bool:
        """Say whether the rule has fired and not cleared."""
        return bool(self.firings) and self.firings[-1].end is None


@dataclass
class _Stretch:
    """Successive spans of one kind: when they began, and how many readings they had so far."""

    start: float | None = None
    readings: int = 0

    def reached(self, span: Span, readings: int, lasting: float) -> float | None:
        """Add a span; return when in it both the readings and the time were enough, or None."""
        if self.start is None:
            self.start = span.start
        before, self.readings = self.readings, self.readings + span.readings
        due = self.start + lasting
        if span.readings == 0:
            return max(span.start, due) if span.end >= due else None
        step = (span.end - span.start) / (span.readings - 1) if span.readings > 1 else 0.0
        late = math.ceil((due - span.start) / step - 1e-9) if step and due > span.start else 0
        number = max(readings - before - 1, late, 0)  # of the reading in this span, from 0
        if number >= span.readings or (due > span.end):
            return None
        return span.start + number * step

    def end(self) -> None:
        self.start, self.readings = None, 0


def course(rule: Rule, spans: Sequence[Span]) -> Course:
    """Return how a rule went over the spans of its condition, oldest first."""
    firings: list[Firing] = []
    holding, clearing = _Stretch(), _Stretch()
    last = 0.0
    for span in spans:
        last = span.end
        if not span.holds:
            holding.end()
        if firings and firings[-1].end is None:
            if span.holds:
                holding.reached(span, 1, 0.0)
            _clear(rule, span, clearing, firings)
        elif span.holds:
            at = holding.reached(span, rule.readings, rule.lasting)
            if at is not None:
                firings.append(Firing(at, None))
                clearing.end()
    if holding.start is None:
        return Course(tuple(firings))
    return Course(tuple(firings), holding.start, holding.readings, last - holding.start)


def _clear(rule: Rule, span: Span, clearing: _Stretch, firings: list[Firing]) -> None:
    if not span.clears:
        clearing.end()
        return
    at = clearing.reached(span, rule.clear_readings, rule.clear_for)
    if at is not None:
        firings[-1] = replace(firings[-1], end=at)
        clearing.end()


def together(courses: Sequence[Sequence[Span]], wanted: int) -> tuple[Span, ...]:
    """Return when at least `wanted` of several conditions held at once; each holds until it is known not to."""
    times = sorted({moment for spans in courses for span in spans for moment in (span.start, span.end)})
    walks = [_Walk(spans) for spans in courses]
    found: list[Span] = []
    for moment in times:
        holds = sum(walk.holds_at(moment) for walk in walks) >= wanted
        if found and found[-1].holds == holds:
            found[-1] = replace(found[-1], end=moment)
            continue
        if found:
            found[-1] = replace(found[-1], end=moment)
        found.append(Span(moment, moment, 0, holds, not holds))
    return tuple(found)


class _Walk:
    """Says of growing times whether a condition held."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._left: Iterator[Span] = iter(spans)
        self._next = next(self._left, None)
        self._holds = False

    def holds_at(self, moment: float) -> bool:
        while self._next is not None and self._next.start <= moment:
            self._holds = self._next.holds
            self._next = next(self._left, None)
        return self._holds
