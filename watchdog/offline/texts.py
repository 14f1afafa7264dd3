"""Saved output of other tools: ipmitool, and machine checks as mcelog and the kernel print their registers."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from migrator.command import CommandResult
from watchdog.signals.catalog import CATALOG
from watchdog.signals.ipmi import IpmiReader
from watchdog.signals.ipmi_text import LogEntry, log_entries
from watchdog.signals.mce import judge_status
from watchdog.signals.model import Device, DeviceKind, Reading

SENSOR_LINE = re.compile(
    r"^[^|\n]+\|\s*(?:-?[\d.]+|na|0x\w+)\s*\|\s*(?:degrees C|RPM|Volts|Watts|discrete|percent|Amps)\s*\|",
    re.MULTILINE,
)
EVENT_LINE = re.compile(r"^\s*[0-9a-f]+ \| (?:\d\d/\d\d/\d{2,4}|Pre-Init[^|]*)\s*\|", re.MULTILINE)
SUPPLY_LINE = re.compile(r"^[^|\n]+\| [0-9A-F]{2}h \| (?:ok|cr|nc|nr|ns)\s*\|", re.MULTILINE)

MCE_STATUS = re.compile(r"^\s*(?:MCi_)?STATUS:? (?:0x)?(?P<status>[0-9a-fA-F]{1,16})\b", re.MULTILINE)
MCE_BANK = re.compile(r"\bBank:? (?P<bank>\d+): (?P<status>[0-9a-fA-F]{16})")
MCE_SOCKET = re.compile(r"\bSOCKET(?:ID)? (\d+)")
MCE_VENDOR = re.compile(r"\bPROCESSOR (\d+):")
INTEL = "0"


def is_bmc_text(text: str) -> bool:
    """Say whether a text is the output of ipmitool."""
    return any(line.search(text) for line in (SENSOR_LINE, EVENT_LINE, SUPPLY_LINE))


def read_bmc(text: str, now: float) -> tuple[Reading, ...]:
    """Return what the daemon's reader makes of the sensors, supplies and events in a text.

    Events come with a zero just before, as they happened after the log began.
    """
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "ipmi0").touch()
        readings = IpmiReader(1, devices=Path(place), door=_Bmc(text).answer).read(now)
    return (*(item for item in readings if item.signal not in ("reader.blind", "sel.full")), *_events(text, now))


class _Bmc:
    """Answers for ipmitool, from a text that holds one of its outputs."""

    def __init__(self, text: str) -> None:
        self._sensors = "\n".join(line for line in text.splitlines() if SENSOR_LINE.match(line))
        self._supplies = "\n".join(line for line in text.splitlines() if SUPPLY_LINE.match(line))

    def answer(self, argv: Sequence[str], *, timeout_s: float) -> CommandResult:
        """Return what ipmitool would have said."""
        said = {"sensor": self._sensors, "sel info": "Entries          : 0\n", "sdr type 0x08": self._supplies}
        return CommandResult(tuple(argv), 0, said.get(" ".join(argv[1:]), ""), "")


def _events(text: str, now: float) -> Iterator[Reading]:
    counted: dict[tuple[str, str], list[LogEntry]] = {}
    lines = "\n".join(line for line in text.splitlines() if EVENT_LINE.match(line))
    for entry in log_entries(lines):
        counted.setdefault((entry.signal, entry.sensor), []).append(entry)
    for (signal, sensor), entries in counted.items():
        device = Device(CATALOG[signal].device_kind, f"sel:{sensor}", f"BMC log: {sensor}")
        yield from grown_by(signal, device, len(entries), now, entries[-1].said)


def is_machine_check(text: str) -> bool:
    """Say whether a text shows machine-check registers."""
    return bool(MCE_STATUS.search(text) or MCE_BANK.search(text))


def read_machine_checks(text: str, now: float) -> tuple[Reading, ...]:
    """Return the machine checks in a text, counted for each socket; a record that holds no error is unreadable."""
    socket, vendor = MCE_SOCKET.search(text), MCE_VENDOR.search(text)
    name = f"socket {socket[1] if socket else 0}"
    device = Device(DeviceKind.PROCESSOR, f"cpu:{name}", name)
    counts = {"mce.corrected": 0, "mce.uncorrected": 0}
    found = [*MCE_STATUS.finditer(text), *MCE_BANK.finditer(text)]
    for record in found:
        judged = judge_status(int(record["status"], 16), is_intel=vendor is None or vendor[1] == INTEL)
        if judged is not None:
            counts[judged[0]] += judged[1]
    if not any(counts.values()):
        reason = "the record holds no error: bit 63 of its status is clear"
        return tuple(Reading(signal, device, now, None, reason) for signal in counts)
    return tuple(item for signal, count in counts.items() for item in grown_by(signal, device, count, now))


def grown_by(signal: str, device: Device, count: int, now: float, remark: str = "") -> Iterator[Reading]:
    """Return a counter that stood at 0 just before."""
    yield Reading(signal, device, now - 1, 0.0)
    yield Reading(signal, device, now, float(count), remark)
