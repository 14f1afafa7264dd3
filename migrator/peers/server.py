"""The peer API: FastAPI behind mutual TLS. Whoever has no certificate of the cluster is not even heard.

TLS lets in who holds a certificate; at every request the roll is asked whether it still counts, and what its
holder is: a host of the cluster, one whose joining we have not heard of yet, or the holder of a token.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from migrator.errors import ExecutionError, LifeboatError, NotAllowedError, PrerequisiteError
from migrator.model import HostFacts
from migrator.peers.identity import Identity, RollFile, check_certificate, identity
from migrator.peers.limits import Application, Limits, Receive, Scope, Send
from migrator.peers.quiet_server import QuietServer
from migrator.peers.tls import OWN, server_context

START_LIMIT_S = 10.0
STOP_LIMIT_S = 3.0  # for what is being answered; all that matters is in the journal
HANDSHAKE_S = 10.0
SHUTDOWN_S = 0.5  # callers keep connections, and need not answer when we hang up
REQUEST_WAIT_S = 15.0  # for the first byte of the first request, and from the first byte of any to its last header
MOST_CONNECTIONS = 1024

_log = logging.getLogger(__name__)


def caller(request: Request) -> Identity:
    """Return who asks; raises `NotAllowedError` where no certificate was seen."""
    found: Identity | None = request.scope.get("identity")
    if found is None:
        raise NotAllowedError("who asks is not known", code="no-certificate")
    return found


def member(request: Request) -> str:
    """Return the host that asks; raises `NotAllowedError` for whoever is no host of this cluster."""
    who = caller(request)
    if not request.scope.get("member"):
        raise NotAllowedError(f"{who.name!r} is no host of this cluster", code="no-member")
    return who.name


Member = Annotated[str, Depends(member)]
"""The name of the host that asks, in a route that only hosts may call."""


def build_app(facts: Callable[[], HostFacts], *routers: APIRouter, newcomers: Sequence[APIRouter] = ()) -> FastAPI:
    """Return the application: facts about this host, and the routes of its services.

    `newcomers` may be called by those who are no hosts yet; each of their routes looks who it is.
    """
    app = FastAPI(title="lifeboat peer API", version="1", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/v1/facts", dependencies=[Depends(member)])
    def tell_facts() -> HostFacts:
        return facts()

    app.add_exception_handler(LifeboatError, _tell_error)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    for router in routers:
        app.include_router(router, dependencies=[Depends(member)])
    for router in newcomers:
        app.include_router(router)
    return app


def error_response(error: LifeboatError) -> JSONResponse:
    """Return an error as JSON: `kind`, `code`, `message`, `hint`, `temporary`.

    403: who asks may not; 409: it cannot be done, nothing was changed; 424: a step that was begun has failed.
    """
    refused = isinstance(error, PrerequisiteError)
    told = {
        "kind": "prerequisite" if refused else "execution",
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "temporary": error.temporary,
    }
    status = 403 if isinstance(error, NotAllowedError) else 409 if refused else 424
    return JSONResponse(told, status_code=status)


def _tell_error(_: Request, error: Exception) -> JSONResponse:
    return error_response(cast(LifeboatError, error))


def _tell_invalid(_: Request, error: Exception) -> JSONResponse:
    first = cast(RequestValidationError, error).errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    told = {"kind": "prerequisite", "code": "bad-request", "message": f"{where}: {first['msg']}"[:1000]}
    return JSONResponse(told, status_code=422)


class PeerProtocol(H11Protocol):
    """HTTP from one caller, whose certificate TLS has verified."""

    roll: RollFile  # set in a subclass for each server, for uvicorn makes these by itself
    _patience: asyncio.TimerHandle | None = None
    _identity: Identity | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Read the certificate once; it is looked up in the roll at every request."""
        super().connection_made(transport)
        link: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        try:
            self._identity = identity(link.getpeercert() if link else None)
        except NotAllowedError:
            transport.abort()
            return
        self.app = cast(Any, self._identified(cast(Application, self.app)))
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a request whose headers do not come to an end is not waited for."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait_for_request()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(REQUEST_WAIT_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _identified(self, app: Application) -> Application:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            known, who = self.roll.known, self._identity
            try:
                assert who is not None  # noqa: S101  connection_made hangs up without one
                check_certificate(who, known)
            except NotAllowedError as error:
                _log.warning("a request was turned away: %s", error)
                await error_response(error)(scope, cast(Any, receive), cast(Any, send))
                self.transport.close()
                return
            scope["identity"], scope["member"] = who, who.name in known.hosts
            await app(scope, receive, send)

        return answer


class PeerLoop(asyncio.SelectorEventLoop):
    """The server's event loop: a caller that does not finish its handshake is dropped soon."""

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """Listen as uvicorn asks, with less patience than asyncio's minute."""
        options |= {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": SHUTDOWN_S}
        return await super().create_server(*args, **options)


class PeerServer:
    """The peer API's server, in a thread of its own."""

    def __init__(self, app: FastAPI, pki: Path, address: str, port: int) -> None:
        self._pki = pki
        protocol = type("Protocol", (PeerProtocol,), {"roll": RollFile(pki.parent)})
        config = uvicorn.Config(
            cast(Any, Limits(cast(Application, app))),
            host=address,
            port=port,
            http=protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=120,
        )
        config.load()
        self._context = server_context(pki)
        config.ssl = self._context
        self._server = QuietServer(config)
        self._thread = threading.Thread(target=self._serve, name="peer-api", daemon=True)

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

    def renew(self) -> None:
        """Show the host's new certificate from now on."""
        self._context.load_cert_chain(self._pki / OWN)

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(STOP_LIMIT_S)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=PeerLoop) as runner:
            try:
                runner.run(self._server.serve())
            except SystemExit:  # uvicorn's way to say that it cannot listen; `start` notices
                _log.error("the peer API does not run")
