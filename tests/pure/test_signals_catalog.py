"""The catalogue holds together."""

from __future__ import annotations

import pytest

from watchdog.signals import catalog_board, catalog_storage
from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind, SignalType

UNITS = {"count", "percent", "celsius", "rpm", "volt", "watt", "bytes", "bool", "hours", "seconds"}


@pytest.mark.parametrize("signal", CATALOG.values(), ids=CATALOG)
def test_an_entry_is_complete(signal: SignalType) -> None:
    assert CATALOG[signal.name] is signal
    assert signal.unit in UNITS
    assert (signal.unit == "bool") == (signal.kind is SignalKind.FLAG)
    assert signal.description
    assert bool(signal.source) == (signal.name != "reader.blind")


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOG["a.b"] = next(iter(CATALOG.values()))  # type: ignore[index]


def test_no_signal_stands_in_two_tables() -> None:
    tables = (*catalog_storage.TABLES, *catalog_board.TABLES)
    assert sum(len(table) for _, _, table in tables) == len(CATALOG)
