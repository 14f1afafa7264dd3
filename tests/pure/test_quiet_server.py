"""The quiet server serves, and ends at once when told to by another thread."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from migrator.peers.quiet_server import QuietServer

LONG_S = 20.0


@pytest.fixture
def server(tmp_path: Path) -> QuietServer:
    """A server on a socket in a directory."""
    app = FastAPI()

    @app.get("/")
    def hello() -> str:
        return "hello"

    return QuietServer(uvicorn.Config(app, uds=str(tmp_path / "socket"), log_level="warning"))


def test_it_serves_until_it_is_told_to_exit(server: QuietServer, tmp_path: Path) -> None:
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "socket"), retries=5)) as client:
        while not server.started:
            assert thread.is_alive()
        answer = client.get("http://host/")
    assert answer.json() == "hello"
    assert "date" not in answer.headers
    server.should_exit = True
    thread.join(LONG_S)
    assert not thread.is_alive()


def test_told_before_it_has_begun_it_does_not_serve(server: QuietServer) -> None:
    server.should_exit = True
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    thread.join(LONG_S)
    assert not thread.is_alive()
