"""How the judgement is told to people. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from watchdog.policy.hysteresis import Course
from watchdog.policy.measure import limit_of
from watchdog.policy.model import Condition, Rule
from watchdog.policy.quantity import as_duration
from watchdog.signals.model import Device

Held = tuple[Condition, Device, float | None]
"""A condition, the device it was looked at on, and what was compared."""


def sentence(rule: Rule, device: Device, held: Sequence[Held]) -> str:
    """Say what a rule found."""
    facts = "; ".join(fact for item, where, value in held if (fact := _fact(item, where, device, value)))
    return f"{device.name}: {rule.why}{f' ({facts})' if facts else ''} [{rule.id}]"


def _fact(condition: Condition, where: Device, device: Device, value: float | None) -> str:
    named = condition.signal if where.identity == device.identity else f"{where.name} {condition.signal}"
    if value is None or (condition.is_set is not None and named == condition.signal):
        return ""
    return f"{named} {told(condition, value)}"


def told(condition: Condition, value: float) -> str:
    """Say what was compared with what."""
    if condition.is_set is not None:
        return "is set" if value else "is not set"
    if condition.within is not None:
        return _told_of_window(condition, value, as_duration(condition.within))
    if condition.blind_for is not None:
        return f"could not be read for {as_duration(value)}, limit {as_duration(condition.blind_for)}"
    return f"is {value:g}, limit {limit_of(condition):g}"


def _told_of_window(condition: Condition, value: float, within: str) -> str:
    if condition.rate_at_least is not None:
        return f"grows by {value:.3g} every {as_duration(condition.per or 0.0)}, limit {condition.rate_at_least:g}"
    if condition.will_reach is not None:
        when = "never" if math.isinf(value) else f"in {as_duration(value)}"
        return f"will reach {condition.will_reach:g} {when}, limit {as_duration(condition.ahead or 0.0)}"
    if condition.changes is not None:
        return f"changed {value:g} times in {within}"
    return f"grew by {value:.3g} in {within}, limit {condition.grows_by or 0.0:g}"


def why_not(rule: Rule, course: Course, value: float | None, devices: tuple[int, int]) -> str:
    """Say why a rule has not fired; `devices` are those on which it has fired, and those needed."""
    if course.fired:
        return f"holds on {devices[0]} of {devices[1]} devices"
    if value is None:
        return "nothing to compare yet"
    if course.since is None:
        return f"{value:g} of {rule.wanted} conditions hold" if rule.when else told(rule, value)
    waits = []
    if course.readings < rule.readings:
        waits.append(f"in {course.readings} of {rule.readings} readings")
    if course.lasted_s < rule.lasting:
        waits.append(f"for {as_duration(course.lasted_s)} of {as_duration(rule.lasting)}")
    return f"holds {' and '.join(waits)}"
