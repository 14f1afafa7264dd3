"""Polls the readers (APScheduler) and wakes the disk reader when a disk comes or goes (pyudev)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyudev
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from watchdog.signals.edac import EdacReader
from watchdog.signals.hwmon import HwmonReader
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.reader import Reader
from watchdog.signals.settings import SignalSettings
from watchdog.signals.smart import SmartReader

MISSED = EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES | EVENT_JOB_ERROR
JITTER_SHARE = 0.05
GRACE_S = 300  # APScheduler's default of one second drops late jobs without a word
UDEV_CONTROL = Path("/run/udev/control")
UDEV_WAIT_S = 1.0
SETTLE_S = 1.0  # a disk makes several events when it comes or goes

Deliver = Callable[[Sequence[Reading]], None]

_log = logging.getLogger(__name__)


class SignalMonitor:
    """Runs all readers; each in an executor of its own, so that one that hangs delays no other."""

    def __init__(self, readers: Sequence[Reader], deliver: Deliver, *, woken: str = "smart") -> None:
        """`woken` names the reader that disk events wake."""
        self._readers = {reader.name: reader for reader in readers}
        self._deliver = deliver
        self._woken = woken
        self._stopping = threading.Event()
        self._scheduler = BackgroundScheduler(
            executors={name: ThreadPoolExecutor(1) for name in self._readers},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": GRACE_S},
            timezone=UTC,
        )
        self._scheduler.add_listener(self._missed, MISSED)

    def start(self) -> None:
        """Begin to poll, every reader at once for the first time."""
        for reader in self._readers.values():
            self._scheduler.add_job(
                self._read,
                "interval",
                args=[reader.name],
                seconds=reader.poll_s,
                jitter=int(reader.poll_s * JITTER_SHARE) or None,
                id=reader.name,
                executor=reader.name,
                next_run_time=datetime.now(UTC),
            )
        self._scheduler.start()
        threading.Thread(target=self._watch_disks, name="udev", daemon=True).start()

    def stop(self) -> None:
        """Stop polling; a reader at work is not waited for."""
        self._stopping.set()
        self._scheduler.shutdown(wait=False)

    def poll_now(self, name: str) -> None:
        """Let one reader read at once instead of at its next turn."""
        if self._scheduler.get_job(name) is not None:
            self._scheduler.modify_job(name, next_run_time=datetime.now(UTC))

    def _read(self, name: str) -> None:
        self._deliver(self._readers[name].read(time.time()))

    def _missed(self, event: JobEvent) -> None:
        """A reader that failed or could not start is blindness, and is told as such."""
        exception = getattr(event, "exception", None)
        reason = f"the reader failed: {exception!r}" if exception else "the reader is still busy"
        _log.warning("%s: %s", event.job_id, reason)
        device = Device(DeviceKind.HOST, f"reader:{event.job_id}", f"reader {event.job_id}")
        self._deliver([Reading(f"reader.{event.job_id}", device, time.time(), None, reason)])

    def _watch_disks(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow_events()
            except OSError as error:  # ENOBUFS: events were lost, so look at everything anew
                _log.warning("disk events were lost: %s", error)
                self.poll_now(self._woken)
                self._stopping.wait(UDEV_WAIT_S)

    def _follow_events(self) -> None:
        source = "udev" if UDEV_CONTROL.exists() else "kernel"  # without udevd nobody sends on the other one
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=source)
        for subsystem in ("block", "nvme"):
            monitor.filter_by(subsystem)
        monitor.start()
        while not self._stopping.is_set():
            event = monitor.poll(timeout=UDEV_WAIT_S)
            if event is None or event.properties.get("DEVTYPE") == "partition":
                continue
            _log.info("%s %s", event.sys_name, event.action)
            self._stopping.wait(SETTLE_S)
            self.poll_now(self._woken)


def readers_of_host(settings: SignalSettings) -> tuple[Reader, ...]:
    """Return the readers that the settings ask for."""
    readers: list[Reader] = []
    if settings.smart:
        readers.append(SmartReader(settings))
    if settings.edac:
        readers.append(EdacReader(settings.edac_poll_s))
    if settings.hwmon:
        readers.append(HwmonReader(settings.hwmon_poll_s))
    return tuple(readers)
