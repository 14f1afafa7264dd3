"""What an alert says. The JSON of `Event` is the body of every webhook."""

from __future__ import annotations

import time
import uuid
from enum import StrEnum
from typing import Any

from pydantic import Field

from migrator.model import Value


class Severity(StrEnum):
    """How urgent an event is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Order severities: 0 info, 1 warning, 2 critical."""
        return list(Severity).index(self)


class Kind(StrEnum):
    """What an event is about."""

    VERDICT = "verdict-changed"
    RULE = "rule-fired"
    RULE_CLEARED = "rule-cleared"
    BLIND = "blind"
    READINESS = "readiness-changed"
    EVACUATION_STARTED = "evacuation-started"
    EVACUATION_ENDED = "evacuation-ended"
    STORM = "storm"
    MIGRATION_ENDED = "migration-ended"
    POLICY_REJECTED = "policy-rejected"
    CALL_A_HUMAN = "call-a-human"


class SignalValue(Value):
    """One value that an event rests on."""

    signal: str
    device: str
    value: float | None
    rule: str = ""


class Event(Value):
    """One alert. `id` is the same in every attempt to deliver it, so a receiver can drop repetitions."""

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    at: float = Field(default_factory=time.time, description="Unix seconds")
    host: str
    severity: Severity
    kind: Kind
    text: str
    signals: tuple[SignalValue, ...] = ()
    plan: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None


class Webhook(Value):
    """One receiver: section [[alerts.webhook]] of lifeboat.toml."""

    url: str = Field(pattern=r"^https?://", description="where events are posted as JSON")
    secret_file: str = Field(default="", description="file with the key for the X-Lifeboat-Signature header")
    severity: Severity = Field(default=Severity.INFO, description="the least severity that is sent here")
    timeout_s: float = Field(default=10, gt=0, le=120, description="how long the receiver may take")
    verify_file: str = Field(default="", description="CA certificates for https, when not the system's")


class AlertSettings(Value):
    """Section [alerts] of lifeboat.toml."""

    webhook: tuple[Webhook, ...] = Field(default=(), description="the receivers")
    attempts: int = Field(default=50, ge=1, description="deliveries tried of one event before it is given up")
