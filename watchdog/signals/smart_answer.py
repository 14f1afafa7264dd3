"""What all answers of `smartctl --json -x` have in common. Pure.

Formats: smartmontools' JSON (format 1.0, smartmontools 7.x); exit status as in smartctl(8).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from watchdog.signals.model import Device, DeviceKind

EXIT_PARSE, EXIT_OPEN, EXIT_COMMAND = 0x01, 0x02, 0x04
"""Bits of the exit status: bad command line; device did not open; some command failed, data is partial.

Bits 3 to 7 repeat what the data says (failing, thresholds, logs), bits 5 to 7 for the whole life of the
drive, so they are not read.
"""

STANDBY_STATUS = 3
"""Ours, asked for with `-n standby,3`: both low bits at once, which smartctl itself never says otherwise."""

PLAUSIBLE_CELSIUS = (1.0, 100.0)
"""Outside stand sentinels (0, -128, 127, 186): of 30,590 disks the hottest true one had some 60."""

PLAUSIBLE_LIMIT_CELSIUS = (40.0, 125.0)

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Drive:
    """A drive as smartctl is called for it."""

    path: str
    type: str

    @property
    def name(self) -> str:
        """Return what tells this drive from others: behind a RAID controller many have the same path."""
        return f"{self.path} {self.type}" if "," in self.type else self.path


class Told(NamedTuple):
    """One signal as the drive tells it; without a value, `remark` says why it is unreadable."""

    signal: str
    value: float | None
    remark: str = ""


def parse_answer(text: str) -> Answer:
    """Return the JSON in smartctl's output; raise ValueError when there is none.

    Versions before 7.3 print "  Pending defect count:" ahead of the JSON.
    """
    answer = json.loads(text[max(text.find("{"), 0) :])
    if not isinstance(answer, dict):
        raise ValueError("not an object")
    return answer


def part(answer: Answer, *keys: str) -> Answer:
    """Return a nested object; an empty one when it, or something on the way, is no object."""
    found: object = answer
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def rows(answer: Answer, *keys: str) -> list[Answer]:
    """Return the objects of a nested list."""
    found = part(answer, *keys[:-1]).get(keys[-1])
    listed = found if isinstance(found, Sequence) and not isinstance(found, str) else ()
    return [row for row in listed if isinstance(row, Mapping)]


def whole(value: object) -> int | None:
    """Return a whole number, or None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def said(answer: Answer) -> str:
    """Return smartctl's own messages in one line; the only place that says "Permission denied"."""
    return "; ".join(str(item.get("string", "")) for item in rows(answer, "smartctl", "messages"))


def exit_status(answer: Answer) -> int:
    """Return the exit status the answer carries, 0 without one."""
    return whole(part(answer, "smartctl").get("exit_status")) or 0


def is_standby(answer: Answer) -> bool:
    """Say whether the drive sleeps and was left alone."""
    return exit_status(answer) == STANDBY_STATUS


def refusal(answer: Answer) -> str:
    """Return why an answer tells nothing at all about the drive, or an empty text when it tells something."""
    status = exit_status(answer)
    if status == STANDBY_STATUS:
        return "in standby, and not woken"
    if status & EXIT_PARSE:
        return said(answer) or "smartctl did not understand the call"
    if status & EXIT_OPEN:
        return said(answer) or "the device cannot be opened"
    if part(answer, "smart_support").get("enabled") is False and not part(answer, "smart_status"):
        return "SMART is switched off in the drive"
    return ""


def device_of(answer: Answer, name: str) -> Device:
    """Return the drive an answer is about; its identity is its serial number, else its WWN, else its name."""
    serial = str(answer.get("serial_number") or "").strip()
    about = {
        "model": str(answer.get("model_name") or answer.get("scsi_model_name") or ""),
        "serial": serial,
        "type": drive_type(answer),
    }
    identity = f"disk:{serial or wwn(answer) or name}"
    return Device(DeviceKind.DISK, identity, name, {key: value for key, value in about.items() if value})


def is_identified(answer: Answer) -> bool:
    """Say whether an answer tells which drive it is about."""
    return bool(str(answer.get("serial_number") or "").strip() or wwn(answer))


def wwn(answer: Answer) -> str:
    """Return the world wide name as one text, or an empty one."""
    found = [whole(part(answer, "wwn").get(key)) for key in ("naa", "oui", "id")]
    return "wwn-" + "-".join(f"{number:x}" for number in found if number is not None) if all(found) else ""


def protocol(answer: Answer) -> str:
    """Return `ata`, `nvme`, `scsi`, or an empty text."""
    if "nvme_smart_health_information_log" in answer:
        return "nvme"
    if "ata_smart_attributes" in answer:
        return "ata"
    word = str(part(answer, "device").get("protocol") or "").lower()
    return word if word in ("ata", "nvme", "scsi") else ""


def drive_type(answer: Answer) -> str:
    """Return `nvme`, `ssd`, `hdd`, or an empty text; a rotation rate of 0 is smartctl's word for an SSD."""
    if protocol(answer) == "nvme":
        return "nvme"
    rate = whole(answer.get("rotation_rate"))
    if rate is None:
        return ""
    return "hdd" if rate else "ssd"


def told_temperature(answer: Answer) -> Iterator[Told]:
    """Return the temperature and how far it is below the drive's own operating limit.

    The limit is `op_limit_max` (ATA SCT status, NVMe WCTEMP since 7.5) or SCSI's `drive_trip`.
    """
    table = part(answer, "temperature")
    celsius = whole(table.get("current"))
    if celsius is None:
        return
    if not PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]:
        yield Told("smart.temperature", None, "the drive tells a temperature that cannot be")
        return
    yield Told("smart.temperature", float(celsius))
    threshold = part(answer, "nvme_composite_temperature_threshold").get("warning")
    for limit in (whole(table.get("op_limit_max")), whole(threshold), whole(table.get("drive_trip"))):
        if limit is not None and PLAUSIBLE_LIMIT_CELSIUS[0] <= limit <= PLAUSIBLE_LIMIT_CELSIUS[1]:
            yield Told("smart.temperature_margin", float(limit - celsius))
            return


def leading_number(text: object) -> int | None:
    """Return the number of `raw.string` where it is one, alone or with others in brackets behind it."""
    found = re.fullmatch(r"\s*(\d+)(?:\s*\(.*\))?\s*", str(text))
    return int(found.group(1)) if found else None
