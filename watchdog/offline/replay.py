"""Rules over the past: when each would have fired, how long before the failure, how often for nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from watchdog.policy.evaluate import concerned, course_of, sorted_by_signal
from watchdog.policy.hysteresis import Firing
from watchdog.policy.model import Policy, Rule
from watchdog.signals.model import Device
from watchdog.signals.series import ReadingHistory

YEAR_S = 365.25 * 86400.0
HORIZON_S = 30 * 86400.0
"""A failure so long after a rule has cleared still makes its alarm a true one."""


@dataclass(frozen=True)
class Alarm:
    """A rule that would have fired: from when to when (None: to the end), and when the device failed."""

    rule: Rule
    device: Device
    start: float
    end: float | None
    failed_at: float | None

    @property
    def is_true(self) -> bool:
        """Say whether the device failed while the rule had fired, or soon after it cleared."""
        if self.failed_at is None or self.failed_at < self.start:
            return False
        return self.end is None or self.failed_at <= self.end + HORIZON_S

    @property
    def lead_s(self) -> float | None:
        """Return how long before the failure it fired."""
        return self.failed_at - self.start if self.is_true and self.failed_at is not None else None


@dataclass(frozen=True)
class Record:
    """How one rule did, or all of one verdict together: devices foretold of those that failed, false alarms."""

    name: str
    verdict: str
    alarms: int
    foretold: int
    failures: int
    median_lead_s: float | None
    false_alarms: int
    false_per_device_year: float | None


def alarms(policy: Policy, history: ReadingHistory, failures: Mapping[str, float], now: float) -> tuple[Alarm, ...]:
    """Return every alarm the rules would have raised, by time; `failures` is identity -> Unix seconds."""
    by_signal = sorted_by_signal(history)
    found: list[Alarm] = []
    for rule in policy.rules:
        courses = [
            (device, course_of(rule, looked_at, now).firings) for device, looked_at in concerned(rule, by_signal)
        ]
        wanted = len(courses) if rule.devices == "all" else int(rule.devices)
        for device, firings in courses:
            for firing in firings if wanted <= 1 else _at_once(device, courses, wanted):
                found.append(Alarm(rule, device, firing.start, firing.end, failures.get(device.identity)))
    return tuple(sorted(found, key=lambda alarm: alarm.start))


def _at_once(device: Device, courses: Sequence[tuple[Device, tuple[Firing, ...]]], wanted: int) -> Iterator[Firing]:
    """Return the times in which a rule had fired on a device and on enough devices together."""
    edges = sorted(
        (time, step, other.identity)
        for other, firings in courses
        for firing in firings
        for time, step in ((firing.start, 1), (firing.end, -1))
        if time is not None
    )
    fired: set[str] = set()
    start: float | None = None
    for time, step, identity in edges:
        (fired.add if step > 0 else fired.discard)(identity)
        enough = device.identity in fired and len(fired) >= wanted
        if enough and start is None:
            start = time
        elif not enough and start is not None:
            yield Firing(start, time)
            start = None
    if start is not None:
        yield Firing(start, None)


def device_years(history: ReadingHistory) -> float:
    """Return for how many years devices were watched, all together."""
    spans: dict[str, tuple[float, float]] = {}
    for series in history.series.values():
        first, last = spans.get(series.device.identity, (series.runs[0].at, series.runs[-1].until))
        spans[series.device.identity] = min(first, series.runs[0].at), max(last, series.runs[-1].until)
    return sum(last - first for first, last in spans.values()) / YEAR_S


def records(found: Sequence[Alarm], failures: Mapping[str, float], years: float) -> tuple[Record, ...]:
    """Return the record of each verdict, and then of each rule that ever fired."""
    groups: dict[tuple[str, str], list[Alarm]] = {}
    for alarm in found:
        groups.setdefault(("", str(alarm.rule.verdict)), []).append(alarm)
        groups.setdefault((alarm.rule.id, str(alarm.rule.verdict)), []).append(alarm)
    return tuple(_record(name, verdict, some, failures, years) for (name, verdict), some in sorted(groups.items()))


def _record(name: str, verdict: str, found: Sequence[Alarm], failures: Mapping[str, float], years: float) -> Record:
    leads: dict[str, float] = {}
    for alarm in found:
        if alarm.lead_s is not None:
            identity = alarm.device.identity
            leads[identity] = max(alarm.lead_s, leads.get(identity, 0.0))
    false = len({alarm.device.identity for alarm in found if not alarm.is_true} - set(leads))
    return Record(
        name=name,
        verdict=verdict,
        alarms=len(found),
        foretold=len(leads),
        failures=len(failures),
        median_lead_s=median(leads.values()) if leads else None,
        false_alarms=false,
        false_per_device_year=false / years if years else None,
    )
