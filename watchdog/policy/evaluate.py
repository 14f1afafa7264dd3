"""Judge readings by rules. Pure: values in, values out; time is passed in.

What it needs to remember lies in the readings themselves, so the same readings give the same verdict
after a restart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from migrator.health import Lead, Verdict
from watchdog.policy.model import Mode, Policy, Rule
from watchdog.signals.model import Device, Reading

SeriesKey = tuple[str, str]  # signal, device identity


@dataclass(frozen=True)
class ReadingHistory:
    """The readings of the past, oldest first, of each signal of each device."""

    series: Mapping[SeriesKey, tuple[Reading, ...]]

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> ReadingHistory:
        """Sort readings into series by time."""
        series: dict[SeriesKey, list[Reading]] = {}
        for reading in sorted(readings, key=lambda reading: reading.at):
            series.setdefault((reading.signal, reading.device.identity), []).append(reading)
        return cls({key: tuple(found) for key, found in series.items()})

    def latest(self) -> tuple[Reading, ...]:
        """Return the newest reading of each series."""
        return tuple(found[-1] for found in self.series.values() if found)


@dataclass(frozen=True)
class RuleState:
    """How one rule stands on one device: for `explain`."""

    rule: Rule
    device: Device
    value: float | None  # what is compared: the value, or its growth
    limit: float
    holds: bool  # now
    fired: bool  # long enough
    since: float | None  # Unix seconds
    sentence: str


@dataclass(frozen=True)
class Assessment:
    """The verdict on the host with everything it rests on."""

    verdict: Verdict
    lead: Lead | None
    states: tuple[RuleState, ...]
    blind: tuple[Reading, ...]  # what could not be read: never the same as healthy

    @property
    def fired(self) -> tuple[RuleState, ...]:
        """Return what has fired, the gravest first."""
        found = [state for state in self.states if state.fired]
        return tuple(sorted(found, key=lambda state: -state.rule.verdict.severity))

    @property
    def reason(self) -> str:
        """Say in one sentence why the verdict is what it is."""
        acting = [state for state in self.fired if state.rule.mode is Mode.ACT]
        if acting:
            return acting[0].sentence
        if self.blind:
            return f"no rule fired, but {len(self.blind)} signals cannot be read"
        return "no rule fired"


def evaluate(policy: Policy, history: ReadingHistory, now: float) -> Assessment:
    """Judge the host by its readings up to `now` (Unix seconds)."""
    states = tuple(
        _state(rule, readings, now)
        for rule in policy.rules
        for (signal, _), readings in history.series.items()
        if signal == rule.signal and readings and _concerns(rule, readings[-1].device)
    )
    acting = [state for state in states if state.fired and state.rule.mode is Mode.ACT]
    worst = max((state.rule.verdict for state in acting), key=lambda verdict: verdict.severity, default=None)
    leads = [state.rule.lead for state in acting if state.rule.verdict is worst]
    return Assessment(
        verdict=worst or Verdict.HEALTHY,
        lead=max(leads, key=list(Lead).index, default=None),
        states=states,
        blind=tuple(reading for reading in history.latest() if not reading.readable),
    )


def _concerns(rule: Rule, device: Device) -> bool:
    return all(device.about.get(name) == wanted for name, wanted in rule.where.items())


def _state(rule: Rule, readings: Sequence[Reading], now: float) -> RuleState:
    known = [reading for reading in readings if reading.readable and reading.at <= now]
    holding = _holding(rule, known)
    span = holding[-1].at - holding[0].at if holding else 0.0
    fired = len(holding) >= rule.readings and span >= rule.over
    value = _compared(rule, known, len(known) - 1) if known else None
    device = readings[-1].device
    return RuleState(
        rule=rule,
        device=device,
        value=value,
        limit=_limit(rule),
        holds=bool(holding),
        fired=fired,
        since=holding[0].at if holding else None,
        sentence=_sentence(rule, device, value),
    )


def _holding(rule: Rule, known: Sequence[Reading]) -> list[Reading]:
    """Return the unbroken run of readings, up to the newest, in which the condition holds."""
    run: list[Reading] = []
    for index in range(len(known) - 1, -1, -1):
        value = _compared(rule, known, index)
        if value is None or not _met(rule, value):
            break
        run.append(known[index])
    return run[::-1]


def _compared(rule: Rule, known: Sequence[Reading], index: int) -> float | None:
    """Return what the condition looks at: the value of a reading, or the growth up to it."""
    value = known[index].value
    if rule.grows_by is None or rule.within is None or value is None:
        return value
    since = known[index].at - rule.within
    window = [reading.value for reading in known[: index + 1] if reading.at >= since and reading.value is not None]
    # A fall is a reset (driver reloaded, counters cleared), never a negative growth.
    return sum(max(0.0, after - before) for before, after in pairwise(window))


def _met(rule: Rule, value: float) -> bool:
    if rule.is_set is not None:
        return bool(value) == rule.is_set
    if rule.at_most is not None:
        return value <= rule.at_most
    return value >= _limit(rule)


def _limit(rule: Rule) -> float:
    for limit in (rule.at_least, rule.at_most, rule.grows_by):
        if limit is not None:
            return limit
    return 1.0


def _sentence(rule: Rule, device: Device, value: float | None) -> str:
    what = f"{device.name}: {rule.why}"
    if rule.is_set is not None or value is None:
        return f"{what} [{rule.id}]"
    word = "grew by" if rule.grows_by is not None else "is"
    return f"{what} ({rule.signal} {word} {value:g}, limit {_limit(rule):g}) [{rule.id}]"
