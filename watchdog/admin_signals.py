"""What `lifeboat signals` shows of each signal: value, age, trend, source, what would be lost with its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from migrator.errors import LifeboatError
from watchdog.signals.catalog import CATALOG
from watchdog.signals.places import Affected
from watchdog.signals.series import ReadingHistory, Series

if TYPE_CHECKING:
    from watchdog.daemon.daemon import Daemon

TREND_S = 86400.0


Effects = Mapping[str, Affected]
"""What the loss of a device would take with it, by its identity; what is not known is not in it."""


def effects(daemon: Daemon, history: ReadingHistory) -> Effects:
    """Return what would be lost with each device; nothing is known while podman does not answer."""
    engine = daemon.engine
    if engine is None:
        return {}
    devices = {series.device.identity: series.device for series in history.series.values()}
    try:
        return daemon.losses.of_each(devices.values(), engine.containers())
    except LifeboatError:
        return {}


def signals_shown(history: ReadingHistory, now: float, effects: Effects) -> list[dict[str, Any]]:
    """Return the newest reading of each signal of each device, as JSON. Pure."""
    found = (series for series in history.series.values() if series.runs)
    return [_shown(series, now, effects.get(series.device.identity)) for series in found]


def _shown(series: Series, now: float, lost: Affected | None) -> dict[str, Any]:
    reading = series.latest
    known = CATALOG.get(series.signal)
    last_known = series.known[-1] if series.known else None
    return {
        "signal": reading.signal,
        "device": reading.device.name,
        "identity": reading.device.identity,
        "kind": reading.device.kind,
        "about": dict(reading.device.about),
        "value": reading.value,
        "unit": known.unit if known else "",
        "age_s": round(now - reading.at, 1),
        "trend": trend(series, now),
        "source": (known.source if known else "") or reading.device.name.removeprefix("reader "),
        "last_value": last_known.value if last_known else None,
        "blind_for_s": None if reading.readable else _blind_for_s(series, now),
        "reason": reading.reason,
        "affects": None if lost is None else "host" if lost.host else sorted(lost.containers),
    }


def trend(series: Series, now: float) -> dict[str, float] | None:
    """Return by how much a value has changed within the last day, and since when; None while that is not known."""
    recent = [run for run in series.known if run.until >= now - TREND_S]
    if not recent or recent[0] is recent[-1]:
        return None
    first, last = recent[0], recent[-1]
    change = (last.value or 0.0) - (first.value or 0.0)
    return {"change": round(change, 6), "over_s": round(now - max(first.until, now - TREND_S), 1)}


def _blind_for_s(series: Series, now: float) -> float:
    """Return for how long a signal has been unreadable."""
    since = series.known[-1].until if series.known else series.runs[0].at
    return round(now - since, 1)
