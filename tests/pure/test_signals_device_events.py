"""Which events of devices are news to which readers, and how often they are woken."""

from __future__ import annotations

import pytest

from watchdog.signals.device_events import QUIET_S, SETTLE_S, Pace, concerned

DISK = {"DEVTYPE": "disk", "DEVPATH": "/devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda"}
NVME = {"DEVPATH": "/devices/pci0000:00/0000:01:00.0/nvme/nvme0"}
DISKS = {"disks", "smart"}


@pytest.mark.parametrize(
    ("subsystem", "action", "properties", "names"),
    [
        ("block", "add", DISK, DISKS),
        ("block", "remove", DISK, DISKS),
        ("nvme", "remove", NVME, DISKS),
        ("nvme", "change", NVME | {"NVME_AEN": "0x010001"}, DISKS),
        ("block", "change", DISK | {"RESIZE": "1"}, DISKS),
        ("block", "change", DISK | {"DISK_MEDIA_CHANGE": "1"}, DISKS),
        ("block", "change", {"DEVTYPE": "disk", "DEVPATH": "/devices/virtual/block/md0"}, {"arrays"}),
        ("power_supply", "change", {}, {"power"}),
        ("pci", "remove", {}, {"pcie"}),
        ("block", "change", DISK, set()),  # udev's answer to smartctl itself: heeding it would never end
        ("block", "add", DISK | {"DEVTYPE": "partition"}, set()),
        ("block", "add", {"DEVTYPE": "disk", "DEVPATH": "/devices/virtual/block/loop3"}, set()),
        ("nvme", "bind", NVME, set()),
        ("pci", "bind", {}, set()),
    ],
)
def test_an_event_is_news_to(subsystem: str, action: str, properties: dict[str, str], names: set[str]) -> None:
    assert concerned(subsystem, action, properties) == names


def test_a_first_event_wakes_at_once_and_again_when_settled() -> None:
    pace = Pace()
    assert pace.hear({"smart"}, 100.0) == {"smart"}
    assert pace.wait_s(100.0) <= SETTLE_S
    assert pace.due(100.0 + SETTLE_S / 2) == frozenset()
    assert pace.due(100.0 + SETTLE_S) == {"smart"}
    assert pace.due(100.0 + SETTLE_S) == frozenset()


def test_a_flood_of_events_wakes_seldom_and_the_last_one_is_not_forgotten() -> None:
    pace = Pace()
    wakings = 0
    for tick in range(2000):  # 20 seconds, a hundred events a second
        now = 100.0 + tick / 100
        wakings += len(pace.hear({"smart"}, now)) + len(pace.due(now))
    assert wakings <= 6
    assert pace.due(100.0 + 20 + QUIET_S) == {"smart"}


def test_readers_have_a_pace_each() -> None:
    pace = Pace()
    pace.hear({"smart"}, 100.0)
    assert pace.hear({"smart", "arrays"}, 101.0) == {"arrays"}
