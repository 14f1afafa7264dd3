"""Backblaze's published daily SMART data as a history: one row a drive and day, and whether it failed that day.

Columns: date, serial_number, model, capacity_bytes, failure, smart_N_normalized, smart_N_raw, and others.
Source: https://www.backblaze.com/cloud-storage/resources/hard-drive-test-data. Each row is read by the decoder
of the daemon, as an answer of smartctl with these attributes; thresholds and the drive's own health are not in it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from migrator.errors import UsageError
from watchdog.signals.model import Device
from watchdog.signals.series import ReadingHistory, Run, Series, SeriesKey, append
from watchdog.signals.smart_answer import device_of
from watchdog.signals.smart_decode import decode

HEAD = ("date", "serial_number", "model")
NEEDED = (*HEAD, "failure")
SPINNING = ("3", "10")  # spin-up time, spin retries: an SSD has neither
DAY_S = 86400.0


def is_backblaze(text: str) -> bool:
    """Say whether a text begins as these files do."""
    return text.startswith(",".join(HEAD))


def read_rows(lines: Iterable[str], name: str, history: Growing) -> None:
    """Add the rows of a file to a history; raises `UsageError` naming the first bad line."""
    reader = csv.DictReader(lines)
    missing = [column for column in NEEDED if column not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{name}: has no column {missing[0]!r}, so it is no daily SMART data", code="bad-csv")
    for row in reader:
        try:
            history.take(row)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{name}:{reader.line_num}: {error}", code="bad-csv") from error


class Growing:
    """A history that grows by rows, in the order of days; kept as runs, so that years fit into memory."""

    def __init__(self) -> None:
        self._runs: dict[SeriesKey, list[Run]] = {}
        self._devices: dict[str, Device] = {}
        self.failures: dict[str, float] = {}

    def take(self, row: Mapping[str, str]) -> None:
        """Add one row; raises ValueError when it makes no sense."""
        at = datetime.strptime(row["date"], "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        serial = (row["serial_number"] or "").strip()
        if not serial:
            raise ValueError("there is no serial number")
        answer = _answer(row, serial)
        if serial not in self._devices:
            self._devices[serial] = device_of(answer, serial)
        device = self._devices[serial]
        if row["failure"] == "1":
            self.failures[device.identity] = at + DAY_S
        for reading in decode(answer, device, at):
            append(self._runs.setdefault((reading.signal, device.identity), []), reading)

    def history(self) -> ReadingHistory:
        """Return what has come together."""
        devices = {device.identity: device for device in self._devices.values()}
        return ReadingHistory(
            {key: Series(key[0], devices[key[1]], tuple(runs)) for key, runs in self._runs.items()}
        )


def _answer(row: Mapping[str, str], serial: str) -> dict[str, object]:
    spins = any(row.get(f"smart_{number}_raw") for number in SPINNING)
    return {
        "model_name": row.get("model", ""),
        "serial_number": serial,
        "rotation_rate": 7200 if spins else 0,
        "ata_smart_attributes": {"table": list(_attributes(row))},
    }


def _attributes(row: Mapping[str, str]) -> Iterator[dict[str, object]]:
    for name, text in row.items():
        number = name[len("smart_") : -len("_raw")] if name and name.endswith("_raw") else ""
        if not number.isdigit() or not text:
            continue
        raw = int(float(text))
        yield {
            "id": int(number),
            "name": "",
            "when_failed": "",
            "flags": {"prefailure": False},
            "raw": {"value": raw, "string": str(raw)},
        }
