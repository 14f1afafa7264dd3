"""Thermal zones, and how much heat slows the processors down.

Sources: Documentation/driver-api/thermal/sysfs-api.rst; drivers/thermal/intel/therm_throt.c (thermal_throttle).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import unreadable
from watchdog.signals.sysfs import SysfsReader, load, read_number, read_text

ZONES = Path("class/thermal")
PROCESSORS = Path("devices/system/cpu")
MILLI = 1000.0
PLAUSIBLE_CELSIUS = (1.0, 125.0)
FATAL_TRIPS = ("critical", "hot")
"""At `critical` the kernel powers the host off, at `hot` the platform may."""

PLAUSIBLE_TRIP_CELSIUS = (40.0, 130.0)
GONE = "it is not there any more"
THROTTLED = ("cpu.throttle_events", "cpu.throttled_percent")


class ThermalReader(SysfsReader):
    """Reads all zones, and the throttling of each processor socket."""

    name = "thermal"

    def __init__(self, poll_s: float, sysfs: Path = Path("/sys"), ignored: Sequence[str] = ()) -> None:
        super().__init__(poll_s, sysfs, ignored)
        self._known: dict[str, tuple[Device, set[str]]] = {}
        self._throttled: dict[str, tuple[float, float]] = {}

    def read(self, now: float) -> tuple[Reading, ...]:
        """Return the readings of now; a host without zones and counters has none, and what vanishes is told."""
        readings = [*_zones(self._sysfs / ZONES, now), *self._throttling(now)]
        told = {(item.device.identity, item.signal) for item in readings}
        for item in readings:
            self._known.setdefault(item.device.identity, (item.device, set()))[1].add(item.signal)
        for identity, (device, signals) in self._known.items():
            lost = [signal for signal in sorted(signals) if (identity, signal) not in told]
            readings += unreadable(lost, device, now, GONE)
        return self._kept(readings)

    def _throttling(self, now: float) -> Iterator[Reading]:
        for socket, (events, slow_ms) in sockets(self._sysfs / PROCESSORS).items():
            device = Device(DeviceKind.PROCESSOR, f"cpu:socket{socket}", f"socket {socket}")
            yield Reading("cpu.throttle_events", device, now, float(events))
            if slow_ms is None:
                continue
            before_ms, before = self._throttled.get(socket, (0.0, 0.0))
            self._throttled[socket] = (slow_ms, now)
            span_ms = (now - before) * MILLI
            if before and span_ms > 0:
                grown = max(slow_ms - before_ms, 0.0)
                yield Reading("cpu.throttled_percent", device, now, min(100.0 * grown / span_ms, 100.0))


def sockets(root: Path) -> dict[str, tuple[int, float | None]]:
    """Return of each socket how often it was throttled, and for how many milliseconds; None where not counted.

    The package's counters show on each of its processors, a core's on each of its threads: the highest counts.
    """
    found: dict[str, tuple[int, float | None]] = {}
    for place in root.glob("cpu[0-9]*/thermal_throttle"):
        socket = read_text(place.parent / "topology/physical_package_id") or "0"
        counts = [read_number(place / f"{part}_throttle_count") or 0 for part in ("core", "package")]
        times = [read_number(place / f"{part}_throttle_total_time_ms") for part in ("core", "package")]
        known = [float(time) for time in times if time is not None]
        events, slow = found.get(socket, (0, None))
        slow_ms = max([*known, *([slow] if slow is not None else [])], default=None)
        found[socket] = (max(events, *counts), slow_ms)
    return found


def _zones(root: Path, now: float) -> Iterator[Reading]:
    seen: Counter[str] = Counter()
    for zone in sorted(root.glob("thermal_zone[0-9]*"), key=lambda path: (len(path.name), path.name)):
        kind = read_text(zone / "type") or "nameless"
        seen[kind] += 1
        name = kind if seen[kind] == 1 else f"{kind} #{seen[kind]}"
        device = Device(DeviceKind.SENSOR, f"thermal:{name}", f"zone {name}", {"zone": kind})
        yield from _zone(zone, device, now)


def _zone(zone: Path, device: Device, now: float) -> Iterator[Reading]:
    try:
        celsius = int(load(zone / "temp")) / MILLI
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a number"
        yield Reading("thermal.temperature", device, now, None, f"temp: {reason}")
        return
    if not PLAUSIBLE_CELSIUS[0] <= celsius <= PLAUSIBLE_CELSIUS[1]:
        yield Reading("thermal.temperature", device, now, None, "a temperature that cannot be")
        return
    yield Reading("thermal.temperature", device, now, celsius)
    trips = _fatal_trips(zone)
    if trips:
        lowest = min(trips)
        over = celsius >= lowest
        yield Reading("thermal.critical_margin", device, now, lowest - celsius)
        yield Reading("thermal.critical", device, now, float(over), f"its trip point is {lowest:g}" if over else "")


def _fatal_trips(zone: Path) -> list[float]:
    found = []
    for kind in zone.glob("trip_point_*_type"):
        if read_text(kind) in FATAL_TRIPS:
            raw = read_number(zone / f"{kind.name.removesuffix('type')}temp")
            if raw is not None and PLAUSIBLE_TRIP_CELSIUS[0] <= raw / MILLI <= PLAUSIBLE_TRIP_CELSIUS[1]:
                found.append(raw / MILLI)
    return found
