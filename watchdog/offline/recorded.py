"""What a file holds, and what the daemon's own decoders read in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from migrator.errors import UsageError
from watchdog.offline.programs import read_program
from watchdog.offline.smart_text import answer_of, is_smart_text
from watchdog.offline.texts import is_bmc_text, is_machine_check, read_bmc, read_machine_checks
from watchdog.offline.trees import is_listing, read_listing, read_tree
from watchdog.policy.trace import is_trace, read_lines
from watchdog.signals.kernel_log import read_log
from watchdog.signals.kernel_patterns import Patterns
from watchdog.signals.model import Device, Reading
from watchdog.signals.smart_answer import Answer, device_of, parse_answer, part, whole
from watchdog.signals.smart_decode import decode

LARGEST_BYTES = 64 << 20
KERNEL_LINE = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\]|\bkernel: |^\d+,\d+,\d+,[\w-]+[;,]", re.MULTILINE)
NO_NAMES = re.compile(r"^(?:REDACTED|[-xX*. ]*)$")
"""Serial numbers that were blackened, and tell no drive from another."""

EXPECTED = (
    "smartctl --json -x (or its text), a sysfs tree or a listing of one, kernel log lines, ipmitool output, "
    "sensors -j, lvs --reportformat json, zpool status -P -p -L or -j -p, btrfs device stats, /proc/mdstat, "
    "mdadm --detail, upsc, apcaccess, machine-check records, a trace of lifeboat policy record"
)


@dataclass(frozen=True)
class Recording:
    """What one file holds: `kind` says as what it was read, `hours` a drive's power-on hours."""

    name: str
    kind: str
    readings: tuple[Reading, ...]
    problem: str = ""
    at: float | None = None  # Unix seconds, when the file says
    hours: int | None = None


def read_recording(name: str, patterns: Patterns, now: float) -> Recording:
    """Read a file, a directory, or `-` for standard input; raises `UsageError` when there is no such thing."""
    path = Path(name)
    if name != "-" and path.is_dir():
        readings = read_tree(path, now)
        problem = "" if readings else "no sensor, memory controller or other device of sysfs is in it"
        return Recording(name, "a tree of sysfs", readings, problem)
    return recognised(name, _text(name), patterns, now)


def recognised(name: str, text: str, patterns: Patterns, now: float) -> Recording:
    """Return what a text tells, whatever it is the output of."""
    if is_trace(text):
        return Recording(name, "a trace", tuple(_of_trace(text, name)))
    if (of_program := _of_program(name, text, now)) is not None:
        return of_program
    if text.lstrip()[:1] == "{" or "Pending defect count:" in text[:60]:
        return _smart_json(name, text, now)
    if is_smart_text(text):
        return _smart(name, "smartctl's text", answer_of(text), now)
    is_log = bool(KERNEL_LINE.search(text))
    known: tuple[tuple[str, bool, Callable[[], tuple[Reading, ...]]], ...] = (
        ("a listing of sysfs", is_listing(text), lambda: read_listing(text, now)),
        ("ipmitool's output", is_bmc_text(text), lambda: read_bmc(text, now)),
        ("machine-check records", is_machine_check(text) and not is_log, lambda: read_machine_checks(text, now)),
        ("a kernel log", is_log, lambda: _kernel_log(text, patterns, now)),
    )
    for kind, is_it, read in known:
        if is_it:
            return Recording(name, kind, read())
    return Recording(name, "not recognised", (), f"not recognised; expected {EXPECTED}")


def _of_program(name: str, text: str, now: float) -> Recording | None:
    try:
        told = read_program(text, name, now)
    except ValueError as error:
        return Recording(name, "not recognised", (), f"cannot be read: {error}")
    return None if told is None else Recording(name, *told)


def _of_trace(text: str, name: str) -> Iterator[Reading]:
    """Return the readings of a trace; of each run the first and the last."""
    history, _ = read_lines(text.splitlines(), name)
    for series in history.series.values():
        for run in series.runs:
            for at in sorted({run.at, run.until}):
                yield Reading(series.signal, series.device, at, run.value, run.reason)


def _kernel_log(text: str, patterns: Patterns, now: float) -> tuple[Reading, ...]:
    checks = read_machine_checks(text, now) if is_machine_check(text) else ()
    return (*read_log(text, patterns, now), *(item for item in checks if item.readable))


def _smart_json(name: str, text: str, now: float) -> Recording:
    try:
        answer = parse_answer(text)
    except ValueError as error:
        return Recording(name, "not recognised", (), f"is no JSON: {error}")
    if not {"smartctl", "device", "smart_status", "model_name", "scsi_model_name"} & set(answer):
        return Recording(name, "not recognised", (), f"JSON, but not smartctl's; expected {EXPECTED}")
    return _smart(name, "smartctl's JSON", answer, now)


def _smart(name: str, kind: str, answer: Answer, now: float) -> Recording:
    device = _named(device_of(answer, str(part(answer, "device").get("name") or "")), name)
    at = whole(part(answer, "local_time").get("time_t"))
    hours = whole(part(answer, "power_on_time").get("hours"))
    readings = decode(answer, device, now)
    return Recording(name, kind, readings, at=None if at is None else float(at), hours=hours)


def _named(device: Device, file: str) -> Device:
    """Return a drive with a name and an identity, also where the serial number was blackened."""
    model, serial = device.about.get("model", ""), device.about.get("serial", "")
    if NO_NAMES.match(serial) and (serial or device.identity == f"disk:{device.name}"):
        return replace(device, identity=f"disk:{model or file}", name=model or file)
    if device.name:
        return device
    return replace(device, name=f"{model} {serial}".strip())


def _text(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read(LARGEST_BYTES).decode("utf-8", "replace")
        with Path(name).open("rb") as file:
            return file.read(LARGEST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}", code="no-such-file") from error


def in_time_order(recordings: list[Recording], now: float) -> list[Reading]:
    """Return all readings with times: the files' own, else a drive's power-on hours, else a day apart.

    Files are expected in the order of time; the last one is `now`.
    """
    found: list[Reading] = []
    moments = _moments(recordings, now)
    for recording, moment in zip(recordings, moments, strict=True):
        shift = moment - max((item.at for item in recording.readings), default=moment)
        found += [replace(item, at=item.at + shift) for item in recording.readings]
    return found


def _moments(recordings: list[Recording], now: float) -> list[float]:
    for times in ([item.at for item in recordings], [_seconds(item.hours) for item in recordings]):
        known = [time for time in times if time is not None]
        if len(known) == len(recordings) and known == sorted(set(known)):
            return [now - (known[-1] - time) for time in known]
    return [now - 86400.0 * (len(recordings) - 1 - number) for number in range(len(recordings))]


def _seconds(hours: int | None) -> float | None:
    return None if hours is None else hours * 3600.0
