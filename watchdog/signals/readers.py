"""Which readers a host has, by its settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from watchdog.signals.arrays import ArraysReader
from watchdog.signals.disks import DisksReader
from watchdog.signals.edac import EdacReader
from watchdog.signals.filesystems import FileSystemReader
from watchdog.signals.hwmon import HwmonReader
from watchdog.signals.ipmi import IpmiReader
from watchdog.signals.kernel_log import KernelLogReader
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.mce import MceReader
from watchdog.signals.missed import Missed
from watchdog.signals.pcie import PcieReader
from watchdog.signals.power import PowerReader, UpsReader
from watchdog.signals.reader import NOTHING_REMEMBERED, Reader, Remembered
from watchdog.signals.script import ScriptReader
from watchdog.signals.self_tests import DAY_S, SelfTests
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart import SmartReader
from watchdog.signals.thermal import ThermalReader
from watchdog.signals.volumes import lvm, zfs

STATE = Path("/var/lib/lifeboat")


def readers_of_host(
    settings: SignalSettings, remembered: Remembered = NOTHING_REMEMBERED, state: Path = STATE
) -> tuple[Reader, ...]:
    """Return the readers that the settings ask for.

    `remembered` comes from `ReadingStore.remembered`; `state` is where readers keep what they have counted.
    Raises `FileError` when the patterns for the kernel log are bad.
    """
    wanted = (
        (settings.smart, _of_disks),
        (settings.edac, _of_memory),
        (settings.mce, _of_processors),
        (settings.hwmon, _of_sensors),
        (settings.thermal, _of_zones),
        (settings.pcie, _of_buses),
        (settings.power, _of_power),
        (settings.ipmi, _of_board),
        (settings.arrays, _of_arrays),
        (settings.mounts, _of_mounts),
        (settings.kernel_log, _of_kernel),
    )
    mce = MceReader(settings.mce_poll_s, state=state / "machine-checks.json", ignored=settings.ignored_devices)
    circumstances = _Circumstances(settings, remembered, state, mce)
    readers = [reader for is_wanted, make in wanted if is_wanted for reader in make(circumstances)]
    return (*readers, *(ScriptReader(script) for script in settings.script))


@dataclass(frozen=True)
class _Circumstances:
    settings: SignalSettings
    remembered: Remembered
    state: Path
    mce: MceReader

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.settings.ignored_devices

    def missed(self, reader: Reader) -> Reader:
        return Missed(reader, self.remembered, self.ignored)


def _of_disks(given: _Circumstances) -> Iterator[Reader]:
    smart = SmartReader(given.settings, remembered=given.remembered)
    yield smart
    yield DisksReader(given.settings.disks_poll_s, smart.inventory)
    if given.settings.self_tests:
        yield SelfTests(
            smart.awake,
            given.state / "self-tests.json",
            short_s=given.settings.short_test_days * DAY_S,
            long_s=given.settings.long_test_days * DAY_S,
        )


def _of_memory(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(EdacReader(given.settings.edac_poll_s, ignored=given.ignored))


def _of_processors(given: _Circumstances) -> Iterator[Reader]:
    yield given.mce


def _of_sensors(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(HwmonReader(given.settings.hwmon_poll_s, ignored=given.ignored, remembered=given.remembered))


def _of_zones(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(ThermalReader(given.settings.thermal_poll_s, ignored=given.ignored))


def _of_buses(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(PcieReader(given.settings.pcie_poll_s, ignored=given.ignored, remembered=given.remembered))


def _of_power(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(PowerReader(given.settings.power_poll_s, ignored=given.ignored, remembered=given.remembered))
    yield given.missed(UpsReader(given.settings.power_poll_s, ignored=given.ignored))


def _of_board(given: _Circumstances) -> Iterator[Reader]:
    reader = IpmiReader(
        given.settings.ipmi_poll_s,
        state=given.state / "bmc-log.json",
        ignored=given.ignored,
        remembered=given.remembered,
    )
    yield given.missed(reader)


def _of_arrays(given: _Circumstances) -> Iterator[Reader]:
    yield given.missed(ArraysReader(given.settings.arrays_poll_s, ignored=given.ignored))
    yield given.missed(lvm(given.settings.volumes_poll_s, ignored=given.ignored))
    yield given.missed(zfs(given.settings.volumes_poll_s, ignored=given.ignored))


def _of_mounts(given: _Circumstances) -> Iterator[Reader]:
    yield FileSystemReader(given.settings.mounts_poll_s, ignored=given.ignored)


def _of_kernel(given: _Circumstances) -> Iterator[Reader]:
    """Follow the kernel log, but for what other readers count better."""
    file = given.state / "kernel-log.json"

    def left_out() -> frozenset[str]:
        throttling = {"cpu.throttle_events"} if given.settings.thermal else set()
        return frozenset(throttling | ({"mce.corrected"} if given.mce.hears() else set()))

    yield KernelLogReader(
        given.settings.kernel_log_poll_s,
        load_patterns(),
        state=file,
        left_out=left_out,
        ignored=given.ignored,
    )
