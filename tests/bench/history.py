"""`./run bench history`: how large the readings of a big host get, and how long judging them takes.

A store takes what 24 disks, 64 DIMMs and 200 sensors tell at the default polls, every reading of a sensor different
from the one before, for some days. What a day adds in the end, thinned out, is what each further day adds.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from watchdog.daemon.readings import Readings
from watchdog.policy.evaluate import evaluate
from watchdog.policy.load import load_files, timing_of
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.settings import SignalSettings

ROOT = Path(__file__).parents[2]
DISKS, DIMMS, SENSORS, DAY_S, KEEP_DAYS = 24, 64, 200, 86400, 90
OF_A_DISK = (
    "smart.health_failed", "smart.wear_failing", "smart.prefail_attribute_failing", "smart.reallocated_sectors",
    "smart.pending_sectors", "smart.offline_uncorrectable", "smart.reported_uncorrectable", "smart.crc_errors",
    "smart.selftest_failed", "smart.spin_retries", "smart.unresponsive", "smart.reading_age", "disk.missing",
)  # fmt: skip
POLLS_S = {"disks": 300, "memory": 60, "sensors": 30}


def main(argv: list[str]) -> int:
    """Run the bench; return its exit status."""
    parser = argparse.ArgumentParser(prog="./run bench history", description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=4, help="days of readings (default: 4)")
    days = max(parser.parse_args(argv).days, 3)
    with tempfile.TemporaryDirectory() as place:
        result = fill(Path(place) / "readings.db", days)
    print(json.dumps(result, indent=2))
    return 0


def fill(path: Path, days: int) -> dict[str, float]:
    """Fill a store, and return what it came to."""
    policy = load_files(sorted((ROOT / "policies").glob("*.toml")))
    held = Readings(path, KEEP_DAYS, 1000, 0.0)
    held.look_back(policy.look_back(timing_of(SignalSettings())), 0.0)
    sizes, began, taken = [], time.perf_counter(), 0
    for day in range(days):
        for readings in of_day(day):
            held.take(readings)
            taken += len(readings)
        sizes.append(held.used_bytes())
    filled_s = time.perf_counter() - began
    began = time.perf_counter()
    evaluate(policy, held.history(), days * DAY_S)
    judged_s = time.perf_counter() - began
    runs = sum(len(series.runs) for series in held.history().series.values())
    held.close()
    began = time.perf_counter()
    again = Readings(path, KEEP_DAYS, 1000, days * DAY_S)
    again.look_back(policy.look_back(timing_of(SignalSettings())), days * DAY_S)
    opened_s = time.perf_counter() - began
    again.close()
    a_day = sizes[-1] - sizes[-2]
    return {
        "readings": taken,
        "microseconds_a_reading": round(filled_s / taken * 1e6, 1),
        "runs_in_memory": runs,
        "judged_ms": round(judged_s * 1000, 1),
        "opened_s": round(opened_s, 2),
        "mb_of_first_day": round(sizes[0] / 1e6, 1),
        "mb_of_a_further_day": round(a_day / 1e6, 2),
        "mb_after_90_days": round((sizes[-1] + (KEEP_DAYS - days) * a_day) / 1e6, 1),
    }


def of_day(day: int) -> Iterator[list[Reading]]:
    """Return what readers tell in a day, poll by poll."""
    disks = [Device(DeviceKind.DISK, f"disk:{n}", f"/dev/sd{n}", {"type": "hdd"}) for n in range(DISKS)]
    dimms = [Device(DeviceKind.DIMM, f"edac:{n}", f"dimm{n}") for n in range(DIMMS)]
    sensors = [Device(DeviceKind.SENSOR, f"hwmon:{n}", f"sensor {n}") for n in range(SENSORS)]
    chance = random.Random(day)  # noqa: S311  no secret
    for second in range(0, DAY_S, 30):
        at = float(day * DAY_S + second)
        if second % POLLS_S["disks"] == 0:
            yield [Reading(signal, disk, at, 0.0) for disk in disks for signal in OF_A_DISK]
            yield [Reading("smart.temperature", disk, at, float(chance.randint(30, 45))) for disk in disks]
        if second % POLLS_S["memory"] == 0:
            yield [
                Reading(signal, dimm, at, 0.0) for dimm in dimms for signal in ("edac.ce_count", "edac.ue_count")
            ]
        yield [Reading("hwmon.temperature", sensor, at, chance.uniform(30, 70)) for sensor in sensors]
        yield [Reading("hwmon.temperature_margin", sensor, at, chance.uniform(20, 60)) for sensor in sensors]
        yield [Reading("hwmon.temperature_critical", sensor, at, 0.0) for sensor in sensors]
