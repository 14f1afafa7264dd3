"""The admin API: what `lifeboat` asks of the daemon, over a Unix socket that only root can open.

JSON in, JSON out; jobs (migrations, evacuations) answer with JSON lines as they go.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from migrator.errors import ExecutionError, LifeboatError, PrerequisiteError, told_of
from migrator.later import Later
from migrator.model import ContainerFacts, Method, Value
from migrator.peers.quiet_server import QuietServer
from migrator.protocol.journal import Side
from migrator.terms import Wish
from migrator.version import own_version
from watchdog.admin_policy import add_policy, policy_status
from watchdog.admin_signals import effects, signals_shown
from watchdog.daemon.order import Cause, Order

if TYPE_CHECKING:
    import prometheus_client as prometheus

    from watchdog.daemon.daemon import Daemon
    from watchdog.daemon.jobs import Job
else:
    prometheus = Later("prometheus_client")

START_LIMIT_S = 10.0
SOCKET_MODE = 0o600


class MigrateRequest(Value):
    """Move one container."""

    container: str
    target: str
    method: Method | None = None


class RecoverRequest(Value):
    """What a human decided about a migration that did not end by itself."""

    migration: str
    wish: Wish
    dead: Side | None = None  # which end a human declares dead


class ProbeRequest(Value):
    """Move a throwaway container to one host, or to each."""

    target: str | None = None


class EvacuateRequest(Value):
    """Empty the host."""

    method: Method | None = None


class DrillRequest(Value):
    """A fire drill of the canaries, or of all containers."""

    everything: bool = False


def build_admin(daemon: Daemon) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="lifeboat admin API", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(LifeboatError)
    def tell_error(_: Request, error: LifeboatError) -> JSONResponse:
        return JSONResponse(told_of(error), status_code=409)

    _add_views(app, daemon)
    _add_deeds(app, daemon)
    add_policy(app, daemon)
    return app


def _add_views(app: FastAPI, daemon: Daemon) -> None:
    @app.get("/v1/status")
    def status() -> dict[str, Any]:
        return _status(daemon)

    @app.get("/v1/signals")
    def signals() -> list[dict[str, Any]]:
        history = daemon.readings.history()
        return signals_shown(history, time.time(), effects(daemon, history))

    @app.get("/v1/plan")
    def plan(method: Method | None = None, everything: bool = False) -> dict[str, Any]:
        return daemon.plan(method, everything=everything).model_dump(mode="json")

    @app.get("/v1/check")
    def check(container: str | None = None) -> list[dict[str, Any]]:
        return _check(daemon, container)

    @app.get("/v1/rehearsal")
    def rehearsal(container: str, target: str, method: Method | None = None) -> list[dict[str, Any]]:
        found = daemon.moving().rehearse(container, target, method)
        return [rejection.model_dump(mode="json") for rejection in found]

    @app.get("/v1/history")
    def history(limit: int = 50) -> list[dict[str, Any]]:
        return [outcome.model_dump(mode="json") for outcome in daemon.moving().history(limit)]

    @app.get("/v1/history/{migration}")
    def show(migration: str) -> dict[str, Any]:
        return _show(daemon, migration)

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(_metrics(daemon))


def _add_deeds(app: FastAPI, daemon: Daemon) -> None:
    @app.post("/v1/migrate")
    def migrate(request: MigrateRequest) -> StreamingResponse:
        return _stream(daemon.migrate(request.container, request.target, request.method))

    @app.post("/v1/probe")
    def probe(request: ProbeRequest) -> StreamingResponse:
        return _stream(daemon.probe(request.target))

    @app.post("/v1/evacuate")
    def evacuate(request: EvacuateRequest) -> StreamingResponse:
        return _stream(daemon.evacuate(Order(cause=Cause.ADMIN, method=request.method)))

    @app.post("/v1/drill")
    def drill(request: DrillRequest) -> StreamingResponse:
        return _stream(daemon.begin_drill(everything=request.everything))

    @app.post("/v1/cancel")
    def cancel() -> StreamingResponse:
        return _stream(daemon.cancel())

    @app.get("/v1/recover")
    def situations() -> list[dict[str, Any]]:
        return [item.model_dump(mode="json") for item in daemon.moving().settlement.situations()]

    @app.post("/v1/recover")
    def recover(request: RecoverRequest) -> dict[str, Any]:
        settlement = daemon.moving().settlement
        return settlement.settle(request.migration, request.wish, dead=request.dead).model_dump(mode="json")

    @app.post("/v1/flags/{flag}")
    def set_flag(flag: str) -> dict[str, Any]:
        changes: dict[str, dict[str, object]] = {
            "cordon": {"cordoned": True},
            "uncordon": {"cordoned": False},
            "pause": {"paused": True},
            "resume": {"paused": False},
            "calm": {"storm": "", "storm_reset_at": time.time()},
        }
        if flag not in changes:
            raise PrerequisiteError(f"no such flag: {flag}", code="no-such-flag")
        changed = daemon.flags.change(**changes[flag])
        daemon.flags.file.check()
        return changed.model_dump(mode="json")


class AdminServer:
    """The admin API's server, in a thread of its own."""

    def __init__(self, daemon: Daemon, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        path.unlink(missing_ok=True)
        self._path = path
        self._jobs = daemon.jobs
        config = uvicorn.Config(build_admin(daemon), uds=str(path), log_level="warning", access_log=False)
        self._server = QuietServer(config)
        self._thread = threading.Thread(target=self._server.run, name="admin-api", daemon=True)

    def start(self) -> None:
        """Begin to serve; returns when the socket is open, to root only."""
        self._thread.start()
        deadline = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise ExecutionError(f"the admin API cannot listen on {self._path}", code="admin-socket")
            time.sleep(0.01)
        self._path.chmod(SOCKET_MODE)

    def stop(self) -> None:
        """Stop serving, also those who follow a job."""
        self._jobs.leave()
        self._server.should_exit = True
        self._thread.join(5)


def _stream(job: Job) -> StreamingResponse:
    def lines() -> Iterator[bytes]:
        for line in job.follow():
            yield json.dumps(line).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _status(daemon: Daemon) -> dict[str, Any]:
    flags = daemon.flags.flags
    return {
        "host": daemon.host,
        "version": own_version(),
        "verdict": daemon.assessment.verdict,
        "state": flags.state,
        "sentence": daemon.sentence,
        "cordoned": flags.cordoned,
        "paused": flags.paused,
        "storm": flags.storm,
        "blind": [f"{item.device.name}: {item.signal}: {item.reason}" for item in daemon.assessment.blind],
        **policy_status(daemon),
        "jobs": [{"id": job.id, "what": job.what} for job in daemon.jobs.running()],
        "staged": [item.model_dump() for item in daemon.engine.waiting] if daemon.engine else [],
        "registry": daemon.engine.registry().model_dump(mode="json") if daemon.engine else None,
        "peers": [peer.model_dump() for peer in daemon.members.peers()] if daemon.members.joined else [],
    }


def names_of(container: ContainerFacts) -> tuple[str, ...]:
    """Return what an admin may call a container: its own names, and those of its pod."""
    pod = () if container.pod is None else (container.pod.name, container.pod.id)
    return (container.name, container.id, *pod)


def _check(daemon: Daemon, wanted: str | None) -> list[dict[str, Any]]:
    engine = daemon.moving()
    found = None
    if wanted is not None:
        found = tuple(item for item in engine.containers() if wanted in names_of(item))
        if not found:
            raise PrerequisiteError(f"no running container {wanted!r}", code="no-such-container")
    return [verdict.model_dump(mode="json") for verdict in engine.examine(found)]


def _show(daemon: Daemon, migration: str) -> dict[str, Any]:
    engine = daemon.moving()
    events = engine.events(migration)
    if not events:
        raise PrerequisiteError(
            f"there is no migration {migration!r} in the journal", code="no-such-migration", hint="lifeboat history"
        )
    outcome = next((item for item in engine.history(1000) if item.migration == migration), None)
    return {
        "outcome": outcome.model_dump(mode="json") if outcome else None,
        "events": [event.model_dump(mode="json", exclude_none=True) for event in events],
    }


def _metrics(daemon: Daemon) -> str:
    registry = prometheus.CollectorRegistry()
    verdict = prometheus.Gauge("lifeboat_verdict", "0 healthy, 1 suspect, 2 failing", registry=registry)
    verdict.set(daemon.assessment.verdict.severity)
    prometheus.Gauge("lifeboat_cordoned", "1 when cordoned", registry=registry).set(daemon.flags.flags.cordoned)
    prometheus.Gauge("lifeboat_unreadable_signals", "signals that cannot be read", registry=registry).set(
        len(daemon.assessment.blind)
    )
    value = prometheus.Gauge("lifeboat_signal", "latest value of a signal", ["signal", "device"], registry=registry)
    for reading in daemon.readings.history().latest():
        if reading.value is not None:
            value.labels(reading.signal, reading.device.identity).set(reading.value)
    return prometheus.generate_latest(registry).decode()
