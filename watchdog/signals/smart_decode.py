"""Turn one `smartctl --json -x` answer into readings. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from watchdog.signals.model import Device, Reading
from watchdog.signals.smart_answer import Answer, Told, protocol, refusal, told_temperature
from watchdog.signals.smart_ata import told_by_ata
from watchdog.signals.smart_nvme import ESSENTIAL as NVME_ESSENTIAL
from watchdog.signals.smart_nvme import told_by_nvme
from watchdog.signals.smart_scsi import told_by_scsi

ESSENTIAL = {
    "ata": ("smart.health_failed", "smart.prefail_attribute_failing"),
    "nvme": NVME_ESSENTIAL,
    "scsi": ("smart.health_failed",),
    "": ("smart.health_failed",),
}
"""What a drive of a protocol has to tell: reported as unreadable when it does not."""


def decode(
    answer: Answer, device: Device, now: float, *, known: frozenset[str] = frozenset()
) -> tuple[Reading, ...]:
    """Return every reading in an answer.

    `known` are the signals the drive told before: those it should have, and does not tell any more, are
    unreadable, as are all of them when it tells nothing.
    """
    reason = refusal(answer)
    told = {} if reason else {item.signal: item for item in _told(answer)}
    for signal in (*ESSENTIAL[protocol(answer)], *sorted(known)):
        told.setdefault(signal, Told(signal, None, reason or "not told by the drive"))
    return tuple(Reading(item.signal, device, now, item.value, item.remark) for item in told.values())


def _told(answer: Answer) -> Iterator[Told]:
    yield from told_temperature(answer)
    kind = protocol(answer)
    if kind == "ata":
        yield from told_by_ata(answer)
    elif kind == "nvme":
        yield from told_by_nvme(answer)
    elif kind == "scsi":
        yield from told_by_scsi(answer)
