"""Recorded readings as text, one run a line in JSON: what `lifeboat policy record` writes and `replay` reads. Pure.

    {"signal": "smart.pending_sectors", "device": "/dev/sda", "identity": "disk:S1", "kind": "disk",
     "about": {"type": "hdd"}, "at": 1732450000.0, "until": 1732453600.0, "readings": 13, "value": 3.0}

`identity`, `kind`, `about`, `until`, `readings` and `reason` may be missing; a value that is null was unreadable.
A line with "failed_at" in place of "signal" says when a device really failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from migrator.errors import UsageError
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import Device, DeviceKind
from watchdog.signals.series import ReadingHistory, Run, Series, SeriesKey
from watchdog.toml_files import nearest


def lines_of(history: ReadingHistory) -> Iterator[str]:
    """Return a history as lines."""
    for series in history.series.values():
        device = series.device
        about = {
            "signal": series.signal,
            "device": device.name,
            "identity": device.identity,
            "kind": device.kind,
            "about": dict(device.about),
        }
        for run in series.runs:
            yield json.dumps({**about, **run._asdict()})


def is_trace(text: str) -> bool:
    """Say whether a text begins as a trace does."""
    try:
        entry = json.loads(text.partition("\n")[0])
    except ValueError:
        return False
    return isinstance(entry, dict) and {"signal", "device", "at", "value"} <= set(entry)


def read_lines(lines: Iterable[str], name: str) -> tuple[ReadingHistory, dict[str, float]]:
    """Return the history in lines, and when which device failed; raises `UsageError` naming the first bad line."""
    runs: dict[SeriesKey, list[Run]] = {}
    devices: dict[SeriesKey, Device] = {}
    failures: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _entry(line)
            if "failed_at" in entry:
                failures[str(entry.get("identity", entry["device"]))] = _moment(entry["failed_at"])
                continue
            device, run = _device(entry), _run(entry)
            key = (_signal(entry), device.identity)
        except (ValueError, KeyError, TypeError) as error:
            said = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"{name}:{number}: {said}", code="bad-trace") from error
        runs.setdefault(key, []).append(run)
        devices[key] = device
    found = {
        key: Series(key[0], devices[key], tuple(sorted(some, key=lambda run: run.at))) for key, some in runs.items()
    }
    return ReadingHistory(found), failures


def _entry(line: str) -> Mapping[str, Any]:
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise TypeError("is no JSON object")
    return entry


def _signal(entry: Mapping[str, Any]) -> str:
    signal = str(entry["signal"])
    if signal not in CATALOG:
        raise ValueError(f"{signal!r} is no signal{nearest(signal, list(CATALOG))}")
    return signal


def _device(entry: Mapping[str, Any]) -> Device:
    name = str(entry["device"])
    about = entry.get("about", {})
    if not isinstance(about, dict):
        raise TypeError("about is no object")
    kind = entry.get("kind", CATALOG[_signal(entry)].device_kind)
    known = {str(key): str(value) for key, value in about.items()}
    return Device(DeviceKind(kind), str(entry.get("identity", name)), name, known)


def _run(entry: Mapping[str, Any]) -> Run:
    at, value = _moment(entry["at"]), entry["value"]
    until = max(_moment(entry.get("until", at)), at)
    read = None if value is None else _moment(value)
    return Run(at, until, max(int(entry.get("readings", 1)), 1), read, str(entry.get("reason", "")))


def _moment(value: object) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no number")
    return number
