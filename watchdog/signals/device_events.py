"""Follow the kernel's events about devices (pyudev), to see at once what polling would see minutes later.

A loop of our own instead of pyudev's MonitorObserver: that one dies without a word when events are lost
(ENOBUFS, pyudev issue 194).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import pyudev

from migrator.vital import vital_thread

UDEV_CONTROL = Path("/run/udev/control")
BUFFER_BYTES = 16 * 1024 * 1024  # a shelf of disks that goes makes hundreds of events within a second
WAIT_S = 1.0
SETTLE_S = 2.0  # a device makes several events when it comes or goes: a second look finds it settled
QUIET_S = 10.0  # between two wakings of a reader, whatever happens
RETRY_S, LONGEST_RETRY_S = 1.0, 300.0

SUBSYSTEMS = ("block", "nvme", "power_supply", "pci", "hwmon")
COME_AND_GO = ("add", "remove", "online", "offline")
TELLING = ("NVME_AEN", "NVME_EVENT", "RESIZE", "DISK_MEDIA_CHANGE")
"""Properties that make a `change` worth a look: NVMe events, a capacity that changed (a dead NVMe namespace
falls to 0). Others are nobody's business, and some are our own: udev answers with a `change` to every close of
a disk that was opened for writing, as smartctl does."""

OF_DISKS = frozenset({"disks", "smart"})
OF_OTHERS = {"pci": frozenset({"pcie"}), "hwmon": frozenset({"hwmon"})}
WOKEN = OF_DISKS | {"arrays", "power", "pcie", "hwmon"}
NOBODY: frozenset[str] = frozenset()

_log = logging.getLogger(__name__)


def concerned(subsystem: str, action: str, properties: Mapping[str, str]) -> frozenset[str]:
    """Return the readers that an event is news to. Pure."""
    if subsystem == "power_supply":
        return frozenset({"power"})
    if subsystem in OF_OTHERS:
        return OF_OTHERS[subsystem] if action in COME_AND_GO else NOBODY
    path = properties.get("DEVPATH", "")
    if "/virtual/block/md" in path:
        return frozenset({"arrays"})
    if properties.get("DEVTYPE") == "partition" or "/virtual/" in path:
        return NOBODY  # loop, zram, device mapper and the like have no health
    telling = action == "change" and any(name in properties for name in TELLING)
    return OF_DISKS if action in COME_AND_GO or telling else NOBODY


class Pace:
    """When readers are woken: at once by a first event, again when all has settled, and then not for a while."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._quiet_until: dict[str, float] = {}

    def hear(self, names: Collection[str], now: float) -> frozenset[str]:
        """Take an event for these readers, and return those to wake at once. Pure but for its memory."""
        at_once = {name for name in names if now >= self._quiet_until.get(name, 0.0)}
        for name in names:
            if name in at_once:
                self._quiet_until[name] = now + QUIET_S
            self._due.setdefault(name, now + SETTLE_S if name in at_once else self._quiet_until[name])
        return frozenset(at_once)

    def due(self, now: float) -> frozenset[str]:
        """Return the readers to wake by now, and forget them."""
        names = frozenset(name for name, at in self._due.items() if at <= now)
        for name in names:
            del self._due[name]
        return names

    def wait_s(self, now: float) -> float:
        """Return how long nothing is due, at most `WAIT_S`."""
        return max(0.0, min([WAIT_S, *(at - now for at in self._due.values())]))


class DeviceEvents:
    """Calls `wake` with a reader's name when its devices come, go or change; a thread from `start` to `stop`."""

    def __init__(self, wake: Callable[[str], None], readers: Collection[str]) -> None:
        """`readers` are those there are; others are not woken."""
        self._wake = wake
        self._readers = frozenset(readers)
        self._pace = Pace()
        self._stopping = threading.Event()
        self._thread = vital_thread("device events", self._run)

    def start(self) -> None:
        """Begin to listen, when there is a reader that any event is news to."""
        if self._readers & WOKEN:
            self._thread.start()

    def stop(self) -> None:
        """Stop listening, and wait until nothing is called any more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(2 * WAIT_S)

    def _run(self) -> None:
        """Listen until stopped. After lost events everything is looked at anew; polling goes on in any case."""
        pause_s = RETRY_S
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._follow()
            except (OSError, ImportError) as error:
                _log.warning("device events are lost, trying again in %g s: %s", pause_s, error)
                self._wake_all(self._readers & OF_DISKS)
            if time.monotonic() - began > LONGEST_RETRY_S:
                pause_s = RETRY_S
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)

    def _follow(self) -> None:
        """Listen on one socket. Raises OSError when events were lost, ImportError without libudev."""
        source = "udev" if UDEV_CONTROL.exists() else "kernel"  # without udevd nobody sends on the other one
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source=source)
        for subsystem in SUBSYSTEMS:
            monitor.filter_by(subsystem)
        monitor.set_receive_buffer_size(BUFFER_BYTES)
        monitor.start()
        while not self._stopping.is_set():
            event = monitor.poll(timeout=self._pace.wait_s(time.monotonic()))
            if event is not None:
                names = concerned(event.subsystem or "", event.action or "", dict(event.properties))
                at_once = self._pace.hear(names & self._readers, time.monotonic())
                if at_once:
                    _log.info("%s: %s", event.sys_name, event.action)
                    self._wake_all(at_once)
            self._wake_all(self._pace.due(time.monotonic()))

    def _wake_all(self, names: Collection[str]) -> None:
        for name in sorted(names):
            self._wake(name)
