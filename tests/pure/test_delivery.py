"""A container is a target's for good only with its memory there and its files on disk."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from migrator.errors import CommandError, ExecutionError
from migrator.model import Method
from migrator.pager.sink import SinkState
from migrator.storage import disks as disks_module
from migrator.storage.disks import Disks, mounted_below
from migrator.target import delivery as delivery_module
from migrator.target.delivery import Delivery
from migrator.target.drain import Drain, Progress
from migrator.target.record import Record


class Sink:
    """A page sink as the daemon sees it."""

    def __init__(self) -> None:
        self.state = SinkState.DRAINING
        self.told: list[int] = []

    def go(self, pid: int) -> None:
        self.told.append(pid)

    def look(self) -> Progress:
        return Progress(self.state)


class Lines:
    """What the journal has of it."""

    def __init__(self) -> None:
        self.was_drained = self.was_written = False
        self.unwritten_for = ""

    def drained(self) -> None:
        self.was_drained = True

    def written(self) -> None:
        self.was_written = True

    def unwritten(self, why: str) -> None:
        self.unwritten_for = self.unwritten_for or why


class Store:
    """The file systems of the host, written out when the test says so."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked = 0
        self.errors: list[Exception] = []

    def hold(self) -> None:
        """They are there."""

    def write_out(self) -> None:
        self.asked += 1
        assert self.may.wait(10)
        if self.errors:
            raise self.errors.pop()


def made(*, lazy: bool = True, lines: Lines | None = None) -> tuple[Delivery, Sink, Lines, Store]:
    sink, known, store = Sink(), lines or Lines(), Store()
    method = Method.LAZY if lazy else Method.FULL
    delivery = Delivery(cast("Drain", sink), cast("Record", known), cast("Disks", store), method)
    return delivery, sink, known, store


def soon(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("lazy", [True, False])
def test_memory_alone_is_not_enough(*, lazy: bool) -> None:
    delivery, sink, lines, store = made(lazy=lazy)
    delivery.begin(7)
    assert sink.told == ([7] if lazy else [])
    sink.state = SinkState.DRAINED
    delivery.look()
    assert lines.was_drained
    assert delivery.memory_is_here
    assert not delivery.complete
    store.may.set()
    soon(lambda: delivery.look() is not None and delivery.complete)
    assert lines.was_written
    assert store.asked == 1


def test_files_alone_are_not_enough() -> None:
    delivery, _, lines, store = made()
    store.may.set()
    delivery.begin(7)
    soon(lambda: delivery.look() is not None and lines.was_written)
    assert not delivery.complete


def test_what_cannot_be_written_stays_so_whoever_tries_again() -> None:
    delivery, sink, lines, store = made()
    store.errors = [OSError(5, "Input/output error")]  # Linux tells it once
    store.may.set()
    delivery.begin(7)
    sink.state = SinkState.DRAINED
    soon(lambda: delivery.look() is not None and bool(lines.unwritten_for))
    with pytest.raises(ExecutionError, match="Input/output error"):
        delivery.write_files()
    another, _, _, again = made(lines=lines)  # as an admin restarts the daemon
    again.may.set()
    another.begin(7)
    another.look()
    assert "Input/output error" in another.trouble
    assert not delivery.complete
    assert not another.complete
    assert (store.asked, again.asked) == (1, 0)
    another.trust_files()
    another.look()
    assert another.complete
    assert another.trouble == ""


def test_podman_that_does_not_answer_is_asked_again() -> None:
    delivery, _, lines, store = made(lazy=False)
    store.errors = [CommandError("podman is busy", code="command-timeout")]
    store.may.set()
    delivery.begin(0)
    soon(lambda: delivery.look() is not None and delivery.complete)
    assert lines.was_written
    assert store.asked == 2


def test_disks_that_are_slow_are_not_waited_for_longer_than_a_source_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_module, "WRITE_WAIT_S", 0.01)
    delivery, _, lines, store = made(lazy=False)
    for _ in range(2):
        began_at = time.monotonic()
        with pytest.raises(ExecutionError, match="are not on disk after") as late:
            delivery.write_files()
        assert time.monotonic() - began_at < 5, "as long as the disks need"
        assert (late.value.code, late.value.temporary) == ("files-not-written", True)
        assert (store.asked, lines.was_written) == (1, False), "it goes on, and is not begun again"
    monkeypatch.setattr(delivery_module, "WRITE_WAIT_S", 10.0)
    store.may.set()
    delivery.write_files()
    assert (store.asked, lines.was_written) == (1, True)


def test_disks_that_failed_are_no_matter_of_time() -> None:
    delivery, _, _, store = made(lazy=False)
    store.errors = [OSError(5, "Input/output error")]
    store.may.set()
    with pytest.raises(ExecutionError, match="Input/output error") as failed:
        delivery.write_files()
    assert (failed.value.code, failed.value.temporary) == ("files-not-written", False)


def test_what_was_written_before_is_not_written_again() -> None:
    delivery, _, lines, store = made(lazy=False)
    store.may.set()
    delivery.write_files()
    assert lines.was_written
    delivery.begin(0)
    delivery.look()
    assert delivery.complete
    assert store.asked == 1


def test_a_daemon_that_comes_back_does_not_ask_for_memory_that_is_here() -> None:
    lines = Lines()
    lines.was_drained = True
    delivery, sink, _, store = made(lines=lines)
    sink.state = SinkState.LOST  # the sink has nothing to do any more, and may be gone
    store.may.set()
    delivery.begin(7)
    soon(lambda: delivery.look() is not None and delivery.complete)
    assert sink.told == []


def test_every_file_system_is_opened_once_and_asked_for_its_errors(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    disks = Disks(lambda: [tmp_path, tmp_path / "one", Path("/proc")])
    before = set(os.listdir("/proc/self/fd"))
    disks.write_out()
    disks.write_out()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 2
    disks.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_all_places_are_opened_or_none(tmp_path: Path) -> None:
    places = [tmp_path, Path("/proc"), tmp_path / "absent"]
    disks = Disks(lambda: places)
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(2):  # the second try must not take what the first has opened for all there is
        with pytest.raises(FileNotFoundError):
            disks.write_out()
        assert set(os.listdir("/proc/self/fd")) == before
    places.pop()
    disks.write_out()
    places.append(tmp_path / "absent")
    disks.write_out()  # unmounted since, and not ours
    disks.close()


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    delivery, _, _, _ = made()
    absent = Delivery(
        cast("Drain", Sink()), cast("Record", Lines()), Disks(lambda: [tmp_path / "absent"]), Method.LAZY
    )
    delivery.get_ready()
    with pytest.raises(ExecutionError, match="absent"):
        absent.get_ready()


def test_local_file_systems_below_a_directory_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = [
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw",
        f"21 20 8:2 / {tmp_path}/data/one rw - xfs /dev/mapper/vg-one rw",
        f"22 20 0:40 / {tmp_path}/data/two rw - nfs4 filer:/two rw",
        f"23 20 0:41 /pool {tmp_path}/data/three rw - zfs tank/three rw",
        f"24 20 0:42 / {tmp_path}/data/four rw - tmpfs tmpfs rw",
        f"25 20 8:3 / {tmp_path}/elsewhere rw - ext4 /dev/sdb1 rw",
        f"26 20 8:4 / {tmp_path}/data/gone rw - ext4 /dev/sdc1 rw",
    ]
    for name in ("data/one", "data/two", "data/three", "data/four", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(disks_module, "MOUNTINFO", tmp_path / "mountinfo")
    assert mounted_below([tmp_path / "data"]) == [tmp_path / "data/one", tmp_path / "data/three"]
