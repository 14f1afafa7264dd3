"""What `lifeboat signals` shows of each signal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from watchdog.admin_signals import signals_shown
from watchdog.cli import main as command
from watchdog.cli import show, watch
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.places import Affected
from watchdog.signals.series import ReadingHistory

DISK = Device(DeviceKind.DISK, "disk:1", "/dev/sda", {"type": "hdd"})
DAY_S = 86400.0
NOW = 10 * DAY_S


def shown(*readings: tuple[float, float | None]) -> dict[str, Any]:
    history = ReadingHistory.of(Reading("smart.pending_sectors", DISK, at, value, "why") for at, value in readings)
    (found,) = signals_shown(history, NOW, {})
    return found


def test_a_value_comes_with_its_age_source_unit_and_trend() -> None:
    found = shown((NOW - 7200, 3.0), (NOW - 3600, 5.0), (NOW - 60, 9.0))
    assert (found["value"], found["age_s"], found["source"], found["unit"]) == (9.0, 60.0, "smart", "count")
    assert found["trend"] == {"change": 6.0, "over_s": 7200.0}


def test_a_trend_looks_back_one_day_and_needs_two_values() -> None:
    assert shown((NOW - 3 * DAY_S, 3.0), (NOW - 60, 9.0))["trend"] is None
    assert shown((NOW - 60, 9.0))["trend"] is None


def test_what_cannot_be_read_tells_for_how_long_and_what_it_was() -> None:
    found = shown((NOW - 7200, 3.0), (NOW - 3600, None), (NOW - 60, None))
    assert (found["value"], found["last_value"], found["blind_for_s"], found["reason"]) == (
        None,
        3.0,
        7200.0,
        "why",
    )
    never = shown((NOW - 3600, None))
    assert (never["last_value"], never["blind_for_s"]) == (None, 3600.0)


def test_the_table_says_it_in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    history = ReadingHistory.of(
        [
            Reading("smart.pending_sectors", DISK, NOW - 7200, 3.0),
            Reading("smart.pending_sectors", DISK, NOW - 60, 9.0),
            Reading("smart.temperature", DISK, NOW - 7200, 30.0),
            Reading("smart.temperature", DISK, NOW - 60, None, "no answer"),
        ]
    )
    monkeypatch.setattr(watch, "ask", lambda *_: json.loads(json.dumps(signals_shown(history, NOW, {}))))
    assert command.main(["signals"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "/dev/sda smart.pending_sectors 9 60 s +6 in 2 h smart ?" in said
    assert "unreadable for 2 h, was 30" in said
    assert "1 of 2 signals cannot be read" in said


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"), (3 * DAY_S, "3 d")]
)
def test_spans_of_time_are_for_people(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("lost", "told", "words"),
    [
        (Affected(host=True), "host", "host"),
        (Affected(host=False, containers=frozenset({"web", "db"})), ["db", "web"], "db, web"),
        (Affected(host=False), [], "nothing"),
        (None, None, "?"),
    ],
)
def test_what_would_be_lost_with_a_device_stands_beside_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lost: Affected | None,
    told: object,
    words: str,
) -> None:
    history = ReadingHistory.of([Reading("smart.pending_sectors", DISK, NOW - 60, 9.0)])
    found = signals_shown(history, NOW, {} if lost is None else {DISK.identity: lost})
    assert found[0]["affects"] == told
    monkeypatch.setattr(watch, "ask", lambda *_: found)
    assert command.main(["signals"]) == 0
    assert f"smart {words}" in " ".join(capsys.readouterr().out.split())
