"""What is wrong with a rule that each key alone does not show: contradictions and impossible timings. Pure.

It works on what the file says, not on a validated model, so it finds everything however much else is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from watchdog.policy.quantity import as_duration, duration_s
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind
from watchdog.toml_files import Location

CONDITIONS = ("is_set", "at_least", "at_most", "grows_by", "rate_at_least", "will_reach", "changes", "blind_for")
COMPANIONS = {
    "grows_by": ("within",),
    "rate_at_least": ("per", "within"),
    "will_reach": ("within", "ahead"),
    "changes": ("within",),
}
"""Which keys a condition needs beside it."""

OF_A_CONDITION = (*CONDITIONS, "signal", "where", "per", "ahead", "within", "clear_at")
LONGEST_AHEAD = 10  # times the window: a longer extrapolation is a guess

Finding = tuple[Location, str]


@dataclass(frozen=True)
class Timing:
    """How often signals are read and how long readings are kept, in seconds; `poll_s` by the reader's name."""

    keep_s: float
    poll_s: Mapping[str, float] = field(default_factory=dict)

    def poll_of(self, signal: object) -> tuple[str, float]:
        """Return the setting that says how often a signal is read, and its value; 0 when unknown."""
        known = CATALOG.get(signal) if isinstance(signal, str) else None
        name = known.source if known else ""
        return f"{name}_poll_s", self.poll_s.get(name, 0.0)


def contradictions(rule: Mapping[str, Any]) -> Iterator[Finding]:
    """Return everything in a rule that does not go together."""
    several = rule.get("when")
    if several is None:
        yield from _of_condition(rule)
        yield from (
            ((key,), "needs several conditions: tables [[rule.when]]") for key in ("needs", "on") if key in rule
        )
        yield from _clearing(rule)
    elif isinstance(several, list):
        for number, condition in enumerate(several):
            if isinstance(condition, Mapping):
                yield from (((("when", number, *place)), text) for place, text in _of_condition(condition))
        yield from _several(rule, several)
    if _duration(rule, "for") and "blind_for" in rule:
        yield ("for",), "blind_for is itself a time; for makes no sense with it"
    devices = rule.get("devices", 1)
    if isinstance(devices, int) and devices < 1:
        yield ("devices",), f"read {devices}: must be 1 or more, or 'all'"
    elif devices != 1 and rule.get("on") == "host":
        yield ("devices",), "the conditions are looked for on the whole host (on = 'host'), so there is one of it"


def _of_condition(condition: Mapping[str, Any]) -> Iterator[Finding]:
    given = [name for name in CONDITIONS if name in condition]
    if "signal" not in condition:
        yield ("signal",), "is missing"
    if len(given) != 1:
        yield (), f"needs exactly one of {', '.join(CONDITIONS)}; has {', '.join(given) or 'none'}"
    known = CATALOG.get(condition["signal"]) if isinstance(condition.get("signal"), str) else None
    for name in given:
        is_flag = known is not None and known.kind is SignalKind.FLAG
        if known and name not in ("blind_for", "changes") and (name == "is_set") != is_flag:
            wanted = "is_set" if is_flag else "at_least, at_most, grows_by, rate_at_least or will_reach"
            yield (name,), f"{known.name} is a {known.kind} in {known.unit}: use {wanted}"
    needed = {key for name in given for key in COMPANIONS.get(name, ())}
    for name in given:
        for key in COMPANIONS.get(name, ()):
            if key not in condition:
                yield (name,), f"{name} and {key} belong together"
    for key in ("within", "per", "ahead"):
        if key in condition and key not in needed:
            yield (key,), f"does nothing without {' or '.join(n for n, keys in COMPANIONS.items() if key in keys)}"


def _clearing(rule: Mapping[str, Any]) -> Iterator[Finding]:
    if "clear_at" not in rule:
        return
    limit = rule.get("at_least", rule.get("at_most"))
    clear = rule["clear_at"]
    if limit is None:
        yield ("clear_at",), "is for at_least and at_most only"
    elif isinstance(limit, int | float) and isinstance(clear, int | float):
        if "at_least" in rule and clear > limit:
            yield ("clear_at",), f"read {clear:g}: must not be above at_least = {limit:g}"
        if "at_most" in rule and clear < limit:
            yield ("clear_at",), f"read {clear:g}: must not be below at_most = {limit:g}"


def _several(rule: Mapping[str, Any], conditions: list[Any]) -> Iterator[Finding]:
    for key in OF_A_CONDITION:
        if key in rule:
            yield (key,), "belongs into one of the [[rule.when]], as there are any"
    if not conditions:
        yield ("when",), "is empty"
    needs = rule.get("needs", "all")
    if isinstance(needs, int) and not 1 <= needs <= max(len(conditions), 1):
        yield ("needs",), f"read {needs}: there are {len(conditions)} conditions"
    for key in ("readings", "clear_readings"):
        if rule.get(key, 1) != 1:
            yield (
                (key,),
                "several conditions are read at several times, so their readings cannot be counted: use for",
            )


def impossible_timings(rule: Mapping[str, Any], timing: Timing) -> Iterator[Finding]:
    """Return the times of a rule that cannot work on this host, with the arithmetic."""
    several = rule.get("when")
    conditions = [((), rule)] if several is None else [(("when", n), c) for n, c in enumerate(several)]
    for place, condition in conditions:
        if isinstance(condition, Mapping):
            for key, message in _of_window(condition, timing):
                yield (*place, key), message
    for key in ("for", "clear_for"):
        if _duration(rule, key) > timing.keep_s:
            yield (key,), _too_long(rule[key], timing)


def _of_window(condition: Mapping[str, Any], timing: Timing) -> Iterator[tuple[str, str]]:
    within, setting, poll = _duration(condition, "within"), *timing.poll_of(condition.get("signal"))
    for key in ("within", "blind_for"):
        span = _duration(condition, key)
        if span > timing.keep_s:
            yield key, _too_long(condition[key], timing)
        if 0 < span < 2 * poll:
            yield (
                key,
                f"{condition[key]} is shorter than two turns of the reader: {setting} is {poll:g} s, so at least "
                f"{as_duration(2 * poll)}",
            )
    if _duration(condition, "ahead") > LONGEST_AHEAD * within > 0:
        longest = as_duration(LONGEST_AHEAD * within)
        yield "ahead", f"{condition['ahead']} is more than {LONGEST_AHEAD} times within; at most {longest}"


def _too_long(text: object, timing: Timing) -> str:
    return f"{text} is longer than readings are kept: signals.keep_days is {timing.keep_s / 86400:g}"


def _duration(table: Mapping[str, Any], key: str) -> float:
    """Return a duration of a table in seconds; 0 when there is none, or none that can be read."""
    try:
        return duration_s(table.get(key))
    except ValueError:
        return 0.0
