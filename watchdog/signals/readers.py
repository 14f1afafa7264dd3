"""Which readers a host has, by its settings."""

from __future__ import annotations

from pathlib import Path

from watchdog.signals.disks import DisksReader
from watchdog.signals.edac import EdacReader
from watchdog.signals.hwmon import HwmonReader
from watchdog.signals.kernel_log import KernelLogReader
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.reader import Reader, Remembered
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart import SmartReader

NOTHING_REMEMBERED = Remembered()
STATE = Path("/var/lib/lifeboat")


def readers_of_host(
    settings: SignalSettings, remembered: Remembered = NOTHING_REMEMBERED, state: Path = STATE
) -> tuple[Reader, ...]:
    """Return the readers that the settings ask for.

    `remembered` comes from `ReadingStore.remembered`; `state` is where readers keep what they have counted.
    Raises `FileError` when the patterns for the kernel log are bad.
    """
    ignored = settings.ignored_devices
    readers: list[Reader] = []
    if settings.smart:
        smart = SmartReader(settings, remembered=remembered)
        readers += [smart, DisksReader(settings.disks_poll_s, smart.inventory)]
    if settings.edac:
        readers.append(EdacReader(settings.edac_poll_s, ignored=ignored))
    if settings.hwmon:
        readers.append(HwmonReader(settings.hwmon_poll_s, ignored=ignored, remembered=remembered))
    if settings.kernel_log:
        state_file = state / "kernel-log.json"
        readers.append(
            KernelLogReader(settings.kernel_log_poll_s, load_patterns(), state=state_file, ignored=ignored)
        )
    return tuple(readers)
