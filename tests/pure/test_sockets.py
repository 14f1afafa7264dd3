"""Connections out of a container by Unix sockets, seen on processes of our own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migrator.container import sockets
from migrator.container.sockets import connections_out

WITHIN = """
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
waiting = socket.socket(socket.AF_UNIX)
waiting.connect(sys.argv[1])
one, two = socket.socketpair()
alone, gone = socket.socketpair()
gone.close()
print("ready", flush=True)
sys.stdin.read()
"""

CALLING = """
import socket, sys
caller = socket.socket(socket.AF_UNIX, int(sys.argv[2]))
caller.connect(sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def running(program: str, *words: str) -> Iterator[int]:
    """Run a program until it is ready; its pid."""
    argv = [sys.executable, "-c", program, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
        process.kill()


def test_what_is_connected_within_is_no_matter(tmp_path: Path) -> None:
    with running(WITHIN, str(tmp_path / "s")) as pid:
        assert connections_out(lambda: [pid]) == ()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_a_connection_to_another_is_found(tmp_path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(tmp_path / "s"))
        accepted = None
        if kind != socket.SOCK_DGRAM:
            listener.listen()
        with running(CALLING, str(tmp_path / "s"), str(int(kind))) as pid:
            if kind != socket.SOCK_DGRAM:
                accepted, _ = listener.accept()
            (found,) = connections_out(lambda: [pid])
            assert found.pid == pid
            assert f"(process {os.getpid()})" in found.what
            told = iter([[pid], [pid, os.getpid()]])
            assert connections_out(lambda: next(told)) == (), "the other end is of it, as is known a moment later"
        if accepted is not None:
            accepted.close()


def test_a_moment_is_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with running(CALLING, str(tmp_path / "s"), str(int(socket.SOCK_STREAM))) as pid:
            accepted, _ = listener.accept()
            monkeypatch.setattr("migrator.container.sockets.time.sleep", lambda _: accepted.close())
            assert connections_out(lambda: [pid]) == ()


def test_sockets_that_cannot_be_listed_keep_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise KeyError("no free address available")

    with running(WITHIN, str(tmp_path / "s")) as pid:
        monkeypatch.setattr(sockets, "inside", refuse)
        assert connections_out(lambda: [pid]) == ()


def test_a_process_that_ended_has_none() -> None:
    with running(CALLING.replace("caller.connect", "str"), "", "1") as pid:
        pass
    assert connections_out(lambda: [pid]) == ()
