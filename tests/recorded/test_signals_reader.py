"""The reader of disks, with smartctl's answers recorded: sleep, silence, disks that go and come back."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migrator.command import CommandResult
from migrator.errors import CommandError
from tests.recorded.signal_data import answer, values
from watchdog.signals.disks import DisksReader
from watchdog.signals.model import Reading
from watchdog.signals.reader import KnownDisk, Remembered
from watchdog.signals.settings import ExtraDrive, SignalSettings
from watchdog.signals.smart import SmartReader
from watchdog.signals.smart_answer import Drive


class Host:
    """Disks as smartctl shows them: a name has an answer, an error, or something that must happen first."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, ...]] = []
        self.scan_error: CommandError | None = None

    def plug(self, name: str, recorded: str, **changes: object) -> str:
        """Put a disk in and return its path."""
        path = self.directory / name
        path.touch()
        self.answers[str(path)] = answer(recorded) | changes
        return str(path)

    def pull(self, name: str) -> None:
        """Take a disk out."""
        (self.directory / name).unlink()
        del self.answers[str(self.directory / name)]

    def find(self) -> Sequence[Drive]:
        """Scan."""
        if self.scan_error is not None:
            raise self.scan_error
        return [Drive(path, "sat") for path in sorted(self.answers)]

    def door(self, argv: Sequence[str], *, timeout_s: float, check: bool) -> CommandResult:
        """Answer for smartctl."""
        assert not check
        assert timeout_s > 0
        self.asked.append(tuple(argv))
        found = self.answers[argv[-1]]
        if isinstance(found, CommandError):
            raise found
        if isinstance(found, threading.Event):
            found.wait(60)
            return CommandResult(tuple(argv), 0, json.dumps(answer("ata-bridge-partial")), "")
        text = found if isinstance(found, str) else json.dumps(found)
        return CommandResult(tuple(argv), 0, text, "")

    def reader(self, remembered: Remembered | None = None, **settings: Any) -> Readers:
        """Return the readers of this host's disks."""
        smart = SmartReader(
            SignalSettings(**settings),
            sysfs=self.directory / "sys",
            door=self.door,
            find=self.find,
            remembered=remembered or Remembered(),
        )
        disks = DisksReader(30, smart.inventory, sysfs=self.directory / "sys", pause=lambda _: None)
        return Readers(smart, disks)


@dataclass(frozen=True)
class Readers:
    """The reader of SMART and the one that looks whether the disks are there, read one after the other."""

    smart: SmartReader
    disks: DisksReader

    def read(self, now: float) -> tuple[Reading, ...]:
        """Read; of several looks at one moment the last one counts."""
        readings = (*self.smart.read(now), *self.disks.read(now))
        return tuple({(item.signal, item.device.identity): item for item in readings}.values())


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host without disks."""
    return Host(tmp_path)


def of(readings: tuple[Reading, ...], path: str) -> dict[str, float | None]:
    return {signal: value for (name, signal), value in values(readings).items() if name == path}


def test_a_disk_is_asked_without_waking_it(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    host.reader().read(1.0)
    assert host.asked == [("smartctl", "--json=c", "-n", "standby,3", "-d", "sat", "-x", path)]


def test_a_healthy_disk_is_readable_there_and_fresh(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    readings = host.reader().read(1.0)
    found = of(readings, path)
    assert found["smart.health_failed"] == found["disk.missing"] == found["smart.unresponsive"] == 0.0
    assert found["smart.reading_age"] == 0.0
    assert of(readings, "reader smart") == of(readings, "reader disks") == {"reader.blind": 0.0}


def test_a_sleeping_disk_keeps_its_readings_and_tells_their_age(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    reader = host.reader()
    reader.read(1000.0)
    host.plug("sda", "ata-standby")
    readings = reader.read(4600.0)
    assert of(readings, path) == {"smart.reading_age": 3600.0, "smart.unresponsive": 0.0, "disk.missing": 0.0}
    (age,) = [item for item in readings if item.signal == "smart.reading_age"]
    assert "standby" in age.reason
    assert age.device.identity == "disk:BRG00004"


def test_a_disk_that_sleeps_too_long_is_woken(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    reader = host.reader(smart_wake_after_s=3600)
    reader.read(1000.0)
    host.plug("sda", "ata-standby")
    reader.read(4599.0)
    assert host.asked[-1][3] == "standby,3"
    host.plug("sda", "ata-bridge-partial")
    found = of(reader.read(4600.0), path)
    assert host.asked[-1][3] == "never"
    assert found["smart.reading_age"] == 0.0


def test_a_disk_that_was_never_awake_is_unreadable(host: Host) -> None:
    path = host.plug("sda", "ata-standby")
    assert of(host.reader().read(1.0), path)["smart.health_failed"] is None


def test_a_disk_that_says_who_it_is_only_later_is_not_missed_under_its_first_name(host: Host) -> None:
    host.plug("sda", "ata-standby")
    reader = host.reader()
    reader.read(1.0)
    path = host.plug("sda", "ata-bridge-partial")
    missing = [item for item in reader.read(2.0) if item.signal == "disk.missing"]
    assert [(item.device.identity, item.value) for item in missing] == [("disk:BRG00004", 0.0)]
    assert missing[0].device.name == path


def test_a_disk_that_vanishes_is_missing_and_all_it_told_unreadable(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    host.plug("sdb", "ata-hitachi-packed-187")
    reader = host.reader()
    reader.read(1.0)
    host.pull("sda")
    found = of(reader.read(2.0), path)
    assert found["disk.missing"] == 1.0
    assert found["smart.reallocated_sectors"] is None
    assert found["smart.health_failed"] is None


def test_a_disk_that_comes_back_under_another_name_is_not_missing(host: Host) -> None:
    host.plug("sda", "ata-bridge-partial")
    reader = host.reader()
    reader.read(1.0)
    host.pull("sda")
    host.plug("sdb", "ata-bridge-partial")
    missing = [item for item in reader.read(2.0) if item.signal == "disk.missing"]
    assert [item.value for item in missing] == [0.0]


def test_a_disk_whose_place_another_took_is_missing(host: Host) -> None:
    host.plug("sda", "ata-bridge-partial")
    reader = host.reader()
    reader.read(1.0)
    host.plug("sda", "ata-hitachi-packed-187")
    missing = {item.device.identity: item.value for item in reader.read(2.0) if item.signal == "disk.missing"}
    assert missing == {"disk:BRG00004": 1.0, "disk:HIT00001": 0.0}


def test_a_disk_that_vanished_before_a_restart_is_missing_after_it(host: Host) -> None:
    host.plug("sda", "ata-bridge-partial")
    host.plug("sdb", "ata-hitachi-packed-187")
    (known,) = [
        item.device
        for item in host.reader().read(1.0)
        if item.signal == "disk.missing" and item.device.name.endswith("sda")
    ]
    host.pull("sda")
    remembered = Remembered(disks=(KnownDisk(known, 1.0, frozenset({"smart.health_failed"})),))
    found = of(host.reader(remembered).read(2.0), known.name)
    assert found == {"disk.missing": 1.0, "smart.health_failed": None}


@pytest.mark.parametrize("code", ["command-missing", "command-timeout", "scan-failed"])
def test_a_scan_that_fails_makes_no_disk_missing(host: Host, code: str) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    reader = host.reader()
    reader.read(1.0)
    host.scan_error = CommandError("no scan", code=code)
    readings = reader.read(2.0)
    assert of(readings, path)["disk.missing"] == 0.0
    assert of(readings, path)["smart.health_failed"] == 0.0
    assert of(readings, "reader smart") == {"reader.blind": None}


def test_a_disk_that_opens_no_more_while_its_file_is_there_is_unreadable_and_not_missing(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    reader = host.reader()
    reader.read(1.0)
    host.plug("sda", "ata-permission-denied")
    found = of(reader.read(2.0), path)
    assert found["disk.missing"] == 0.0
    assert found["smart.health_failed"] is None
    assert found["smart.reallocated_sectors"] is None


def test_a_disk_that_answers_too_late_is_unresponsive(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    host.answers[path] = CommandError("smartctl did not finish", code="command-timeout")
    found = of(host.reader().read(1.0), path)
    assert found["smart.unresponsive"] == 1.0
    assert found["smart.health_failed"] is None


def test_a_disk_that_hangs_for_good_delays_the_others_once_and_is_not_asked_again(host: Host) -> None:
    hung, well = host.plug("sda", "ata-bridge-partial"), host.plug("sdb", "ata-hitachi-packed-187")
    release = host.answers[hung] = threading.Event()
    reader = SmartReader(
        SignalSettings(), sysfs=host.directory / "sys", door=host.door, find=host.find, patience_s=0.3
    )
    for now in (1.0, 2.0):
        readings = reader.read(now)
        assert of(readings, hung)["smart.unresponsive"] == 1.0
        assert of(readings, well)["smart.health_failed"] == 0.0
    assert [argv[-1] for argv in host.asked].count(hung) == 1
    release.set()


def test_an_answer_that_is_no_json_is_unreadable(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    host.answers[path] = "smartctl 5.0: no such option"
    found = of(host.reader().read(1.0), path)
    assert found["smart.health_failed"] is None
    assert found["smart.unresponsive"] is None


def test_two_paths_to_one_disk_are_one_disk(host: Host) -> None:
    host.plug("sda", "scsi-healthy")
    host.plug("sdb", "scsi-healthy")
    health = [item for item in host.reader().read(1.0) if item.signal == "smart.health_failed"]
    assert len(health) == 1


def test_drives_behind_a_controller_come_from_the_settings(host: Host) -> None:
    controller = host.plug("bus0", "scsi-healthy")
    host.find = list  # type: ignore[method-assign]  # the scan does not see them
    reader = host.reader(drives=(ExtraDrive(device=controller, type="megaraid,4"),))
    readings = reader.read(1.0)
    assert of(readings, f"{controller} megaraid,4")["smart.health_failed"] == 0.0
    assert host.asked[-1][4:6] == ("-d", "megaraid,4")


@pytest.mark.parametrize("pattern", ["BRG00004", "BRG*", "*/sda"])
def test_an_ignored_disk_is_neither_read_nor_missed(host: Host, pattern: str) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    reader = host.reader(ignored_devices=(pattern,))
    assert of(reader.read(1.0), path) == {}
    host.pull("sda")
    assert of(reader.read(2.0), path) == {}


def test_a_usb_disk_may_go(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    target = host.directory / "sys/devices/pci0/usb1/1-1/sda"
    target.mkdir(parents=True)
    (host.directory / "sys/class/block").mkdir(parents=True)
    (host.directory / "sys/class/block/sda").symlink_to(target)
    reader = host.reader()
    assert "disk.missing" not in of(reader.read(1.0), path)
    host.pull("sda")
    assert of(reader.read(2.0), path) == {}


@pytest.mark.parametrize(("word", "value"), [("running", 0.0), ("offline", 1.0), ("transport-offline", 1.0)])
def test_the_kernels_word_for_a_disk_is_told(host: Host, word: str, value: float) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    state = host.directory / "sys/class/block/sda/device/state"
    state.parent.mkdir(parents=True)
    state.write_text(f"{word}\n")
    assert of(host.reader().read(1.0), path)["disk.offline"] == value


def test_a_host_without_disks_is_blind(host: Host) -> None:
    assert values(host.reader().read(1.0)) == {("reader smart", "reader.blind"): None}


def test_a_disk_that_has_just_vanished_is_looked_for_twice(host: Host) -> None:
    host.plug("sda", "ata-bridge-partial")
    readers = host.reader()
    readers.read(1.0)
    host.pull("sda")
    found = [item.value for item in readers.disks.read(2.0) if item.signal == "disk.missing"]
    assert found == [1.0, 1.0]
    assert len([item for item in readers.disks.read(3.0) if item.signal == "disk.missing"]) == 1


def test_commands_that_timed_out_are_counted(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    counter = host.directory / "sys/class/block/sda/device/iotmo_cnt"
    counter.parent.mkdir(parents=True)
    counter.write_text("0x1f\n")
    assert of(host.reader().read(1.0), path)["disk.timeouts"] == 31.0


def test_a_disk_that_is_forgotten_is_not_missed_any_more(host: Host) -> None:
    path = host.plug("sda", "ata-bridge-partial")
    readers = host.reader()
    readers.read(1.0)
    host.pull("sda")
    assert of(readers.read(2.0), path)["disk.missing"] == 1.0
    readers.smart.forget("disk:BRG00004")
    assert readers.disks.read(3.0) == ()
    assert of(readers.read(4.0), path) == {}
