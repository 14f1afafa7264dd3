"""Machine checks as they happen: the kernel's tracepoints, or what rasdaemon has recorded of them.

The tracepoints of memory and PCIe errors are heard as well, for they say at once what EDAC's and AER's counters
are only asked for now and then: the readers of those are woken. Where there is neither, the kernel log is all.

Sources: include/trace/events/mce.h, include/ras/ras_event.h; Intel SDM volume 3, chapter "Machine-Check
Architecture" (IA32_MCi_STATUS); rasdaemon's ras-record.c.
"""

from __future__ import annotations

import re
import select
from collections.abc import Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.rasdaemon import DATABASE, RasDatabase
from watchdog.signals.reader import is_ignored, sight
from watchdog.signals.tally import Tally
from watchdog.signals.tracing import TRACEFS, TraceEvent, Tracing

EVENTS = ("mce/mce_record", "ras/mc_event", "ras/aer_event")
WAKES = {"mc_event": "edac", "aer_event": "pcie"}
STATUS = re.compile(r"\bMC(?P<bank>\d+): (?P<status>[0-9a-f]{1,16})", re.IGNORECASE)
SOCKET = re.compile(r"\bsocket: (?P<socket>\d+)", re.IGNORECASE)
VENDOR = re.compile(r"\b(?:vendor|processor): (?P<vendor>\d+)", re.IGNORECASE)
INTEL = 0  # X86_VENDOR_INTEL

VALID, UNCORRECTED = 1 << 63, 1 << 61
COUNT_SHIFT, COUNT_MASK = 38, 0x7FFF
"""IA32_MCi_STATUS: bits 63 (the record holds an error), 61 (uncorrected), 52:38 (how many corrected; Intel)."""

NO_EVENTS = "no tracepoint for machine checks and no rasdaemon: only the kernel log tells of them"


class MceReader:
    """Counts machine checks of each processor socket."""

    name = "mce"

    def __init__(
        self,
        poll_s: float,
        *,
        state: Path | None = None,
        tracefs: Path = TRACEFS,
        database: Path = DATABASE,
        ignored: Sequence[str] = (),
    ) -> None:
        """`state` is the file of the counts."""
        self.poll_s = poll_s
        self._tally = Tally(state)
        self._tracing = Tracing(tracefs, EVENTS)
        self._database = RasDatabase(database)
        self._ignored = tuple(ignored)
        self._news: set[str] = set()

    def alarm(self) -> tuple[int, int] | None:
        """Wake when an event happens."""
        descriptor = self._tracing.descriptor
        return (descriptor, select.EPOLLIN) if descriptor is not None else None

    def hears(self) -> bool:
        """Say whether the kernel's own events of machine checks are heard."""
        return "mce_record" in self._tracing.heard

    def news(self) -> frozenset[str]:
        """Return the readers whose counters have changed, by what was read last."""
        return frozenset(self._news)

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return all counts."""
        self._news.clear()
        remark, blind = "", ""
        try:
            counted = self._from_trace(now)
        except OSError as error:
            blind = f"the kernel's events cannot be heard: {error.strerror or error}"
            counted = False
        if blind or not self.hears():
            found = self._from_rasdaemon(now)
            if found is None:
                blind = f"{NO_EVENTS} ({blind})" if blind else NO_EVENTS
            else:
                counted, blind, remark = found or counted, "", "through rasdaemon"
        readings = self._tally.readings(now)
        if counted or self._tally.is_new:
            self._tally.save(now)
        kept = tuple(item for item in readings if not is_ignored(item.device, self._ignored))
        return (*kept, sight(self.name, now, blind) if blind else Reading(*_seen(self.name, now, remark)))

    def _from_trace(self, now: float) -> bool:
        counted = False
        for event in self._tracing.events():
            if event.name in WAKES:
                self._news.add(WAKES[event.name])
            elif event.name == "mce_record":
                counted = self._count(event, now) or counted
        return counted

    def _count(self, event: TraceEvent, now: float) -> bool:
        status = STATUS.search(event.text)
        if status is None:
            return False
        socket = SOCKET.search(event.text)
        vendor = VENDOR.search(event.text)
        is_intel = vendor is not None and int(vendor["vendor"]) == INTEL
        remark = f"bank {status['bank']}, status {status['status']}"
        return self._add(int(status["status"], 16), socket["socket"] if socket else "0", is_intel, remark, now)

    def _add(self, status: int, socket: str, is_intel: bool, remark: str, now: float) -> bool:
        judged = judge_status(status, is_intel=is_intel)
        if judged is None:
            return False
        signal, count = judged
        device = Device(DeviceKind.PROCESSOR, f"cpu:socket{socket}", f"socket {socket}")
        self._tally.add(signal, device, now, count, remark)
        return True

    def _from_rasdaemon(self, now: float) -> bool | None:
        """Count what rasdaemon has recorded since; None when there is no such database."""
        position = self._tally.position
        records = self._database.since(int(position.get("rasdaemon", -1)))
        if records is None:
            return None
        for record in records.rows:
            self._add(record.status, str(record.socket), record.is_intel, record.message, now)
        position["rasdaemon"] = records.last
        return bool(records.rows)


def judge_status(status: int, *, is_intel: bool) -> tuple[str, int] | None:
    """Return the signal a status register adds to, and how much; None for a record that holds no error. Pure."""
    if not status & VALID:
        return None
    if status & UNCORRECTED:
        return "mce.uncorrected", 1
    return "mce.corrected", max((status >> COUNT_SHIFT) & COUNT_MASK, 1) if is_intel else 1


def _seen(name: str, now: float, remark: str) -> tuple[str, Device, float, float, str]:
    seen = sight(name, now)
    return seen.signal, seen.device, seen.at, 0.0, remark
