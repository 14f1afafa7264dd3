"""What the daemon tells people by alerts, each piece of news once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from migrator.model import MigrationOutcome
from watchdog.alerts.model import Event, Kind, Severity, SignalValue
from watchdog.daemon.evacuation import migration_event
from watchdog.daemon.flags import FlagFile
from watchdog.daemon.judgement import SEVERITIES, signal_value
from watchdog.daemon.readiness import Verdicts, change, stuck
from watchdog.policy.evaluate import Assessment
from watchdog.signals.model import Reading


class Telling:
    """The alerts of one host; what was told is remembered in the flags, also over restarts."""

    def __init__(self, host: Callable[[], str], flags: FlagFile, send: Callable[[Event], None]) -> None:
        self._host = host
        self._flags = flags
        self._send = send

    def verdict(self, assessment: Assessment, sentence: str) -> None:
        """The host is another than before."""
        signals = tuple(map(signal_value, assessment.fired))
        self._say(SEVERITIES[assessment.verdict], Kind.VERDICT, f"{self._host()} is {sentence}", signals)

    def blindness(self, blind: Sequence[Reading]) -> None:
        """Tell once of what cannot be read."""
        reasons = {f"{item.device.name}: {item.signal}": item.reason for item in blind}
        known = set(self._flags.flags.blind)
        if new := sorted(set(reasons) - known):
            text = f"{self._host()} cannot read: {'; '.join(f'{what}: {reasons[what]}' for what in new)}"
            self._say(Severity.WARNING, Kind.BLIND, text)
        if set(reasons) != known:
            self._flags.change(blind=tuple(sorted(reasons)))

    def readiness(self, verdicts: Verdicts) -> None:
        """Tell once when an evacuation would leave something behind, and once when it would not any more."""
        now, known = stuck(verdicts), self._flags.flags.stuck
        if text := change(known, now):
            severity = Severity.WARNING if now else Severity.INFO
            self._say(severity, Kind.READINESS, f"{self._host()}: {text}")
        if set(now) != set(known):
            self._flags.change(stuck=tuple(sorted(now)))

    def rejected_policies(self, reason: str) -> None:
        """The policies on disk are bad."""
        text = f"the new policies are not used, the last good ones stay in force: {reason}"
        self._say(Severity.WARNING, Kind.POLICY_REJECTED, text)

    def storm(self, reason: str) -> None:
        """The storm guard has tripped."""
        text = f"{self._host()} is failing and moves nothing by itself: {reason}; look, then: lifeboat storm reset"
        self._say(Severity.CRITICAL, Kind.STORM, text)

    def outcome(self, outcome: MigrationOutcome) -> None:
        """A migration has ended."""
        self._send(migration_event(self._host(), outcome))

    def call_a_human(self, text: str) -> None:
        """Something does not end by itself."""
        self._say(Severity.CRITICAL, Kind.CALL_A_HUMAN, text)

    def _say(self, severity: Severity, kind: Kind, text: str, signals: tuple[SignalValue, ...] = ()) -> None:
        self._send(Event(host=self._host(), severity=severity, kind=kind, text=text, signals=signals))
