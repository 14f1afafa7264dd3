"""The board's own management controller (BMC): its sensors, its power supplies, its event log, through ipmitool.

One question at a time, for many a BMC hangs when it is asked two; when it does not answer it is left alone for
longer and longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from migrator.command import CommandResult, run
from migrator.errors import CommandError
from watchdog.signals.catalog import CATALOG
from watchdog.signals.ipmi_text import (
    ABSENT,
    IN_ORDER,
    LogEntry,
    Sensor,
    last_number,
    log_entries,
    log_state,
    sensors,
    supplies,
)
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import NOTHING_REMEMBERED, THIS_HOST, Remembered, is_ignored, sight, unreadable
from watchdog.signals.tally import Tally

DEVICES = ("ipmi0", "ipmi/0", "ipmidev/0")
TIMEOUT_S = 60.0  # a walk over all sensors takes up to 30 seconds
LONGEST_PAUSE_S = 3600.0
GONE = "the BMC's device is gone"
NOT_TOLD = "the BMC does not tell it any more"

Door = Callable[..., CommandResult]


class IpmiReader:
    """Asks the BMC."""

    name = "ipmi"

    def __init__(
        self,
        poll_s: float,
        *,
        state: Path | None = None,
        devices: Path = Path("/dev"),
        door: Door = run,
        ignored: Sequence[str] = (),
        remembered: Remembered = NOTHING_REMEMBERED,
    ) -> None:
        """`state` is the file of what the event log has told so far."""
        self.poll_s = poll_s
        self._devices, self._door = devices, door
        self._ignored = tuple(ignored)
        self._tally = Tally(state)
        self._in_order = set(remembered.trusted)
        self._known: dict[tuple[str, str], Device] = {}
        self._pause_s, self._paused_until = 0.0, 0.0
        self._blind = ""
        self._was_there = False

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return what the BMC tells; a host without one has no readings, one that lost it is blind."""
        if any((self._devices / name).exists() for name in DEVICES):
            self._was_there = True
        elif not self._was_there:
            return ()
        else:
            return self._lost(now, GONE)
        if now < self._paused_until:
            return self._lost(now, self._blind)
        try:
            readings = [*self._sensors(now), *self._supplies(now), *self._log(now)]
        except (CommandError, ValueError) as error:
            self._blind = str(error)
            self._pause_s = min(max(2 * self._pause_s, self.poll_s), LONGEST_PAUSE_S)
            self._paused_until = now + self._pause_s
            return self._lost(now, self._blind)
        self._pause_s = 0.0
        told = {(item.signal, item.device.identity) for item in readings}
        self._known |= {(item.signal, item.device.identity): item.device for item in readings}
        for (signal, identity), device in self._known.items():
            if (signal, identity) not in told:
                readings.append(Reading(signal, device, now, None, NOT_TOLD))
        kept = tuple(item for item in readings if not is_ignored(item.device, self._ignored))
        return (*kept, sight(self.name, now))

    def _lost(self, now: float, reason: str) -> tuple[Reading, ...]:
        lost = [
            item
            for (signal, _), device in self._known.items()
            for item in unreadable((signal,), device, now, reason)
        ]
        return (*lost, sight(self.name, now, reason))

    def _say(self, *words: str) -> str:
        return self._door(["ipmitool", *words], timeout_s=TIMEOUT_S).output

    def _sensors(self, now: float) -> Iterator[Reading]:
        for sensor in sensors(self._say("sensor")):
            device = Device(DeviceKind.SENSOR, f"ipmi:{sensor.name}", f"BMC {sensor.name}", {"sensor": sensor.name})
            yield from self._sensor(sensor, device, now)

    def _sensor(self, sensor: Sensor, device: Device, now: float) -> Iterator[Reading]:
        """Tell one sensor; only one that was in order can pass a limit, for empty headers read `nr` for ever."""
        was_in_order = device.identity in self._in_order
        if sensor.status in ABSENT and not was_in_order:
            return
        yield Reading(sensor.signal, device, now, sensor.value, "" if sensor.value is not None else "not readable")
        if sensor.status in IN_ORDER:
            self._in_order.add(device.identity)
        elif not was_in_order:
            return
        remark = f"status {sensor.status}" if sensor.status != "ok" else ""
        known = sensor.status not in ABSENT
        yield Reading(
            "ipmi.critical", device, now, float(sensor.is_critical) if known else None, remark or "no status"
        )
        yield Reading(
            "ipmi.warning", device, now, float(sensor.is_warning) if known else None, remark or "no status"
        )

    def _supplies(self, now: float) -> Iterator[Reading]:
        said = "\n".join(self._say("sdr", "type", kind) for kind in ("0x08", "0x09"))
        for supply in supplies(said):
            device = Device(DeviceKind.POWER_SUPPLY, f"power:ipmi:{supply.name}", f"BMC {supply.name}")
            trusted = device.identity in self._in_order
            if not (supply.failed or supply.unplugged):
                self._in_order.add(device.identity)
            elif not trusted and (supply.is_redundancy or supply.unplugged):
                continue  # a host with one supply was never redundant, and an empty socket never delivered
            signal = "power.redundancy_lost" if supply.is_redundancy else "power.supply_failed"
            yield Reading(signal, device, now, float(supply.failed or supply.unplugged), supply.said)

    def _log(self, now: float) -> Iterator[Reading]:
        """Count what is new in the event log. It is only read when it has grown or was cleared."""
        state = log_state(self._say("sel", "info"))
        yield Reading("sel.full", THIS_HOST, now, float(state.is_full))
        position = self._tally.position
        if state.entries != position.get("entries"):
            text = self._say("sel", "elist") if state.entries else ""
            last = last_number(text)
            known = position.get("last", 0)
            if state.entries < position.get("entries", 0) or last < known:
                known = 0  # it was cleared: the numbers begin anew
            for entry in log_entries(text):
                if entry.number > known:
                    self._tally.add(entry.signal, _about(entry), now, remark=entry.said)
            position.update(entries=state.entries, last=last)
            yield from self._tally.readings(now)
            self._tally.save(now)
        else:
            yield from self._tally.readings(now)


def _about(entry: LogEntry) -> Device:
    kind = CATALOG[entry.signal].device_kind
    return Device(kind, f"sel:{entry.sensor}", f"BMC log: {entry.sensor}")
