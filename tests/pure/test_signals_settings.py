"""Section [signals]."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from watchdog.signals.monitor import readers_of_host
from watchdog.signals.settings import SignalSettings


def test_the_defaults_read_everything() -> None:
    assert [reader.name for reader in readers_of_host(SignalSettings())] == ["smart", "edac", "hwmon"]


def test_what_is_off_has_no_reader() -> None:
    assert readers_of_host(SignalSettings(smart=False, edac=False, hwmon=False)) == ()


@pytest.mark.parametrize("wrong", [{"smart_poll": 5}, {"smart_poll_s": 0}, {"drives": [{"device": "/dev/bus/0"}]}])
def test_what_is_misspelt_or_impossible_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SignalSettings.model_validate(wrong)


def test_poll_intervals_reach_the_readers() -> None:
    readers = readers_of_host(SignalSettings(smart_poll_s=7, edac_poll_s=8, hwmon_poll_s=9))
    assert [reader.poll_s for reader in readers] == [7, 8, 9]
