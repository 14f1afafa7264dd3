"""The peer API: FastAPI behind mutual TLS. Whoever has no certificate of the cluster is not even heard."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError
from migrator.model import HostFacts

START_LIMIT_S = 10.0


def build_app(facts: Callable[[], HostFacts], *routers: APIRouter) -> FastAPI:
    """Return the application: facts about this host, and the routes of its services."""
    app = FastAPI(title="lifeboat peer API", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/v1/facts")
    def tell_facts() -> HostFacts:
        return facts()

    @app.exception_handler(LifeboatError)
    def tell_error(_: Request, error: LifeboatError) -> JSONResponse:
        return error_response(error)

    for router in routers:
        app.include_router(router)
    return app


def error_response(error: LifeboatError) -> JSONResponse:
    """Return an error as JSON: `kind`, `code`, `message`, `hint`, `temporary`."""
    refused = isinstance(error, PrerequisiteError)
    told = {
        "kind": "prerequisite" if refused else "execution",
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "temporary": error.temporary,
    }
    return JSONResponse(told, status_code=409 if refused else 500)


class PeerServer:
    """The peer API's server, in a thread of its own."""

    def __init__(self, app: FastAPI, pki: Path, address: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=address,
            port=port,
            log_level="warning",
            access_log=False,
            ssl_certfile=str(pki / "host.crt"),
            ssl_keyfile=str(pki / "host.key"),
            ssl_ca_certs=str(pki / "ca.crt"),
            ssl_cert_reqs=ssl.CERT_REQUIRED,
            timeout_keep_alive=120,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="peer-api", daemon=True)

    def start(self) -> None:
        """Begin to serve; returns when the port is open."""
        self._thread.start()
        deadline = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise ExecutionError(
                    f"the peer API cannot listen on port {self._server.config.port}",
                    code="peer-port",
                    hint="is another program, or another lifeboatd, listening there?",
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(10)
