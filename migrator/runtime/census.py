"""All containers of this host, as one answer of `podman ps` tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrator.choice.labels import wishes
from migrator.model import ContainerFacts


@dataclass(frozen=True)
class Census:
    """What other containers must not collide with."""

    names: tuple[str, ...] = ()  # running or not
    ports: tuple[int, ...] = ()  # published
    apart: tuple[str, ...] = ()  # groups of `lifeboat.apart` of those that run


def census_of(listed: Sequence[Mapping[str, Any]], moving: Sequence[ContainerFacts] = ()) -> Census:
    """Read the answer of `podman ps --format json`; a published range is one entry with its length.

    `moving` are containers that podman was not asked about.
    """
    running = [item for item in listed if item.get("State") == "running"]
    ports = {
        int(port["host_port"]) + offset
        for item in running
        for port in item.get("Ports") or ()
        for offset in range(int(port.get("range", 1)))
    }
    names = {name for item in listed for name in item["Names"]}
    groups = {wishes(item.get("Labels") or {}).apart for item in running}
    groups |= {wishes(item.labels).apart for item in moving}
    return Census(
        names=tuple(sorted(names | {item.name for item in moving})),
        ports=tuple(sorted(ports | {port for item in moving for port in item.published_ports})),
        apart=tuple(sorted(groups - {""})),
    )
