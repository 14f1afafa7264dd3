"""The kernel log: records, patterns, counts that survive, floods, and logs that cannot be read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recorded.signal_data import DATA, reason, values
from watchdog.signals.kernel_log import KernelLogReader, read_log
from watchdog.signals.kernel_patterns import LOCAL, load_patterns
from watchdog.signals.kmsg import Kmsg, parse_record
from watchdog.signals.model import Reading
from watchdog.toml_files import FileError

PATTERNS = load_patterns(local=Path("/nonexistent"))
MEDIUM = "critical medium error, dev sda, sector {} op 0x0:(READ) flags 0x80700 phys_seg 1 prio class 2"
HOST = "this host"


class Log:
    """A log of records, as /dev/kmsg gives them: one with each read, none without blocking."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.kernel, self._theirs = ours, theirs
        self.sequence = 0

    def say(self, text: str, facility: int = 0, properties: str = "") -> None:
        """Write one record."""
        self.kernel.send(f"{facility * 8 + 3},{self.sequence},1000000,-;{text}\n{properties}".encode())
        self.sequence += 1

    def open(self) -> Kmsg:
        """Open it."""
        return Kmsg(os.dup(self._theirs.fileno()))

    def close(self) -> None:
        self.kernel.close()
        self._theirs.close()


@pytest.fixture
def log() -> Iterator[Log]:
    """An empty log."""
    made = Log()
    yield made
    made.close()


def reader(log: Log, tmp_path: Path) -> KernelLogReader:
    return KernelLogReader(60, PATTERNS, state=tmp_path / "counts.json", open_log=log.open, sysfs=tmp_path / "sys")


def counts(readings: tuple[Reading, ...]) -> dict[tuple[str, str], float | None]:
    return {key: value for key, value in values(readings).items() if key[1] != "reader.blind"}


def test_a_saved_log_tells_what_it_holds() -> None:
    found = counts(read_log((DATA / "kernel-log.txt").read_text(), PATTERNS, 10.0))
    assert found == {
        ("ata3", "kernel.link_errors"): 1,
        ("/dev/sda", "kernel.medium_errors"): 2,
        ("sdb1", "kernel.filesystem_errors"): 1,
        ("sdb1", "kernel.filesystem_shutdowns"): 1,
        (HOST, "kernel.hung_tasks"): 1,
        (HOST, "firmware.corrected_errors"): 1,
    }


def test_the_first_event_of_a_kind_is_growth(log: Log, tmp_path: Path) -> None:
    reading = reader(log, tmp_path)
    reading.read(1.0)
    log.say(MEDIUM.format(7))
    found = [(item.at, item.value) for item in reading.read(2.0) if item.signal == "kernel.medium_errors"]
    assert [value for _, value in found] == [0.0, 1.0]
    assert found[0][0] < found[1][0] == 2.0


def test_what_the_log_held_at_the_very_first_start_is_no_growth(log: Log, tmp_path: Path) -> None:
    log.say(MEDIUM.format(7))
    found = [item.value for item in reader(log, tmp_path).read(1.0) if item.signal == "kernel.medium_errors"]
    assert found == [1.0]


def test_a_restart_counts_nothing_twice_and_misses_nothing(log: Log, tmp_path: Path) -> None:
    first = reader(log, tmp_path)
    first.read(1.0)
    log.say(MEDIUM.format(1))
    first.read(2.0)
    log.sequence = 0  # the log is read from its beginning again
    log.say(MEDIUM.format(1))
    log.say(MEDIUM.format(2))
    assert counts(reader(log, tmp_path).read(3.0)) == {("/dev/sda", "kernel.medium_errors"): 2}


def test_lines_of_programs_are_not_the_kernels(log: Log, tmp_path: Path) -> None:
    log.say(MEDIUM.format(1), facility=1)
    assert counts(reader(log, tmp_path).read(1.0)) == {}


def test_the_device_comes_from_the_record_where_the_text_has_none(log: Log, tmp_path: Path) -> None:
    disk = tmp_path / "sys/devices/pci0/ata1/host0/target0:0:0/0:0:0:0/block/sdq"
    (disk / "queue").mkdir(parents=True)
    (disk / "queue/rotational").write_text("1\n")
    (disk.parent.parent / "vpd_pg80").write_bytes(b"\x00\x80\x00\x08SER 0001")
    (disk / "device").symlink_to(disk.parent.parent)
    place = tmp_path / "sys/class/block/sdq"
    place.parent.mkdir(parents=True)
    place.symlink_to(disk)
    log.say("sd 0:0:0:0: Device offlined - not ready after error recovery", properties=" DEVICE=+scsi:0:0:0:0\n")
    log.say("ata1.00: error: { ICRC ABRT }")
    (counted, link) = [item for item in reader(log, tmp_path).read(1.0) if item.signal.startswith("kernel.")]
    assert counted.device.identity == link.device.identity == "disk:SER 0001"
    assert counted.device.about["type"] == "hdd"
    assert (counted.signal, link.signal) == ("kernel.disk_failures", "kernel.link_errors")


def test_a_disk_that_may_be_pulled_is_nobodys_business(log: Log, tmp_path: Path) -> None:
    disk = tmp_path / "sys/devices/pci0/usb1/1-1/host7/target7:0:0/7:0:0:0/block/sda"
    disk.mkdir(parents=True)
    place = tmp_path / "sys/class/block/sda"
    place.parent.mkdir(parents=True)
    place.symlink_to(disk)
    log.say(MEDIUM.format(1))
    assert counts(reader(log, tmp_path).read(1.0)) == {}


def test_a_flood_is_taken_in_slices_and_lost_lines_are_told(log: Log, tmp_path: Path) -> None:
    reading = reader(log, tmp_path)
    reading.read(1.0)
    log.say("usb 1-1: reset high-speed USB device")
    reading.read(2.0)
    log.sequence += 400  # overwritten before they were read
    log.say(MEDIUM.format(3))
    found = counts(reading.read(3.0))
    assert found[HOST, "kernel.lost_lines"] == 400
    assert found["/dev/sda", "kernel.medium_errors"] == 1


def test_one_reading_ends_however_much_the_kernel_says(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.signals.kmsg.MOST_AT_ONCE", 50)
    for number in range(120):
        log.say(f"line {number}")
    kmsg = log.open()
    assert [len(list(kmsg.records())) for _ in range(4)] == [50, 50, 20, 0]
    kmsg.close()


def test_a_log_that_cannot_be_opened_is_blindness(tmp_path: Path) -> None:
    readings = KernelLogReader(60, PATTERNS, open_log=lambda: Kmsg.open(tmp_path / "none")).read(1.0)
    assert values(readings) == {("reader kernel", "reader.blind"): None}
    assert "cannot be read" in reason(readings, "reader.blind")


def test_a_damaged_file_of_counts_begins_anew(log: Log, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"position": 3')
    assert counts(reader(log, tmp_path).read(1.0)) == {}


def test_an_admins_pattern_is_counted_under_its_name(log: Log, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "site.toml").write_text(
        '[[pattern]]\nid = "tape-robot"\nsignal = "kernel.matches"\ncontains = ["changer jam"]\n'
        'examples = ["ch 1:0:0:0: changer jam"]\n'
    )
    reading = KernelLogReader(60, load_patterns(local=own), open_log=log.open, sysfs=tmp_path)
    log.say("ch 1:0:0:0: changer jam")
    (found,) = [item for item in reading.read(1.0) if item.signal == "kernel.matches"]
    assert found.device.about == {"pattern": "tape-robot"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('id = "a"\nsignal = "kernel.io_error"\ncontains = ["x"]\nexamples = ["x"]', "kernel.io_errors"),
        ('id = "a"\nsignal = "smart.media_errors"\ncontains = ["x"]\nexamples = ["x"]', "no counter of the kernel"),
        ('id = "a"\nsignal = ""\ncontains = ["x"]\nmatches = "("\nexamples = ["x"]', "no regular expression"),
        ('id = "a"\nsignal = ""\ncontains = ["x"]\nexamples = ["y"]', "does not match its example"),
        ('id = "a"\nsignal = ""\ncontains = ["x"]\nonce_by = ["z"]\nexamples = ["x"]', "once_by"),
        ('id = "io-error"\nsignal = ""\ncontains = ["x"]\nexamples = ["x"]', "twice"),
        ('id = "a"\nsignal = ""\ncontain = ["x"]\nexamples = ["x"]', "did you mean 'contains'"),
    ],
)
def test_a_bad_pattern_is_refused_and_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "own.toml").write_text(f"[[pattern]]\n{text}\n")
    with pytest.raises(FileError, match=r".+") as caught:
        load_patterns(local=tmp_path)
    assert words in caught.value.message


def test_the_shipped_file_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "kernel_patterns.toml").write_text("")
    assert load_patterns(local=tmp_path).find(MEDIUM.format(1)) is None
    assert LOCAL.is_absolute()


@pytest.mark.parametrize("raw", [b"", b";", b"x,1,2,-;y", b"3,1;y", b"\xff\xff"])
def test_bytes_that_are_no_record_are_left_out(raw: bytes) -> None:
    assert parse_record(raw) is None
