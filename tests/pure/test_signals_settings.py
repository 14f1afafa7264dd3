"""Section [signals]."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from watchdog.signals.readers import readers_of_host
from watchdog.signals.settings import SignalSettings


def test_the_defaults_read_everything() -> None:
    names = [reader.name for reader in readers_of_host(SignalSettings())]
    machine = ["smart", "disks", "edac", "mce", "hwmon", "thermal", "pcie", "power", "ups", "ipmi"]
    assert names == [*machine, "arrays", "lvm", "zfs", "mounts", "kernel"]


def test_what_is_off_has_no_reader() -> None:
    off = {name: False for name, field in SignalSettings.model_fields.items() if field.annotation is bool}
    assert readers_of_host(SignalSettings.model_validate(off)) == ()


@pytest.mark.parametrize("wrong", [{"smart_poll": 5}, {"smart_poll_s": 0}, {"drives": [{"device": "/dev/bus/0"}]}])
def test_what_is_misspelt_or_impossible_is_an_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SignalSettings.model_validate(wrong)


def test_poll_intervals_reach_the_readers() -> None:
    polls = {name: 7 for name in SignalSettings.model_fields if name.endswith("poll_s")}
    assert {reader.poll_s for reader in readers_of_host(SignalSettings.model_validate(polls))} == {7}
