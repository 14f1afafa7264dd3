"""Sockets left in repair mode, on connections of our own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from migrator.network import repair
from migrator.network.repair import TCP_REPAIR, end_repair


@pytest.fixture
def repaired() -> Iterator[socket.socket]:
    """One end of a connection, in repair mode; closed out of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        yield one
        one.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)


def test_a_process_is_given_its_sockets_back(repaired: socket.socket) -> None:
    assert end_repair((os.getpid(),)) == 1
    assert repaired.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR) == 0
    assert end_repair((os.getpid(),)) == 0


def test_one_process_that_cannot_be_looked_at_keeps_no_other_waiting(
    repaired: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = repair._sockets

    def failing(pid: int) -> Iterator[socket.socket]:
        if pid != os.getpid():
            raise FileNotFoundError(pid)
        return look(pid)

    monkeypatch.setattr(repair, "_sockets", failing)
    with pytest.raises(FileNotFoundError):
        end_repair((1, os.getpid()))
    assert repaired.getsockopt(socket.IPPROTO_TCP, TCP_REPAIR) == 0
