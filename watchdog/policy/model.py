"""The shape of a policy file: rules on signals, each with its reason, and maintenance windows.

[[rule]]
id = "disk-health-failed"
signal = "smart.health_failed"
is_set = true
readings = 2
verdict = "failing"
why = "the drive itself says that it is failing"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from migrator.health import Lead, Verdict
from migrator.model import Value
from watchdog.policy.check import Timing, contradictions
from watchdog.policy.quantity import Duration, amount
from watchdog.signals.catalog import CATALOG
from watchdog.toml_files import Location, nearest

HELD_S = 7 * 86400.0
LEAST_MARGIN_S, UNKNOWN_MARGIN_S = 3600.0, 86400.0
CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Mode(StrEnum):
    """What a rule may cause."""

    ACT = "act"
    ALERT = "alert"
    RECORD = "record"


class Affects(StrEnum):
    """What is lost with the device that a rule is about."""

    HOST = "host"
    STORAGE = "storage"


class Change(StrEnum):
    """A change of state."""

    ANY = "any"
    UP = "up"
    DOWN = "down"


def _one_or_more(value: object) -> object:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise ValueError("is neither a text nor a list of texts")


def _whole_or(*words: str) -> BeforeValidator:
    def check(value: object) -> object:
        if (isinstance(value, int) and not isinstance(value, bool)) or value in words:
            return value
        raise ValueError(f"allowed: a whole number, {', '.join(map(repr, words))}")

    return BeforeValidator(check)


Words = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]


class Condition(Value):
    """What is looked at, and when it holds: exactly one of `check.CONDITIONS`."""

    signal: str = Field(default="", description="a signal; see: lifeboat signals --catalog")
    where: dict[str, Words] = Field(
        default_factory=dict,
        description="only devices with these properties, `*` allowed, as: { type = 'hdd' } or "
        "{ name = ['/dev/sda', '/dev/sdb'] }",
    )
    is_set: bool | None = Field(default=None, strict=True, description="true: the flag is set; false: it is not")
    at_least: float | None = Field(default=None, description="the value is this or more")
    at_most: float | None = Field(default=None, description="the value is this or less")
    grows_by: float | None = Field(
        default=None,
        gt=0,
        description="it grew by this or more within `within`: a counter's increases together, where a fall is a "
        "reset and none; what goes up and down, from its least value in the window",
    )
    rate_at_least: float | None = Field(
        default=None, gt=0, description="it grows by this or more every `per`, on average over `within`"
    )
    per: Duration | None = Field(default=None, description="the unit of time of `rate_at_least`, as '1m'")
    will_reach: float | None = Field(
        default=None,
        description="going on as it went within `within`, it reaches this limit not later than `ahead` (by "
        "the median of all slopes, so single readings do not matter)",
    )
    ahead: Duration | None = Field(default=None, description="how far `will_reach` looks ahead, as '90d'")
    changes: Change | None = Field(default=None, description="it changed so within `within`")
    blind_for: Duration | None = Field(default=None, description="it could not be read for at least this time")
    within: Duration | None = Field(
        default=None,
        description="the window for `grows_by`, `rate_at_least`, `will_reach` and `changes`, as '24h'. Growth over "
        "a gap in the readings counts with the share of the gap that lies in the window",
    )

    @field_validator("signal")
    @classmethod
    def _known(cls, signal: str) -> str:
        if signal and signal not in CATALOG:
            raise ValueError(f"{signal!r} is no signal{nearest(signal, list(CATALOG))}")
        return signal

    @field_validator("at_least", "at_most", "grows_by", "rate_at_least", "will_reach", mode="before")
    @classmethod
    def _in_unit(cls, value: object, info: ValidationInfo) -> object:
        signal = CATALOG.get(info.data.get("signal", ""))
        return amount(value, signal.unit if signal else "")


class Rule(Condition):
    """One rule: one condition of its own, or several in `[[rule.when]]`."""

    id: str = Field(pattern=r"^[a-z0-9-]{1,64}$", description="unique name of the rule, as alerts show it")
    when: tuple[Condition, ...] = Field(
        default=(), max_length=20, description="several conditions instead of one: tables [[rule.when]]"
    )
    needs: Annotated[int | str, _whole_or("all", "any")] = Field(
        default="all", description="how many of the `when` must hold: 'all', 'any' or a number"
    )
    on: Literal["device", "host"] = Field(
        default="device", description="whether those must hold on the same device or anywhere on the host"
    )
    devices: Annotated[int | str, _whole_or("all")] = Field(
        default=1, description="the rule fires when it holds on at least so many devices at once, or on 'all'"
    )
    readings: int = Field(
        default=1, ge=1, le=1000, strict=True, description="it must hold in so many successive readings"
    )
    lasting: Duration = Field(default=0.0, alias="for", description="and without a break for this time, as '10m'")
    clear_readings: int = Field(
        default=1, ge=1, le=1000, strict=True, description="once fired, it clears after so many readings"
    )
    clear_for: Duration = Field(default=0.0, description="and not before it has not held for this time, as '1h'")
    clear_at: float | None = Field(
        default=None,
        description="once fired, it holds until the value is below this (for at_most: above), or for a week "
        "between both, as at_least = 60, clear_at = 55",
    )
    verdict: Verdict = Field(description="what the host is then: suspect or failing")
    lead: Lead = Field(default=Lead.DAYS, description="how long such a host usually lasts")
    affects: Affects = Field(
        default=Affects.HOST,
        description="what is lost with the device: the host, or only containers whose storage lies on it",
    )
    mode: Mode = Field(default=Mode.ACT, description="act, alert only, or record only")
    why: str = Field(min_length=1, description="the sentence an admin reads in the alert")
    source: str = Field(default="", description="where the threshold comes from")

    @field_validator("verdict")
    @classmethod
    def _not_healthy(cls, verdict: Verdict) -> Verdict:
        if verdict is Verdict.HEALTHY:
            raise ValueError("a rule cannot make a host healthy; verdict is suspect or failing")
        return verdict

    @field_validator("clear_at", mode="before")
    @classmethod
    def _clear_in_unit(cls, value: object, info: ValidationInfo) -> object:
        signal = CATALOG.get(info.data.get("signal", ""))
        return amount(value, signal.unit if signal else "")

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Return the conditions, however they were written."""
        return self.when or (self,)

    @property
    def wanted(self) -> int:
        """Return how many of the conditions must hold."""
        if self.needs == "any":
            return 1
        return self.needs if isinstance(self.needs, int) else len(self.conditions)

    @property
    def look_back_s(self) -> float:
        """Return how much of the past the rule looks at, in seconds."""
        spans = (max(item.within or 0.0, item.blind_for or 0.0) for item in self.conditions)
        return max(spans) + self.lasting + self.clear_for


class Window(Value):
    """A maintenance window, in local time: what fires meanwhile does less."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,64}$", description="unique name of the window")
    days: tuple[Day, ...] = Field(default=DAYS, min_length=1, description="days on which it begins")
    start: str = Field(pattern=CLOCK.pattern + "$", description="when it begins, local time, as '02:00'")
    end: str = Field(pattern=CLOCK.pattern + "$", description="when it ends; earlier than `start`: the next day")
    rules: tuple[str, ...] = Field(default=("*",), description="rules it is for, `*` allowed")
    devices: tuple[str, ...] = Field(default=("*",), description="names of devices it is for, `*` allowed")
    mode: Literal[Mode.ALERT, Mode.RECORD] = Field(
        default=Mode.RECORD, description="what these rules may cause at most meanwhile"
    )
    why: str = Field(min_length=1, description="the reason, as status shows it")


class PolicyFile(Value):
    """One file."""

    rule: tuple[Rule, ...] = Field(default=(), description="the rules")
    window: tuple[Window, ...] = Field(default=(), description="maintenance windows")

    @classmethod
    def cross_check(cls, data: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        """Return what is wrong with keys together, whatever each of them holds."""
        rules = data.get("rule")
        for number, rule in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(rule, Mapping):
                for location, message in contradictions(rule):
                    yield ("rule", number, *location), message


class Policy(Value):
    """All rules and windows in force, of all files."""

    rules: tuple[Rule, ...]
    windows: tuple[Window, ...] = ()

    def look_back(self, timing: Timing) -> dict[str, float]:
        """Return how much of the past of each signal the rules look at, in seconds, and some turns of its reader.

        A rule with `clear_at` may have fired before that and hold still: what is between both limits for longer
        than `HELD_S` has cleared.
        """
        found: dict[str, float] = {}
        for rule in self.rules:
            turns = 2 * (max(rule.readings, rule.clear_readings) + 1)
            held_s = HELD_S if rule.clear_at is not None else 0.0
            for condition in rule.conditions:
                poll_s = timing.poll_of(condition.signal)[1]
                margin_s = max(LEAST_MARGIN_S, turns * poll_s) if poll_s else UNKNOWN_MARGIN_S
                wanted = min(rule.look_back_s + held_s + margin_s, timing.keep_s)
                found[condition.signal] = max(wanted, found.get(condition.signal, 0.0))
        return found
