"""Every signal that a policy may name; the tables stand in `catalog_storage` and `catalog_board`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from watchdog.signals import catalog_board, catalog_storage
from watchdog.signals.model import SignalKind, SignalType


def _entries() -> dict[str, SignalType]:
    return {
        name: SignalType(name, SignalKind(kind), unit, device, description, source)
        for device, source, table in (*catalog_storage.TABLES, *catalog_board.TABLES)
        for name, (kind, unit, description) in table.items()
    }


CATALOG: Mapping[str, SignalType] = MappingProxyType(_entries())
