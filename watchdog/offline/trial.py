"""The verdict on each device in a recording, and why. Pure.

A recording is a moment, and rules wait for more than one reading; so it is judged twice: as it is, and as if it
stayed so. What the second finds counts, and is told as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from migrator.health import Verdict
from watchdog.policy.evaluate import BySignal, RuleState, sorted_by_signal, states_of
from watchdog.policy.model import Mode, Policy
from watchdog.policy.quantity import as_duration
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, DeviceKind, Reading, SignalKind
from watchdog.signals.series import ReadingHistory, Run, Series

MANY_READINGS = 1000  # the most a rule can ask for


class Finding(StrEnum):
    """A verdict, or that there can be none."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    FAILING = "failing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Fired:
    """A rule that fires; `only_if` says what must go on for it, and is empty when it fires already."""

    state: RuleState
    only_if: str


@dataclass(frozen=True)
class DeviceTrial:
    """The verdict on one device, by one sentence; `fired` are all rules, also those that only alert."""

    device: Device
    readings: tuple[Reading, ...]
    fired: tuple[Fired, ...]
    finding: Finding
    reason: str


def trials(policy: Policy, readings: Sequence[Reading], now: float) -> tuple[DeviceTrial, ...]:
    """Judge each device by its readings up to `now` (Unix seconds)."""
    history = ReadingHistory.of(readings)
    fired = fired_rules(policy, history, now)
    devices = {series.device.identity: series.device for series in history.series.values()}
    return tuple(
        _trial(
            policy,
            device,
            tuple(item for item in history.latest() if item.device.identity == identity),
            tuple(item for item in fired if item.state.device.identity == identity),
        )
        for identity, device in devices.items()
    )


def fired_rules(policy: Policy, history: ReadingHistory, now: float) -> tuple[Fired, ...]:
    """Return which rules fire, and which would if all stayed as it is."""
    as_it_is, stayed = sorted_by_signal(history), sorted_by_signal(_standing(history, policy))
    found: list[Fired] = []
    for rule in policy.rules:
        states = [state for state in states_of(rule, as_it_is, now) if state.fired]
        found += [Fired(state, "") for state in states]
        known = {state.device.identity for state in states}
        found += [item for item in _later(policy, rule.id, stayed, now) if item.state.device.identity not in known]
    return tuple(found)


def _later(policy: Policy, name: str, stayed: BySignal, now: float) -> Iterator[Fired]:
    rule = next(item for item in policy.rules if item.id == name)
    if rule.devices != 1 or any(item.blind_for is not None for item in rule.conditions):
        return
    for state in states_of(rule, stayed, now):
        firings = state.course.firings
        if firings and (firings[-1].end is None or firings[-1].end >= now):
            waits = [f"{rule.readings} readings"] if rule.readings > 1 else []
            waits += [as_duration(rule.lasting)] if rule.lasting else []
            yield Fired(replace(state, fired=True), f"if it stays so for {' and '.join(waits) or 'longer'}")


def _standing(history: ReadingHistory, policy: Policy) -> ReadingHistory:
    """Return the history as it would be if everything stayed as it is, for as long as any rule waits."""
    longest = max((rule.lasting for rule in policy.rules), default=0.0)
    return ReadingHistory({key: _longer(series, longest + MANY_READINGS) for key, series in history.series.items()})


def _longer(series: Series, seconds: float) -> Series:
    last = series.runs[-1]
    longer = Run(last.at, last.until + seconds, last.readings + MANY_READINGS, last.value, last.reason)
    return replace(series, runs=(*series.runs[:-1], longer))


def _trial(policy: Policy, device: Device, readings: tuple[Reading, ...], fired: tuple[Fired, ...]) -> DeviceTrial:
    grave = sorted(fired, key=lambda item: (item.state.mode is not Mode.ACT, -item.state.rule.verdict.severity))
    acting = [item for item in grave if item.state.mode is Mode.ACT]
    if acting:
        worst, only_if = acting[0].state, acting[0].only_if
        finding = Finding.FAILING if worst.rule.verdict is Verdict.FAILING else Finding.SUSPECT
        reason = f"{worst.sentence}{f', {only_if}' if only_if else ''}"
    else:
        unknown = why_unknown(policy, device, readings)
        finding, reason = (Finding.UNKNOWN, unknown) if unknown else (Finding.HEALTHY, "no rule fires")
    return DeviceTrial(device, readings, tuple(grave), finding, reason)


def why_unknown(policy: Policy, device: Device, readings: Sequence[Reading]) -> str:
    """Say why silence of the rules is no health on this device; empty when it is.

    It is none when a flag that may make the host failing cannot be read, or a counter where there are no flags, or
    when nothing is told that a rule looks at.
    """
    looked_at = {item.signal for rule in policy.rules for item in rule.conditions}
    grave = {item.signal for rule in policy.rules for item in rule.conditions if rule.verdict is Verdict.FAILING}
    told = [item for item in readings if item.readable and item.signal in looked_at]
    hidden = [item for item in readings if not item.readable and item.signal in grave]
    flags = [item for item in hidden if CATALOG[item.signal].kind is SignalKind.FLAG]
    has_flags = any(CATALOG[item.signal].kind is SignalKind.FLAG for item in told)
    for item in (*flags, *(() if has_flags else hidden)):
        return f"{item.signal} cannot be read: {item.reason}"
    if not told and device.kind is not DeviceKind.HOST:
        said = next((item.reason for item in readings if item.reason), "")
        return f"it tells nothing that a rule looks at{f': {said}' if said else ''}"
    return ""
