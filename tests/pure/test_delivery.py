"""A container is a target's for good only with its memory there and its files on disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from migrator.errors import ExecutionError
from migrator.pager.sink import SinkState
from migrator.target import delivery as module
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

    def drained(self) -> None:
        self.was_drained = True

    def written(self) -> None:
        self.was_written = True


class Disk:
    """The file systems of the host, written out when the test says so."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.asked: list[Path] = []
        self.error: OSError | None = None

    def write_out(self, path: Path) -> None:
        self.asked.append(path)
        assert self.may.wait(10)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(module, "write_out", found.write_out)
    return found


def made(places: list[Path], *, lazy: bool = True) -> tuple[Delivery, Sink, Lines]:
    sink, lines = Sink(), Lines()
    return Delivery(cast("Drain", sink), cast("Record", lines), lambda: places, lazy=lazy), sink, lines


def soon(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("lazy", [True, False])
def test_memory_alone_is_not_enough(disk: Disk, tmp_path: Path, *, lazy: bool) -> None:
    delivery, sink, lines = made([tmp_path], lazy=lazy)
    delivery.begin(7)
    assert sink.told == ([7] if lazy else [])
    sink.state = SinkState.DRAINED
    delivery.look()
    assert lines.was_drained
    assert delivery.memory_is_here
    assert not delivery.complete
    disk.may.set()
    soon(lambda: delivery.look() is not None and delivery.complete)
    assert lines.was_written


def test_files_alone_are_not_enough(disk: Disk, tmp_path: Path) -> None:
    delivery, _, lines = made([tmp_path])
    disk.may.set()
    delivery.begin(7)
    soon(lambda: delivery.look() is not None and lines.was_written)
    assert not delivery.complete


def test_each_file_system_is_written_once(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    delivery, _, _ = made([tmp_path, tmp_path / "one", Path("/proc")])
    disk.may.set()
    delivery.write_files()
    assert sorted(path.stat().st_dev for path in disk.asked) == sorted(
        {tmp_path.stat().st_dev, Path("/proc").stat().st_dev}
    )


def test_what_cannot_be_written_is_told_and_never_complete(disk: Disk, tmp_path: Path) -> None:
    delivery, sink, lines = made([tmp_path])
    disk.error = OSError(5, "Input/output error")
    disk.may.set()
    delivery.begin(7)
    sink.state = SinkState.DRAINED
    soon(lambda: bool(delivery.trouble))
    delivery.look()
    assert "Input/output error" in delivery.trouble
    assert not delivery.complete
    with pytest.raises(ExecutionError, match="Input/output error"):
        delivery.write_files()
    assert not lines.was_written


def test_a_daemon_that_comes_back_does_not_ask_for_memory_that_is_here(disk: Disk, tmp_path: Path) -> None:
    delivery, sink, lines = made([tmp_path])
    lines.was_drained = True
    sink.state = SinkState.LOST  # the sink has nothing to do any more, and may be gone
    disk.may.set()
    delivery.begin(7)
    soon(lambda: delivery.look() is not None and delivery.complete)
    assert sink.told == []
