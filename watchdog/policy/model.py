"""The shape of a policy file: rules on signals, each with its reason.

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
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from migrator.health import Lead, Verdict
from migrator.model import Value
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind
from watchdog.toml_files import nearest

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def duration_s(text: object) -> float:
    """Read `30s`, `10m`, `24h` or `7d` as seconds."""
    if isinstance(text, str) and (found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())):
        return float(found.group(1)) * UNITS_S[found.group(2)]
    raise ValueError("a duration is a number with s, m, h or d behind it, in quotes: '30s', '10m', '24h', '7d'")


Duration = Annotated[float, BeforeValidator(duration_s)]


class Mode(StrEnum):
    """What a rule may cause."""

    ACT = "act"
    ALERT = "alert"
    RECORD = "record"


class Rule(Value):
    """One rule. Exactly one condition: `is_set`, `at_least`, `at_most` or `grows_by` with `within`."""

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="unique name of the rule, as alerts show it")
    signal: str = Field(description="a signal; see: lifeboat signals --catalog")
    where: dict[str, str] = Field(
        default_factory=dict, description="only devices with these properties, as: { type = 'hdd' }"
    )
    is_set: bool | None = Field(default=None, description="the flag is set")
    at_least: float | None = Field(default=None, description="the value is this or more")
    at_most: float | None = Field(default=None, description="the value is this or less")
    grows_by: float | None = Field(default=None, gt=0, description="it grew by this or more within `within`")
    within: Duration | None = Field(default=None, description="the window for `grows_by`, as '24h'")
    readings: int = Field(default=1, ge=1, le=1000, description="it must hold in so many successive readings")
    over: Duration = Field(default=0.0, description="and these must span at least this time, as '10m'")
    verdict: Verdict = Field(description="what the host is then: suspect or failing")
    lead: Lead = Field(default=Lead.DAYS, description="how long such a host usually lasts")
    mode: Mode = Field(default=Mode.ACT, description="act, alert only, or record only")
    why: str = Field(description="the sentence an admin reads in the alert")
    source: str = Field(default="", description="where the threshold comes from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = CATALOG.get(self.signal)
        if known is None:
            raise ValueError(f"{self.signal!r} is no signal{nearest(self.signal, list(CATALOG))}")
        conditions = {
            "is_set": self.is_set,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "grows_by": self.grows_by,
        }
        given = [name for name, value in conditions.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(conditions)}; has {', '.join(given) or 'none'}")
        if (self.is_set is not None) != (known.kind is SignalKind.FLAG):
            wanted = "is_set" if known.kind is SignalKind.FLAG else "at_least, at_most or grows_by"
            raise ValueError(f"{self.signal} is a {known.kind} in {known.unit}: use {wanted}")
        if (self.grows_by is None) != (self.within is None):
            raise ValueError("grows_by and within belong together")
        if self.verdict is Verdict.HEALTHY:
            raise ValueError("a rule cannot make a host healthy; verdict is suspect or failing")
        if self.over and self.readings < 2:
            raise ValueError(f"over = {self.over:g} s needs readings = 2 or more: one reading spans no time")
        return self


class PolicyFile(Value):
    """One file."""

    rule: tuple[Rule, ...] = Field(default=(), description="the rules")


class Policy(Value):
    """All rules in force, of all files."""

    rules: tuple[Rule, ...]
