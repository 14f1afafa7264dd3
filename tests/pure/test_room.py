"""The room for memory that is to come: made while there is time, returned ahead of what comes, never in the way."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from migrator.errors import ExecutionError
from migrator.host.hardware import broken_bytes_of
from migrator.model import Method
from migrator.pager import room
from migrator.pager.room import AHEAD_BYTES, NAME, PIECE_BYTES, Room, RoomState
from migrator.protocol.messages import Proposal
from migrator.runtime.hasten import resident_bytes
from migrator.settings import MigratorSettings
from migrator.target import drain
from migrator.target.drain import Drain
from tests.pure.halls import hall_in
from tests.pure.sink_process import SinkProcess
from tests.pure.values import container

MIB = 1 << 20
WANTED = AHEAD_BYTES + 4 * PIECE_BYTES
LIMIT_S = 20.0


def until(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def child(directory: Path) -> Path:
    """Return the /proc directory of who makes the room."""
    until((directory / "room").exists)
    return Path("/proc") / (directory / "room").read_text().split()[0]


def made(directory: Path) -> bool:
    state = RoomState.read(directory)
    return state.made and state.held_bytes > 0


def test_it_has_the_memory_and_returns_it_ahead_of_what_comes(tmp_path: Path) -> None:
    made_of = Room(tmp_path, WANTED)
    process = child(tmp_path)
    until(lambda: made(tmp_path))
    assert RoomState.read(tmp_path) == RoomState(WANTED, made=True)
    had = resident_bytes(int(process.name))
    assert had >= WANTED
    made_of.yield_to(0)
    until(lambda: RoomState.read(tmp_path).held_bytes == 4 * PIECE_BYTES)
    assert resident_bytes(int(process.name)) <= had - AHEAD_BYTES + MIB, "the kernel has it back"
    made_of.yield_to(PIECE_BYTES + 1)  # of a piece that is begun all is needed
    until(lambda: RoomState.read(tmp_path).held_bytes == 2 * PIECE_BYTES)
    made_of.yield_to(WANTED)
    until(lambda: not process.exists() or (process / "cmdline").read_bytes() == b"")
    made_of.yield_to(WANTED)  # nobody hears that any more
    made_of.close()
    made_of.close()
    assert RoomState.read(tmp_path) == RoomState()
    assert not process.exists()


@pytest.mark.parametrize("broken", [0, WANTED])
def test_it_takes_first_what_small_pages_are_taken_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    monkeypatch.setattr(room, "broken_bytes", lambda: broken)
    made_of = Room(tmp_path, WANTED)
    process = child(tmp_path)
    until(lambda: made(tmp_path))
    huge = re.findall(r"^AnonHugePages: +(\d+) kB", (process / "smaps").read_text(), re.MULTILINE)
    assert (sum(map(int, huge)) > 0) == (broken == 0)
    made_of.close()


def test_free_memory_in_small_pieces_is_counted() -> None:
    table = "Node 0, zone      DMA      1      0      2\nNode 0, zone   Normal      3      5      7\n"
    assert broken_bytes_of(table, 4096, 4 * 4096) == (1 + 3 + 2 * 5) * 4096
    assert broken_bytes_of(table, 4096, 1 << 62) == (1 + 3 + 2 * 5 + 4 * 9) * 4096


def test_it_grows_no_more_once_it_is_wanted(tmp_path: Path) -> None:
    made_of = Room(tmp_path, 512 * MIB)
    made_of.yield_to(64 * MIB)
    until(lambda: made(tmp_path) or not (tmp_path / "room").exists())
    assert RoomState.read(tmp_path).held_bytes <= 512 * MIB - 64 * MIB - AHEAD_BYTES
    made_of.close()


def test_it_stops_where_it_is_when_it_has_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "is_available", lambda _: True)  # or it would stop by itself where memory is short
    made_of = Room(tmp_path, wanted := 4096 * MIB)
    until(lambda: RoomState.read(tmp_path).held_bytes >= PIECE_BYTES)
    made_of.suffice()
    until(lambda: made(tmp_path))
    held = RoomState.read(tmp_path).held_bytes
    assert PIECE_BYTES <= held < wanted
    made_of.yield_to(wanted - held)
    until(lambda: RoomState.read(tmp_path).held_bytes < held)
    made_of.close()


def test_a_restore_does_not_wait_for_all_of_it_and_it_stops_growing(tmp_path: Path) -> None:
    sink = SinkProcess(tmp_path, room_bytes=(wanted := 4096 * MIB))
    hall = hall_in(tmp_path, MigratorSettings(room_wait_s=0.1))
    proposal = Proposal(
        migration="0a0a", source="alpha", container=container("web"), method=Method.LAZY, copy_image=False, epoch=1
    )
    waiting = Drain(hall, proposal, sink.directory)
    try:
        until(lambda: RoomState.read(sink.directory).held_bytes > 0)
        waiting.wait_for_room()
        until(lambda: made(sink.directory))
        assert RoomState.read(sink.directory).held_bytes < wanted
        assert room.is_available(PIECE_BYTES), "it stopped for want of memory, not at our word"
    finally:
        waiting.end()
        sink.close()


def test_it_ends_with_the_sink(tmp_path: Path) -> None:
    sink = os.fork()
    if sink == 0:
        made_of = Room(tmp_path, WANTED)
        signal.pause()
        made_of.close()
    try:
        process = child(tmp_path)
    finally:
        os.kill(sink, signal.SIGKILL)
        os.waitpid(sink, 0)
    until(lambda: not process.exists())
    assert not (tmp_path / "room").exists()


def test_it_holds_nothing_open_of_the_sinks(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    made_of = Room(tmp_path, WANTED)
    process = child(tmp_path)
    assert (process / "cmdline").read_bytes().rstrip(b"\0") == NAME
    assert (process / "oom_score_adj").read_text().strip() == "1000"
    ours.close()
    theirs.settimeout(LIMIT_S)
    assert theirs.recv(1) == b"", "nobody else has the other end"
    theirs.close()
    made_of.close()


def test_without_memory_there_is_less_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [True, False]
    monkeypatch.setattr(room, "is_available", lambda _: left.pop(0))
    made_of = Room(tmp_path, WANTED)
    until(lambda: made(tmp_path))
    assert RoomState.read(tmp_path).held_bytes == PIECE_BYTES
    made_of.close()


def test_what_is_available_leaves_some_to_others() -> None:
    assert room.is_available(PIECE_BYTES)
    assert not room.is_available(1 << 50)


@pytest.mark.parametrize("text", ["", "nonsense", "1 2", "4194305 33554432 0\n"])
def test_a_room_that_nobody_has_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "room").write_text(text)
    assert RoomState.read(tmp_path) == RoomState(0, made=True), "and nobody waits for it"


def test_a_room_that_was_killed_is_none(tmp_path: Path) -> None:
    killed = os.fork()
    if killed == 0:
        os._exit(0)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    (tmp_path / "room").write_text(f"{killed} 33554432 0\n")
    assert RoomState.read(tmp_path) == RoomState(0, made=True), "it is not reaped yet"
    os.waitpid(killed, 0)


def test_a_sink_that_does_not_take_the_word_keeps_nobody_from_restoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "room").write_text(f"{os.getpid()} 33554432 0\n")
    monkeypatch.setattr(drain, "LAST_PIECE_WAIT_S", 0.0)
    asked: list[object] = []

    def refuse(_: Drain, message: object) -> None:
        asked.append(message)
        raise ExecutionError("refused", code="control")

    monkeypatch.setattr(Drain, "_ask", refuse)
    proposal = Proposal(
        migration="0a0a", source="alpha", container=container("web"), method=Method.LAZY, copy_image=False, epoch=1
    )
    Drain(hall_in(tmp_path, MigratorSettings(room_wait_s=0)), proposal, tmp_path).wait_for_room()
    assert asked == [{"do": "brace"}]


def test_no_room_is_made_where_none_is_wanted(tmp_path: Path) -> None:
    made_of = Room(tmp_path, 0)
    made_of.yield_to(0)
    made_of.close()
    assert not list(tmp_path.iterdir())
