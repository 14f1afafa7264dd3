"""Asks a host's lifeboatd what `lifeboat` would, from outside and at once: a host that starts Python for each look
has less time for what is looked at."""

from __future__ import annotations

from http.client import HTTPException
from typing import Any

from migrator.errors import CommandError, LifeboatError
from tests.lab.host import Host
from watchdog.cli import client
from watchdog.paths import ADMIN_SOCKET


def ask_daemon(host: Host, path: str) -> Any:
    """Return what a host's daemon answers; raises as `Host.run` does of a `lifeboat` that fails or takes too long.

    A host that is down is an `ExecutionError`.
    """
    place = host.path(str(ADMIN_SOCKET))
    try:
        return client.ask("GET", path, socket_path=place)
    except TimeoutError as error:
        raise CommandError(
            f"on {host.name}: lifeboatd does not answer {path}", code="command-timeout", temporary=True
        ) from error
    except (LifeboatError, OSError, HTTPException, ValueError) as error:
        raise CommandError(f"on {host.name}: {error or type(error).__name__}", code="command-failed") from error


def status(host: Host) -> dict[str, Any]:
    """Return what `lifeboat status --json` tells."""
    found: dict[str, Any] = ask_daemon(host, "/v1/status")
    return found


def history(host: Host) -> list[dict[str, Any]]:
    """Return what `lifeboat history --json` tells, newest first."""
    found: list[dict[str, Any]] = ask_daemon(host, "/v1/history?limit=50")
    return found


def situations(host: Host) -> list[dict[str, Any]]:
    """Return what `lifeboat recover --json` tells."""
    found: list[dict[str, Any]] = ask_daemon(host, "/v1/recover")
    return found
