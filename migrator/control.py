"""How the daemon talks to the programs that outlive it: JSON lines over a Unix socket.

A shim or a pager listens on a socket in its migration's directory; the daemon connects, also again after a
restart, sends one word at a time and gets one answer each. Only one connection counts: the newest.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from migrator.errors import ExecutionError

LINE_LIMIT_BYTES = 1 << 20

Message = dict[str, Any]


class ControlServer:
    """The listening end, in a shim or a pager: single-threaded, one connection at a time."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(4)
        self._connection: socket.socket | None = None
        self._buffer = b""

    @property
    def connected(self) -> bool:
        """Say whether a daemon is connected."""
        return self._connection is not None

    def wait(self, timeout_s: float) -> Message | None:
        """Return the next message, None when none came within `timeout_s` seconds or the daemon went away."""
        deadline = time.monotonic() + timeout_s
        while True:
            if b"\n" in self._buffer:
                line, _, self._buffer = self._buffer.partition(b"\n")
                return _decode(line)
            look = select.poll()  # select takes no descriptor above 1023, and a sink may hold that many
            for waiting in (self._listener, self._connection):
                if waiting is not None:
                    look.register(waiting, select.POLLIN)
            ready = [number for number, _ in look.poll(1000 * max(0.0, deadline - time.monotonic()))]
            if not ready:
                return None
            if self._listener.fileno() in ready:
                self._accept()
            elif not self._receive():
                return None

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message to the daemon; quiet when it is gone, for it will ask again when it is back."""
        if self._connection is None:
            return
        try:
            self._connection.sendall(_encode(message))
        except OSError:
            self._drop()

    def close(self) -> None:
        """Close everything."""
        self._drop()
        self._listener.close()

    def _accept(self) -> None:
        self._drop()
        self._connection, _ = self._listener.accept()

    def _receive(self) -> bool:
        assert self._connection is not None  # noqa: S101  only what was registered is ready
        try:
            data = self._connection.recv(65536)
        except OSError:
            data = b""
        if not data or len(self._buffer) > LINE_LIMIT_BYTES:
            self._drop()
            return False
        self._buffer += data
        return True

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._buffer = b""


class ControlClient:
    """The daemon's end."""

    def __init__(self, path: Path, *, timeout_s: float, what: str) -> None:
        """Connect to a shim or pager that may just be starting; `what` names it in errors."""
        self._what = what
        self._buffer = b""
        self._socket = _connect(path, timeout_s, what)

    def ask(self, message: Mapping[str, Any], *, timeout_s: float) -> Message:
        """Send a message and return its answer.

        Raises `ExecutionError` when the other end is gone, silent for `timeout_s` seconds, or answers
        with an `error`.
        """
        try:
            self._socket.sendall(_encode(message))
        except OSError as error:
            raise ExecutionError(f"{self._what} is gone", code="control-lost") from error
        return self.listen(timeout_s=timeout_s)

    def listen(self, *, timeout_s: float) -> Message:
        """Return the next message; errors as in `ask`."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise ExecutionError(
                    f"{self._what} did not answer within {timeout_s:g} s", code="control-timeout"
                ) from error
            except OSError as error:
                raise ExecutionError(f"{self._what} is gone", code="control-lost") from error
            if not data:
                raise ExecutionError(f"{self._what} is gone", code="control-lost")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer = _decode(line)
        if "error" in answer:
            raise ExecutionError(str(answer["error"]), code=str(answer.get("code", "shim-failed")))
        return answer

    @property
    def gone(self) -> bool:
        """Say whether the other end has hung up; nothing it said before that is lost."""
        if self._socket.fileno() < 0:
            return True
        look = select.poll()
        look.register(self._socket, select.POLLRDHUP)  # a hang-up and an error are told anyway (poll(2))
        return bool(look.poll(0))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()


def _connect(path: Path, timeout_s: float, what: str) -> socket.socket:
    """Return a connection; one that is there but takes no call (it stands still) is late, not absent."""
    deadline = time.monotonic() + timeout_s
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError, BlockingIOError) as error:
            connection.close()
            if time.monotonic() > deadline:
                there = isinstance(error, BlockingIOError)  # as many call it already as may wait
                said = f"did not answer within {timeout_s:g} s" if there else "did not come up"
                code = "control-timeout" if there else "control-absent"
                raise ExecutionError(f"{what} {said}", code=code) from error
            time.sleep(0.005)
        else:
            connection.setblocking(True)
            return connection


def _encode(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _decode(line: bytes) -> Message:
    value = json.loads(line)
    return value if isinstance(value, dict) else {"error": "not an object"}
