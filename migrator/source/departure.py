"""What all migrations away from a host share, and the place of each among them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from migrator.protocol.journal import Journal
from migrator.registry.records import NoRecords, Registry
from migrator.settings import MigratorSettings
from migrator.source.company import Companies
from migrator.source.turns import Turns


@dataclass(frozen=True)
class Departure:
    """What all migrations away from this host share."""

    host: str
    settings: MigratorSettings
    directory: Path  # /etc/lifeboat
    state: Path  # /var/lib/lifeboat
    runtime: Path  # /run/lifeboat
    journal: Journal
    turns: Turns = field(default_factory=Turns)
    registry: Registry = field(default_factory=NoRecords)
    companies: Companies = field(default_factory=Companies)


@dataclass(frozen=True)
class Place:
    """A migration's place among others: the lowest order goes first; `stopped` gives it up before the commit.

    `drill` marks it as one that the target will give back. `waiting_since_ns` returns, by a tree's name, when the
    last complete copy of it began that may wait there (Unix time), None where none does, or that is not known.
    """

    order: float = 0.0
    drill: bool = False
    stopped: threading.Event = field(default_factory=threading.Event)
    waiting_since_ns: Callable[[str], int | None] = lambda _: None
