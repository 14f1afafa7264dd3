"""Follow the kernel's events about disks (pyudev), to see at once what polling would see minutes later.

A loop of our own instead of pyudev's MonitorObserver: that one dies without a word when events are lost
(ENOBUFS, pyudev issue 194).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pyudev

UDEV_CONTROL = Path("/run/udev/control")
BUFFER_BYTES = 16 * 1024 * 1024  # a shelf of disks that goes makes hundreds of events within a second
WAIT_S = 1.0
SETTLE_S = 1.0  # a disk makes several events when it comes or goes
QUIET_S = 10.0  # between two wakings, whatever happens
RETRY_S, LONGEST_RETRY_S = 1.0, 300.0

COME_AND_GO = ("add", "remove", "online", "offline")
TELLING = ("NVME_AEN", "NVME_EVENT", "RESIZE", "DISK_MEDIA_CHANGE")
"""Properties that make a `change` worth a look: NVMe events, a capacity that changed (a dead NVMe namespace
falls to 0). Others are nobody's business, and some are our own: udev answers with a `change` to every close of
a disk that was opened for writing, as smartctl does."""

_log = logging.getLogger(__name__)


def concerns_disks(action: str, properties: Mapping[str, str]) -> bool:
    """Say whether an event is about a disk that came, went or changed. Pure."""
    if properties.get("DEVTYPE") == "partition" or "/virtual/" in properties.get("DEVPATH", ""):
        return False  # loop, zram, device mapper and the like have no health
    if action in COME_AND_GO:
        return True
    return action == "change" and any(name in properties for name in TELLING)


class DiskEvents:
    """Calls `wake` when disks come, go or change; runs in a thread of its own between `start` and `stop`."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disk events", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening, and wait until nothing is called any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(WAIT_S + SETTLE_S + QUIET_S)

    def _run(self) -> None:
        """Listen until stopped. After lost events everything is looked at anew; polling goes on in any case."""
        pause_s = RETRY_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except (OSError, ImportError) as error:
                _log.warning("disk events are lost, trying again in %g s: %s", pause_s, error)
                self._wake()
            if time.monotonic() - began > LONGEST_RETRY_S:
                pause_s = RETRY_S
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    def _follow(self) -> None:
        """Listen on one socket. Raises OSError when events were lost, ImportError without libudev."""
        source = "udev" if UDEV_CONTROL.exists() else "kernel"  # without udevd nobody sends on the other one
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=source)
        for subsystem in ("block", "nvme"):
            monitor.filter_by(subsystem)
        monitor.set_receive_buffer_size(BUFFER_BYTES)
        monitor.start()
        while not self._stopping.is_set():
            event = monitor.poll(timeout=WAIT_S)
            if event is not None and concerns_disks(event.action or "", dict(event.properties)):
                _log.info("%s: %s", event.sys_name, event.action)
                self._stopping.wait(SETTLE_S)
                self._wake()
                self._stopping.wait(QUIET_S)
