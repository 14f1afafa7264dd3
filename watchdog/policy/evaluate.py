"""Judge readings by rules. Pure: values in, values out; time is passed in.

What it needs to remember lies in the readings themselves, so the same readings give the same verdict
after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from migrator.health import Lead, Verdict
from watchdog.policy import words
from watchdog.policy.hysteresis import Course, course, together
from watchdog.policy.measure import Past, age_s, is_met, limit_of, measure, spans
from watchdog.policy.model import Affects, Condition, Mode, Policy, Rule
from watchdog.policy.quiet import Quiet, softened
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.series import ReadingHistory, Series

HOST = Device(DeviceKind.HOST, "host", "this host")


@dataclass(frozen=True)
class RuleState:
    """How one rule stands on one device: for `explain`.

    `value` is what is compared with `limit`; `holds` says that the condition is met now, `fired` that it has
    been for long enough, and on enough devices (`counts`: on how many it has been, and on how many it must be).
    `mode` is the rule's own unless a window or a silence (`quiet`) lowers it. The words are made when somebody
    reads them: of a thousand rules on a large host hardly one is ever told.
    """

    rule: Rule
    device: Device
    value: float | None
    limit: float
    course: Course
    fired: bool
    mode: Mode
    held: tuple[words.Held, ...] = ()
    counts: tuple[int, int] = (0, 1)
    quiet: str = ""

    @property
    def sentence(self) -> str:
        """Say what the rule found."""
        return words.sentence(self.rule, self.device, self.held)

    @property
    def why_not(self) -> str:
        """Say why the rule has not fired; empty when it has."""
        return "" if self.fired else words.why_not(self.rule, self.course, self.value, self.counts)

    @property
    def holds(self) -> bool:
        """Say whether the condition is met now."""
        return self.course.since is not None

    @property
    def since(self) -> float | None:
        """Return since when the condition is met, in Unix seconds."""
        return self.course.since


@dataclass(frozen=True)
class Assessment:
    """The verdict on the host with everything it rests on."""

    verdict: Verdict
    lead: Lead | None
    states: tuple[RuleState, ...]
    blind: tuple[Reading, ...]  # what could not be read: never the same as healthy
    quiets: tuple[Quiet, ...] = ()

    @property
    def fired(self) -> tuple[RuleState, ...]:
        """Return what has fired, the gravest first."""
        found = [state for state in self.states if state.fired]
        return tuple(sorted(found, key=lambda state: -state.rule.verdict.severity))

    @property
    def acting(self) -> tuple[RuleState, ...]:
        """Return what the verdict rests on, the gravest first."""
        return tuple(state for state in self.fired if state.mode is Mode.ACT)

    @property
    def affected(self) -> tuple[Device, ...]:
        """Return the devices whose loss is all that is expected; empty when it is the whole host, or nothing."""
        worst = [state for state in self.acting if state.rule.verdict is self.verdict]
        if any(state.rule.affects is Affects.HOST for state in worst):
            return ()
        return tuple({state.device.identity: state.device for state in worst}.values())

    @property
    def reason(self) -> str:
        """Say in one sentence why the verdict is what it is."""
        if self.acting:
            return self.acting[0].sentence
        if self.blind:
            return f"no rule fired, but {len(self.blind)} signals cannot be read"
        return "no rule fired"


class Memory:
    """How rules stood on series that have not changed since: they stand the same, and need not be judged again.

    Only the very same `Series` objects count as unchanged, so what is remembered is never anything else than what
    judging anew would say. Rules that look at time itself (`blind_for`) are not remembered.
    """

    def __init__(self) -> None:
        self._states: dict[tuple[int, str], tuple[Rule, LookedAt, RuleState]] = {}
        self._counted: dict[tuple[int, str], tuple[RuleState, int, int, RuleState]] = {}
        self._whole: dict[int, tuple[Rule, LookedAt, tuple[RuleState, ...]]] = {}

    def whole(self, rule: Rule, by_signal: BySignal, now: float) -> tuple[RuleState, ...]:
        """Return how a rule stands on all devices, without regard to what is quiet."""
        looked_at = tuple(tuple(by_signal.get(item.signal, ())) for item in rule.conditions)
        known = self._whole.get(id(rule))
        if known is not None and known[0] is rule and _are_same(known[1], looked_at):
            return known[2]
        found = [self.state(rule, device, series, now) for device, series in concerned(rule, by_signal)]
        wanted = len(found) if rule.devices == "all" else int(rule.devices)
        fired = sum(state.course.fired for state in found)
        states = tuple(self.counted(state, fired, wanted) for state in found)
        if _is_timeless(rule):
            self._whole[id(rule)] = (rule, looked_at, states)
        return states

    def state(self, rule: Rule, device: Device, looked_at: LookedAt, now: float) -> RuleState:
        """Return how a rule stands on a device."""
        key = (id(rule), device.identity)
        known = self._states.get(key)
        if known is not None and known[0] is rule and _are_same(known[1], looked_at):
            return known[2]
        state = _state(rule, device, looked_at, now)
        if _is_timeless(rule):
            self._states[key] = (rule, looked_at, state)
        return state

    def counted(self, state: RuleState, fired: int, wanted: int) -> RuleState:
        """Return how a rule stands when it has fired on so many devices of those wanted."""
        key = (id(state.rule), state.device.identity)
        known = self._counted.get(key)
        if known is not None and known[0] is state and known[1:3] == (fired, wanted):
            return known[3]
        counted = replace(state, fired=state.course.fired and fired >= wanted, counts=(fired, wanted))
        self._counted[key] = (state, fired, wanted, counted)
        return counted


def _is_timeless(rule: Rule) -> bool:
    return all(item.blind_for is None for item in rule.conditions)


def _are_same(before: LookedAt, after: LookedAt) -> bool:
    return len(before) == len(after) and all(
        len(old) == len(new) and all(one is other for one, other in zip(old, new, strict=True))
        for old, new in zip(before, after, strict=True)
    )


def evaluate(
    policy: Policy,
    history: ReadingHistory,
    now: float,
    quiets: Sequence[Quiet] = (),
    memory: Memory | None = None,
) -> Assessment:
    """Judge the host by its readings up to `now` (Unix seconds); `memory` saves work from one time to the next."""
    by_signal = sorted_by_signal(history)
    kept = memory or Memory()
    states = tuple(state for rule in policy.rules for state in states_of(rule, by_signal, now, quiets, kept))
    acting = [state for state in states if state.fired and state.mode is Mode.ACT]
    worst = max((state.rule.verdict for state in acting), key=lambda verdict: verdict.severity, default=None)
    leads = [state.rule.lead for state in acting if state.rule.verdict is worst]
    return Assessment(
        verdict=worst or Verdict.HEALTHY,
        lead=max(leads, key=list(Lead).index, default=None),
        states=states,
        blind=tuple(
            series.latest
            for series in history.series.values()
            if series.runs
            and series.runs[-1].value is None
            and not any(quiet.either and quiet.covers(series.device) for quiet in quiets)
        ),
        quiets=tuple(quiets),
    )


BySignal = Mapping[str, Sequence[Series]]


def sorted_by_signal(history: ReadingHistory) -> BySignal:
    """Return the series of each signal."""
    found: dict[str, list[Series]] = {}
    for series in history.series.values():
        if series.runs:
            found.setdefault(series.signal, []).append(series)
    return found


def states_of(
    rule: Rule,
    by_signal: BySignal,
    now: float,
    quiets: Sequence[Quiet] = (),
    memory: Memory | None = None,
) -> Iterator[RuleState]:
    """Return how a rule stands on each device that has what it looks at."""
    for state in (memory or Memory()).whole(rule, by_signal, now):
        hushed = [quiet for quiet in quiets if quiet.is_for(rule.id, state.device)]
        if not hushed:
            yield state
            continue
        yield replace(state, mode=softened(rule.mode, hushed), quiet="; ".join(quiet.why for quiet in hushed))


LookedAt = tuple[tuple[Series, ...], ...]
"""The series that each condition of a rule looks at: one of a device, or with `on = "host"` any number."""

Concerned = tuple[Device, LookedAt]


def concerned(rule: Rule, by_signal: BySignal) -> Iterator[Concerned]:
    """Return each device a rule is about, with the series of its conditions."""
    looked_at = [
        [series for series in by_signal.get(item.signal, ()) if is_for(item, series.device)]
        for item in rule.conditions
    ]
    if rule.on == "host":
        if any(looked_at):
            yield HOST, tuple(map(tuple, looked_at))
        return
    devices = {series.device.identity: series.device for found in looked_at for series in found}
    by_device = [{series.device.identity: series for series in found} for found in looked_at]
    for identity, device in devices.items():
        yield device, tuple((found[identity],) if identity in found else () for found in by_device)


def is_for(condition: Condition, device: Device) -> bool:
    """Say whether a condition's `where` lets a device through."""
    about = {"name": device.name, "identity": device.identity, **device.about}
    return all(
        any(fnmatchcase(about.get(name, ""), pattern) for pattern in patterns)
        for name, patterns in condition.where.items()
    )


def _state(rule: Rule, device: Device, looked_at: LookedAt, now: float) -> RuleState:
    walked = course_of(rule, looked_at, now)
    if len(rule.conditions) > 1 or rule.on == "host":
        value: float | None = float(
            sum(
                any(_holds(item, one, now) for one in found)
                for item, found in zip(rule.conditions, looked_at, strict=True)
            )
        )
        limit = float(rule.wanted)
        about = _held(rule, looked_at, now)
    else:
        value, limit = _value(rule.conditions[0], looked_at[0][0], now), limit_of(rule.conditions[0])
        about = [(rule.conditions[0], looked_at[0][0].device, value)]
    return RuleState(
        rule=rule,
        device=device,
        value=value,
        limit=limit,
        course=walked,
        fired=walked.fired,
        mode=rule.mode,
        held=tuple(about),
    )


def course_of(rule: Rule, looked_at: Sequence[Sequence[Series]], now: float) -> Course:
    """Return how a rule went on one device."""
    if not rule.when:
        return course(rule, spans(rule, looked_at[0][0], now, rule.clear_at))
    conditions = [
        together([spans(item, series, now) for series in found], 1)
        for item, found in zip(rule.conditions, looked_at, strict=True)
    ]
    return course(rule, together(conditions, rule.wanted))


def _value(condition: Condition, series: Series, now: float) -> float | None:
    """Return what a condition compares now; None when it cannot be said."""
    if condition.blind_for is not None:
        return age_s(series, now)
    past = Past(series)
    return measure(condition, past, len(past.runs) - 1, past.runs[-1].until) if past.runs else None


def _holds(condition: Condition, series: Series, now: float) -> bool:
    return is_met(condition, _value(condition, series, now))


def _held(
    rule: Rule, looked_at: Sequence[Sequence[Series]], now: float
) -> list[tuple[Condition, Device, float | None]]:
    """Return the conditions that hold, where, and what each compares."""
    return [
        (item, series.device, _value(item, series, now))
        for item, found in zip(rule.conditions, looked_at, strict=True)
        for series in found
        if _holds(item, series, now)
    ]


def worst_of(states: Iterable[RuleState]) -> Verdict:
    """Return the gravest verdict of rules that have fired, whatever their mode."""
    return max((s.rule.verdict for s in states if s.fired), key=lambda v: v.severity, default=Verdict.HEALTHY)
