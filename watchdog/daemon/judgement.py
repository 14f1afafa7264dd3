"""The rules in force and the readings they judge: load, reload, silence, assess, tell what has fired."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from migrator.errors import UsageError
from migrator.health import Verdict
from watchdog.alerts.model import Event, Kind, Severity, SignalValue
from watchdog.daemon.flags import FlagFile
from watchdog.daemon.readings import Readings
from watchdog.policy.evaluate import Assessment, Memory, RuleState, evaluate
from watchdog.policy.load import load_policy, timing_of
from watchdog.policy.model import Mode, Policy
from watchdog.policy.quiet import Quiet, Silence, in_force
from watchdog.signals.model import Device
from watchdog.signals.settings import SignalSettings
from watchdog.toml_files import FileError, nearest

STALE_S = 10.0  # after this long time alone is reason to judge anew: windows open, blindness grows

SEVERITIES = {
    Verdict.HEALTHY: Severity.INFO,
    Verdict.SUSPECT: Severity.WARNING,
    Verdict.FAILING: Severity.CRITICAL,
}

_log = logging.getLogger("lifeboatd")


@dataclass(frozen=True)
class RulePlaces:
    """Where policy files are."""

    shipped: Path
    local: Path


class Judgement:
    """Rules and readings of this host; `assessment` is the newest."""

    def __init__(self, places: RulePlaces, settings: SignalSettings, state: Path, flags: FlagFile) -> None:
        """Read the policies; raises `FileError` when they are bad."""
        self._places = places
        self._timing = timing_of(settings)
        self._flags = flags
        self._lock = threading.Lock()
        self.policy: Policy = load_policy(places.shipped, places.local, self._timing)
        self.loaded_at = time.time()
        self.rejected = ""
        """Why the policies on disk are not those in force; empty when they are."""
        self.readings = Readings(
            state / "readings.db", settings.keep_days, settings.keep_mb, self.loaded_at, flags.flags.forgotten
        )
        self._look_back()
        self._memory = Memory()
        self._judged: tuple[int, float] = (-1, 0.0)
        self.verdict_at = time.monotonic()
        self.assessment: Assessment = evaluate(self.policy, self.readings.history(), time.time())

    def assess(self) -> Assessment:
        """Judge the host, if anything has changed since the last time."""
        now = time.time()
        version = self.readings.version
        if version != self._judged[0] or abs(now - self._judged[1]) >= STALE_S:
            self._judged = (version, now)
            verdict = self.assessment.verdict
            history, quiets = self.readings.history(), self.quiets(now)
            self.assessment = evaluate(self.policy, history, now, quiets, self._memory)
            if self.assessment.verdict is not verdict:
                self.verdict_at = time.monotonic()
        return self.assessment

    def quiets(self, now: float) -> tuple[Quiet, ...]:
        """Return the silences and windows in force."""
        moment = datetime.fromtimestamp(now).astimezone()
        return in_force(self.policy.windows, self._flags.flags.silences, moment)

    def reload(self) -> str:
        """Read the policies anew; a bad one changes nothing, and the reason is returned."""
        try:
            self.policy = load_policy(self._places.shipped, self._places.local, self._timing)
        except FileError as error:
            self.rejected = error.message
            return error.message
        self.rejected, self.loaded_at = "", time.time()
        self._memory = Memory()
        self._look_back()
        self._judge_anew()
        _log.info("policies reloaded: %d rules", len(self.policy.rules))
        return ""

    def silence(self, what: str, seconds: float, why: str) -> Silence:
        """Silence a rule or a device for a time; raises `UsageError` when there is no such thing.

        Raises `ExecutionError` when it is in force, but not on disk; so does `unsilence`.
        """
        now = time.time()
        names = set(self._names())
        if what not in names and "*" not in what:
            raise UsageError(
                f"there is no rule and no device {what!r}{nearest(what, sorted(names))}",
                code="nothing-to-silence",
                hint="lifeboat policy explain",
            )
        made = Silence(what=what, until=now + seconds, why=why, since=now)
        with self._lock:
            kept = tuple(item for item in self._flags.flags.silences if item.what != what and item.until > now)
            self._flags.change(silences=(*kept, made))
        self._judge_anew()
        self._flags.file.check()
        return made

    def unsilence(self, what: str) -> None:
        """End a silence; raises `UsageError` when there is none."""
        with self._lock:
            silences = self._flags.flags.silences
            kept = tuple(item for item in silences if item.what != what)
            if len(kept) == len(silences):
                found = nearest(what, [item.what for item in silences])
                raise UsageError(f"{what!r} is not silenced{found}", code="not-silenced", hint="lifeboat status")
            self._flags.change(silences=kept)
        self._judge_anew()
        self._flags.file.check()

    def silences(self) -> tuple[Silence, ...]:
        """Return the silences in force."""
        return tuple(item for item in self._flags.flags.silences if item.until > time.time())

    def forget(self, what: str) -> Device:
        """Forget the past of a device that was replaced; raises `UsageError` when there is none of the name."""
        devices = self._devices()
        found = next((device for device in devices if what in names_of(device)), None)
        if found is None:
            names = sorted({name for device in devices for name in names_of(device)})
            raise UsageError(
                f"there is no device {what!r}{nearest(what, names)}", code="no-such-device", hint="lifeboat signals"
            )
        self.readings.forget(found.identity)
        self._flags.change(forgotten=tuple(sorted(self.readings.forgotten)))
        self._judge_anew()
        return found

    def tell_fired(self, host: str, send: Callable[[Event], None], *, verdict_told: bool) -> None:
        """Alert once of each rule that has fired or cleared, also over restarts.

        A change of the verdict tells of all that has fired, so `verdict_told` leaves only noting it.
        """
        firing = {f"{state.rule.id} {state.device.identity}": state for state in self._alerting()}
        known = set(self._flags.flags.told)
        if not verdict_told:
            for key in sorted(set(firing) - known):
                send(rule_event(host, firing[key]))
            silenced = {f"{state.rule.id} {state.device.identity}" for state in self.assessment.fired}
            for key in sorted(known - set(firing) - silenced):
                text = f"{host}: the rule {key.partition(' ')[0]} does not hold any more on {key.partition(' ')[2]}"
                send(Event(host=host, severity=Severity.INFO, kind=Kind.RULE_CLEARED, text=text))
        if set(firing) != known:
            self._flags.change(told=tuple(sorted(firing)))

    def _alerting(self) -> Iterator[RuleState]:
        return (state for state in self.assessment.fired if state.mode is not Mode.RECORD)

    def _names(self) -> Iterator[str]:
        yield from (rule.id for rule in self.policy.rules)
        for device in self._devices():
            yield from names_of(device)

    def _devices(self) -> tuple[Device, ...]:
        found = {series.device.identity: series.device for series in self.readings.history().series.values()}
        return tuple(found.values())

    def _look_back(self) -> None:
        self.readings.look_back(self.policy.look_back(self._timing), time.time())

    def _judge_anew(self) -> None:
        self._judged = (-1, 0.0)


def names_of(device: Device) -> tuple[str, ...]:
    """Return the names an admin may use for a device."""
    return tuple(name for name in (device.name, device.identity, device.about.get("serial", "")) if name)


def signal_value(state: RuleState) -> SignalValue:
    """Return what an alert says of a rule that has fired."""
    signal = state.rule.signal or ", ".join(item.signal for item in state.rule.conditions)
    return SignalValue(signal=signal, device=state.device.name, value=state.value, rule=state.rule.id)


def rule_event(host: str, state: RuleState) -> Event:
    """Return the alert about a rule that has fired."""
    severity = Severity.WARNING if state.mode is Mode.ALERT else SEVERITIES[state.rule.verdict]
    text = f"{host}: {state.sentence}"
    return Event(host=host, severity=severity, kind=Kind.RULE, text=text, signals=(signal_value(state),))
