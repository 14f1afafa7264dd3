"""The catalogue holds together."""

from __future__ import annotations

import pytest

from watchdog.signals.catalog import CATALOG
from watchdog.signals.model import SignalKind, SignalType

UNITS = {"count", "percent", "celsius", "rpm", "volt", "bool", "hours", "seconds"}


@pytest.mark.parametrize("signal", CATALOG.values(), ids=CATALOG)
def test_an_entry_is_complete(signal: SignalType) -> None:
    assert CATALOG[signal.name] is signal
    assert signal.unit in UNITS
    assert (signal.unit == "bool") == (signal.kind is SignalKind.FLAG)
    assert signal.description


def test_the_catalogue_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CATALOG["a.b"] = next(iter(CATALOG.values()))  # type: ignore[index]
