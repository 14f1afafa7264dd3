"""What hangs is not waited for without a limit: programs that were killed, sockets nobody serves, slow disks."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from migrator import command
from migrator.command import give_up, run, spawn
from migrator.control import ControlClient
from migrator.errors import CommandError, ExecutionError, LifeboatError
from migrator.storage import sync
from migrator.storage.sync import Destination, Tree, copy_ahead

HANG_S = 10.0  # what takes as long has hung


def ended_in_time(work: Callable[[], object], let_go: Callable[[], object]) -> list[LifeboatError]:
    """Return what work raised; what hangs is let go, and fails the test."""
    raised: list[LifeboatError] = []

    def do() -> None:
        try:
            work()
        except LifeboatError as error:
            raised.append(error)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(HANG_S)
    hung = thread.is_alive()
    let_go()
    thread.join(HANG_S)
    assert not hung
    return raised


class StoppedError(ExecutionError):
    """Somebody wants it to end."""


def stop() -> None:
    """End it."""
    raise StoppedError("it was cancelled", code="stopped")


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_program_s_end_does_not_wait_for_who_has_left_its_group(tmp_path: Path, *, cancelled: bool) -> None:
    pid = tmp_path / "pid"
    argv = ["sh", "-c", f"setsid sleep 60 & echo $! > {pid}.new; mv {pid}.new {pid}; exec sleep 60"]

    def go_on() -> None:
        if pid.exists():
            stop()

    def let_go() -> None:
        with suppress(FileNotFoundError):
            os.kill(int(pid.read_text()), signal.SIGKILL)

    def work() -> None:
        run(argv, timeout_s=60, go_on=go_on) if cancelled else run(argv, timeout_s=1)

    (error,) = ended_in_time(work, let_go)
    assert pid.exists(), "nobody held the pipes"
    assert error.code == ("stopped" if cancelled else "command-timeout")


def test_a_program_that_does_not_die_is_left_to_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    process = spawn(["sleep", "60"])
    monkeypatch.setattr(command, "END_WAIT_S", 0.0)
    monkeypatch.setattr(command, "kill_group", lambda _: None)  # as if it waited for a dead disk
    assert ended_in_time(lambda: give_up(process), process.kill) == []
    assert "does not end" in caplog.text
    assert process.stdout is not None
    assert process.stdout.closed
    process.wait(HANG_S)


def test_who_has_as_many_callers_as_may_wait_is_late(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(0)
    callers: list[socket.socket] = []
    with suppress(BlockingIOError):
        while True:
            callers.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            callers[-1].setblocking(False)
            callers[-1].connect(str(path))
    began_at = time.monotonic()
    (error,) = ended_in_time(lambda: ControlClient(path, timeout_s=0.05, what="the shim"), listener.close)
    assert (error.code, error.message) == ("control-timeout", "the shim did not answer within 0.05 s")
    assert time.monotonic() - began_at >= 0.05, "it is waited for"
    (error,) = ended_in_time(lambda: ControlClient(path, timeout_s=0.05, what="the shim"), lambda: None)
    assert error.code == "control-absent"
    for caller in callers:
        caller.close()


def test_who_comes_to_take_its_calls_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        first = ControlClient(path, timeout_s=HANG_S, what="the shim")
        taken: list[socket.socket] = []
        taking = threading.Timer(0.02, lambda: taken.append(listener.accept()[0]))
        taking.start()
        second = ControlClient(path, timeout_s=HANG_S, what="the shim")
        taking.join()
        ends: list[ControlClient | socket.socket] = [first, second, *taken]
        for end in ends:
            end.close()


class Disk:
    """One that writes until it is let go."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.ended = threading.Event()
        self.asked = 0
        self.error: OSError | None = None

    def write_out(self, _: Path) -> None:
        """See `disks.write_out`."""
        self.may.wait(HANG_S)
        self.ended.set()
        if self.error is not None:
            raise self.error

    def go_on(self) -> None:
        """Somebody wants it to end at the third look."""
        self.asked += 1
        assert not self.ended.is_set(), "it is asked while it hangs"
        if self.asked == 3:
            stop()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the disk of what is copied."""
    found = Disk()
    monkeypatch.setattr(sync, "write_out", found.write_out)
    monkeypatch.setattr(sync, "LOOK_S", 0.01)
    return found


def test_who_copies_can_be_stopped_while_a_disk_writes(tmp_path: Path, disk: Disk) -> None:
    destination = Destination(tmp_path, "beta", "0a0a", disk.go_on)
    with pytest.raises(StoppedError):
        copy_ahead(Tree("layer", tmp_path), destination, HANG_S, None)
    assert (disk.asked, disk.ended.is_set()) == (3, False)
    disk.may.set()


def test_a_disk_that_writes_for_longer_than_may_be_copied_fails_the_copy(tmp_path: Path, disk: Disk) -> None:
    with pytest.raises(ExecutionError, match="is not written out after") as late:
        copy_ahead(Tree("layer", tmp_path), Destination(tmp_path, "beta", "0a0a"), 0.02, None)
    assert (late.value.code, disk.ended.is_set()) == ("copy-failed", False)
    disk.may.set()


def test_what_a_disk_cannot_write_is_told(tmp_path: Path, disk: Disk) -> None:
    disk.error = OSError(5, "Input/output error")
    disk.may.set()
    with pytest.raises(OSError, match="Input/output error"):
        copy_ahead(Tree("layer", tmp_path), Destination(tmp_path, "beta", "0a0a"), HANG_S, None)


def test_a_program_that_ends_in_time_is_as_ever() -> None:
    assert run(["sh", "-c", "echo said"], timeout_s=HANG_S, go_on=lambda: None).output == "said\n"
    with pytest.raises(CommandError, match="exit status 3"):
        run(["sh", "-c", "exit 3"], timeout_s=HANG_S)
