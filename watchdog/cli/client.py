"""Ask the daemon: HTTP over its Unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from migrator.errors import LifeboatError, PrerequisiteError
from watchdog.paths import ADMIN_SOCKET

TIMEOUT_S = 60.0


class DaemonError(LifeboatError):
    """What the daemon said no with; the exit status is the daemon's own."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(str(told.get("error")), code=str(told.get("code", "")), hint=str(told.get("hint", "")))
        self.exit_status = int(told.get("status", 1))


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except PermissionError as error:
            raise PrerequisiteError("only root may talk to lifeboatd", code="not-root", hint="use sudo") from error
        except OSError as error:
            raise PrerequisiteError(
                "lifeboatd is not running", code="no-daemon", hint="systemctl start lifeboatd"
            ) from error


def ask(method: str, path: str, body: object = None, *, socket_path: Path = ADMIN_SOCKET) -> Any:
    """Ask the daemon something and return its answer; raises `LifeboatError` with its reason."""
    connection = _Connection(socket_path, TIMEOUT_S)
    try:
        response = _request(connection, method, path, body)
        return json.loads(response.read())
    finally:
        connection.close()


def follow(path: str, body: object, *, socket_path: Path = ADMIN_SOCKET) -> Iterator[dict[str, Any]]:
    """Begin a job and return its lines as they come; raises `DaemonError` when the daemon stops before the last."""
    connection = _Connection(socket_path, None)
    ended = False
    try:
        response = _request(connection, "POST", path, body)
        with suppress(OSError, http.client.HTTPException):
            while text := response.readline():
                line = json.loads(text)
                ended = bool(line.get("ended"))
                yield line
    finally:
        connection.close()
    if not ended:
        raise DaemonError(
            {
                "error": "lifeboatd stopped before this was done; what is under way is finished, or given back, "
                "when it runs again",
                "code": "daemon-gone",
                "hint": "systemctl start lifeboatd; lifeboat status; lifeboat history",
                "status": 1,
            }
        )


def lines(path: str, *, socket_path: Path = ADMIN_SOCKET) -> Iterator[str]:
    """Return the lines of a long answer as they come."""
    connection = _Connection(socket_path, TIMEOUT_S)
    try:
        response = _request(connection, "GET", path, None)
        while line := response.readline():
            yield line.decode().rstrip("\n")
    finally:
        connection.close()


def _request(connection: _Connection, method: str, path: str, body: object) -> http.client.HTTPResponse:
    data = None if body is None else json.dumps(body)
    connection.request(method, path, data, {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status >= 400:
        told = json.loads(response.read() or b"{}")
        raise DaemonError(told if "error" in told else {"error": str(told), "code": "daemon"})
    return response
