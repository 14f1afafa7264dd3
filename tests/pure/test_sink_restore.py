"""The page sink and the restore: nothing flows before the restore has said that it sent all of its processes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from migrator.errors import LifeboatError
from migrator.pager.restored import RESTORE_FINISHED, RESTORE_SOCKET
from tests.pure.sink_process import SinkProcess

ZOMBIE = struct.pack("<i", -7)  # a process without memory, and so without a userfaultfd


class Restore:
    """A sink, and the end of its socket that `criu restore` would have."""

    def __init__(self, place: Path) -> None:
        self.sink = SinkProcess(place)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(self.sink.directory / RESTORE_SOCKET))

    def go(self) -> str:
        """Say that the tree belongs here; return what the sink minds."""
        with pytest.raises(LifeboatError) as found:
            self.sink.control.ask({"do": "go", "pid": 1}, timeout_s=30)
        return found.value.message

    def event(self) -> str:
        """Return how far the sink has come."""
        return str(self.sink.control.ask({"do": "progress"}, timeout_s=30)["event"])

    def close(self) -> None:
        """End both."""
        self.socket.close()
        self.sink.close()


@pytest.fixture
def restore(tmp_path: Path) -> Iterator[Restore]:
    """A sink to which a restore has called."""
    found = Restore(tmp_path)
    yield found
    found.close()


def test_the_memory_flows_only_when_all_processes_are_known(restore: Restore) -> None:
    restore.socket.sendall(ZOMBIE)
    with ThreadPoolExecutor() as pool:
        going = pool.submit(restore.go)
        assert not wait([going], 0.5).done  # one process is known, and more may come
        restore.socket.sendall(ZOMBIE + struct.pack("<I", RESTORE_FINISHED))
        assert "the page source does not call" in going.result()  # it has begun, and there is no source here


def test_a_restore_that_never_ends_is_not_drained(restore: Restore) -> None:
    restore.socket.sendall(ZOMBIE)
    assert restore.go() == "the restore is not complete"


def test_a_restore_that_hangs_up_too_early_is_lost(restore: Restore) -> None:
    restore.socket.sendall(ZOMBIE)
    restore.socket.shutdown(socket.SHUT_RDWR)
    while restore.event() == "waiting":
        pass
    assert restore.event() == "lost"


def test_a_mistake_in_one_turn_does_not_end_who_holds_the_memory(restore: Restore) -> None:
    with pytest.raises(LifeboatError):
        restore.sink.control.ask({"do": "images"}, timeout_s=0.5)  # which images?
    assert restore.event() == "waiting"
