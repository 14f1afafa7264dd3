"""Containers as people run them, in a lab: started, asked, moved, and asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from migrator.command import CommandResult
from migrator.errors import ExecutionError
from tests.lab.host import Host
from tests.lab.image import BASE
from tests.lab.lab import Lab

KEEPER = Path(__file__).with_name("keeper.py").read_text()
READY_S, MOVE_S, WAIT_S = 30.0, 180.0, 30.0


FAILING_RUNC = """\
#!/bin/sh
case " $* " in *" restore "*" --lazy-pages "*) echo 'Error (criu/lab.c:1): made to fail' >&2; exit 1 ;; esac
exec /usr/bin/runc "$@"
"""
"""A runc that cannot restore lazily, for /usr/local/bin."""


def start(host: Host, name: str, options: Sequence[str], features: Sequence[str]) -> None:
    """Start a container of the keeper and wait until it holds all features."""
    keeper = ["python3", "-c", KEEPER, "keep", *features]
    host.run(["podman", "run", "--detach", "--name", name, *options, BASE.name, *keeper])
    deadline = time.monotonic() + READY_S
    while (said := ask(host, name)).get("error"):
        if time.monotonic() > deadline:
            raise ExecutionError(f"{name} does not come up: {said['error']}", code="lab-timeout")
        time.sleep(0.1)


def ask(host: Host, name: str) -> dict[str, str]:
    """Return feature -> "ok" or what is wrong; {"error": ...} when nobody answers."""
    asked = host.run(["podman", "exec", name, "python3", "-c", KEEPER, "ask"], check=False)
    if asked.status != 0:
        return {"error": asked.errors[-500:]}
    answer: dict[str, str] = json.loads(asked.output)
    return answer


def wait(what: str, happened: Callable[[], bool]) -> None:
    """Wait until something happened."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise ExecutionError(f"waited {WAIT_S:g} s for {what}", code="lab-timeout")
        time.sleep(0.1)


def migrate(host: Host, name: str, target: str, *options: str) -> CommandResult:
    """Run `lifeboat migrate`; its exit status is the caller's to judge."""
    argv = ["lifeboat", "migrate", name, "--to", target, *options]
    return host.run(argv, timeout_s=MOVE_S, check=False)


def check(lab: Lab, name: str) -> dict[str, Any]:
    """Return what `lifeboat check` on alpha says of one container."""
    said = lab.host("alpha").run(["lifeboat", "check", name, "--json"], check=False)
    rows: list[dict[str, Any]] = json.loads(said.output)
    return rows[0]


def inside(host: Host, name: str, *argv: str) -> str:
    """Run a program in a container and return what it says."""
    return host.run(["podman", "exec", name, *argv]).output


def shell(host: Host, script: str) -> str:
    """Run a shell script in a host and return what it says."""
    return host.run(["sh", "-c", script]).output


def inspect(host: Host, name: str) -> dict[str, Any]:
    """Return podman's description of a container."""
    described: dict[str, Any] = json.loads(host.run(["podman", "container", "inspect", name]).output)[0]
    return described
