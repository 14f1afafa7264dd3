"""Which of the kernel's events are worth a look at the disks."""

from __future__ import annotations

import pytest

from watchdog.signals.disk_events import concerns_disks

DISK = {"DEVTYPE": "disk", "DEVPATH": "/devices/pci0000:00/ata1/host0/target0:0:0/0:0:0:0/block/sda"}
NVME = {"DEVPATH": "/devices/pci0000:00/0000:01:00.0/nvme/nvme0"}


@pytest.mark.parametrize(
    ("action", "properties"),
    [
        ("add", DISK),
        ("remove", DISK),
        ("remove", NVME),
        ("change", NVME | {"NVME_AEN": "0x010001"}),
        ("change", DISK | {"RESIZE": "1"}),
        ("change", DISK | {"DISK_MEDIA_CHANGE": "1"}),
    ],
)
def test_a_disk_that_comes_goes_or_changes_is(action: str, properties: dict[str, str]) -> None:
    assert concerns_disks(action, properties)


@pytest.mark.parametrize(
    ("action", "properties"),
    [
        ("change", DISK),  # udev's answer to smartctl itself: heeding it would never end
        ("add", DISK | {"DEVTYPE": "partition"}),
        ("add", {"DEVTYPE": "disk", "DEVPATH": "/devices/virtual/block/loop3"}),
        ("bind", NVME),
    ],
)
def test_others_are_not(action: str, properties: dict[str, str]) -> None:
    assert not concerns_disks(action, properties)
