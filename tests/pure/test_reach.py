"""A peer out of reach is noticed while a container stands still for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from migrator.errors import PeerError
from migrator.peers.reach import PATIENCE_S, Reach

DEADLINE_S = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as found:
        yield found


def lose(listener: socket.socket) -> list[socket.socket]:
    """Let the kernel drop what else comes, as a cut network would: nobody takes the calls, and no more may wait."""
    waiting = []
    while True:
        caller = socket.socket()
        caller.settimeout(0.2)
        waiting.append(caller)
        try:
            caller.connect(listener.getsockname())
        except TimeoutError:
            return waiting


def fails(reach: Reach) -> bool:
    try:
        reach.check()
    except PeerError as error:
        return error.code == "peer-silent" and error.temporary
    return False


def drain(listener: socket.socket) -> None:
    listener.settimeout(0.01)
    try:
        while True:
            listener.accept()[0].close()
    except TimeoutError:
        pass


def test_a_silent_peer_is_noticed_and_one_that_comes_back_too(listener: socket.socket) -> None:
    with Reach("beta", *listener.getsockname()) as reach:
        reach.check()
        waiting = lose(listener)
        began = time.monotonic()
        while not fails(reach):
            assert time.monotonic() - began < DEADLINE_S
            time.sleep(0.01)
        assert time.monotonic() - began > PATIENCE_S / 2, "not for one lost packet"
        while fails(reach):
            assert time.monotonic() - began < 2 * DEADLINE_S
            drain(listener)
    for caller in waiting:
        caller.close()


def test_nothing_begins_with_a_peer_that_is_silent_already(listener: socket.socket) -> None:
    waiting = lose(listener)
    with pytest.raises(PeerError, match="beta does not answer"), Reach("beta", *listener.getsockname()):
        pass
    for caller in waiting:
        caller.close()


def test_a_peer_whose_daemon_is_dead_is_there(listener: socket.socket) -> None:
    place = listener.getsockname()
    listener.close()
    with Reach("beta", *place) as reach:
        reach.check()
