"""What ipmitool says: sensors, power supplies, event log. Pure.

Formats: ipmitool(1), the outputs of `sensor`, `sdr type`, `sel info`, `sel elist`; IPMI 2.0, tables 42-2 and 42-3
(sensor types and their events).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

CRITICAL = ("cr", "nr", "lcr", "lnr", "ucr", "unr")
WARNING = ("nc", "lnc", "unc")
IN_ORDER = ("ok", *WARNING)
ABSENT = ("na", "ns", "")
UNITS = {
    "degrees C": "ipmi.temperature",
    "RPM": "ipmi.fan_speed",
    "Volts": "ipmi.voltage",
    "Watts": "ipmi.power",
}
PLAUSIBLE_CELSIUS = (1.0, 125.0)
CLOCK_BATTERY = re.compile(r"\b(V?BAT|VBAT|Battery|CMOS)\b", re.IGNORECASE)
"""The battery of the clock: low for years on many hosts, and no danger while there is power."""

PRESENT = "presence detected"
FAILED = ("failure detected", "predictive failure", "config")
UNPLUGGED = ("input lost", "ac lost", "out-of-range")
LOST = ("redundancy lost", "non-redundant", "redundancy degraded")


@dataclass(frozen=True)
class Sensor:
    """One line of `ipmitool sensor`: `value` is None for what is not there or not a number."""

    name: str
    value: float | None
    signal: str
    status: str
    limits_make_sense: bool

    @property
    def is_critical(self) -> bool:
        """Say whether it has passed a limit that can be meant."""
        return self.status in CRITICAL and self.limits_make_sense and not CLOCK_BATTERY.search(self.name)

    @property
    def is_warning(self) -> bool:
        """Say whether it has passed a limit of the mild kind."""
        return self.status in WARNING and self.limits_make_sense


def sensors(text: str) -> Iterator[Sensor]:
    """Return the analogue sensors; of several with one name the later ones are numbered."""
    seen: Counter[str] = Counter()
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) < 4 or columns[2] not in UNITS:
            continue
        name, raw, unit, status = columns[:4]
        seen[name] += 1
        value = _number(raw)
        celsius = unit == "degrees C"
        if value is not None and celsius and not PLAUSIBLE_CELSIUS[0] <= value <= PLAUSIBLE_CELSIUS[1]:
            value = None
        yield Sensor(
            name=name if seen[name] == 1 else f"{name} #{seen[name]}",
            value=value,
            signal=UNITS[unit],
            status=status.lower(),
            limits_make_sense=_in_order(columns[4:10], celsius=celsius),
        )


HARMLESS_CELSIUS = 50.0


def _in_order(columns: list[str], *, celsius: bool) -> bool:
    """Say whether limits (lnr, lcr, lnc, unc, ucr, unr) rise, and whether the upper critical one is no joke."""
    known = [value for value in map(_number, columns) if value is not None]
    rising = all(low <= high for low, high in pairwise(known))
    upper = _number(columns[4]) if len(columns) > 4 else None
    return rising and not (celsius and upper is not None and upper < HARMLESS_CELSIUS)


@dataclass(frozen=True)
class Supply:
    """A power supply, or the redundancy of all; one may be `unplugged` on purpose, and for ever."""

    name: str
    failed: bool
    unplugged: bool
    is_redundancy: bool
    said: str


def supplies(text: str) -> Iterator[Supply]:
    """Return the lines of `ipmitool sdr type 0x08` (power supply) and `0x09` (power unit) that say something."""
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) < 5:
            continue
        name, said = columns[0], columns[4]
        words = said.lower()
        is_redundancy = "redundan" in words
        failed = any(word in words for word in (LOST if is_redundancy else FAILED))
        unplugged = not is_redundancy and not failed and any(word in words for word in UNPLUGGED)
        if is_redundancy or failed or unplugged or PRESENT in words:
            yield Supply(name, failed, unplugged, is_redundancy, said)


@dataclass(frozen=True)
class LogState:
    """`sel info`: how many entries, and whether it has lost some."""

    entries: int
    is_full: bool


def log_state(text: str) -> LogState:
    """Return the state of the event log; raises ValueError when the text does not say."""
    values = {key.strip(): value.strip() for line in text.splitlines() for key, _, value in [line.partition(":")]}
    entries = _number(values.get("Entries", ""))
    if entries is None:
        raise ValueError("ipmitool sel info says nothing about entries")
    full = values.get("Overflow", "").lower() == "true" or values.get("Percent Used", "").startswith("100")
    return LogState(int(entries), full)


@dataclass(frozen=True)
class LogEntry:
    """One line of the event log that counts, and the sensor it is about."""

    number: int
    signal: str
    sensor: str
    said: str


EVENTS = {
    "sel.uncorrected_memory_errors": "Uncorrectable (?:ECC|memory)",
    "sel.corrected_memory_errors": "Correctable (?:ECC|memory)",
    "sel.power_supply_errors": "Failure detected|AC lost|input lost|Predictive failure",
    "sel.bus_errors": "PCI (?:PERR|SERR)|Bus (?:Fatal|Uncorrectable) Error|I/O channel check",
    "sel.processor_errors": "IERR|Thermal Trip|Machine Check|FRB[123]",
}
"""The words of the events that count; the first that is found."""

EVENT_WORDS = {signal: re.compile(words, re.IGNORECASE) for signal, words in EVENTS.items()}


def log_entries(text: str) -> Iterator[LogEntry]:
    """Return the entries that count, of `sel elist`; what was deasserted is over, and the rest is not hardware."""
    for line in text.splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) < 5 or columns[-1].lower().startswith("deasserted"):
            continue
        try:
            number = int(columns[0], 16)
        except ValueError:
            continue
        sensor, event = columns[3], columns[4]
        for signal, words in EVENT_WORDS.items():
            if words.search(event):
                yield LogEntry(number, signal, sensor, f"{sensor}: {event}")
                break


def last_number(text: str) -> int:
    """Return the number of the last entry of the event log, 0 for an empty one."""
    numbers = [int(found.group(1), 16) for found in re.finditer(r"^\s*([0-9a-fA-F]+)\s*\|", text, re.MULTILINE)]
    return max(numbers, default=0)


def _number(text: str) -> float | None:
    try:
        return float(text.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
