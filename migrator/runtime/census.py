"""All containers of this host in one question to podman, which asks for no container's lock for long."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrator.choice.labels import wishes
from migrator.command import run

TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Census:
    """What other containers must not collide with."""

    names: tuple[str, ...] = ()  # running or not
    ports: tuple[int, ...] = ()  # published
    apart: tuple[str, ...] = ()  # groups of `lifeboat.apart` of those that run


def take_census() -> Census:
    """Ask podman for all containers."""
    result = run(["podman", "ps", "--all", "--format", "json"], timeout_s=TIMEOUT_S)
    return census_of(json.loads(result.output or "null") or [])


def census_of(listed: Sequence[Mapping[str, Any]]) -> Census:
    """Read the answer of `podman ps --format json`; a published range is one entry with its length."""
    running = [item for item in listed if item.get("State") == "running"]
    ports = {
        int(port["host_port"]) + offset
        for item in running
        for port in item.get("Ports") or ()
        for offset in range(int(port.get("range", 1)))
    }
    groups = {wishes(item.get("Labels") or {}).apart for item in running} - {""}
    return Census(
        names=tuple(sorted(name for item in listed for name in item["Names"])),
        ports=tuple(sorted(ports)),
        apart=tuple(sorted(groups)),
    )
