"""Every shipped rule fires on a device that has the fault, and none on devices that are well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.recorded.faults import FAULTS, HEALTHY, Story
from watchdog.offline.recorded import recognised
from watchdog.offline.trial import Finding, trials
from watchdog.policy.evaluate import evaluate
from watchdog.policy.load import load_files
from watchdog.policy.model import Mode
from watchdog.signals.kernel_patterns import SHIPPED, load_patterns
from watchdog.signals.model import Reading
from watchdog.signals.series import ReadingHistory

RULES = load_files(sorted((Path(__file__).parents[2] / "policies").glob("*.toml")))
PATTERNS = load_patterns(SHIPPED, Path("/nonexistent"))
START = 1.7e9


def told(story: Story) -> list[Reading]:
    """Return the readings of a story, each text at its time."""
    at, found = START, list[Reading]()
    for gap, text in story:
        at += gap
        recording = recognised("recorded", text, PATTERNS, at)
        assert recording.problem == ""
        newest = max(item.at for item in recording.readings)
        found += [replace(item, at=item.at + at - newest) for item in recording.readings]
    return found


def test_every_rule_has_its_fault() -> None:
    assert set(FAULTS) == {rule.id for rule in RULES.rules}


@pytest.mark.parametrize("name", FAULTS)
def test_a_rule_fires_on_its_fault(name: str) -> None:
    readings = told(FAULTS[name])
    now = readings[-1].at
    found = evaluate(RULES, ReadingHistory.of(readings), now)
    fired = {state.rule.id: state for state in found.fired}
    assert name in fired, sorted(fired)
    if fired[name].rule.mode is Mode.ACT:
        assert found.verdict.severity >= fired[name].rule.verdict.severity
    assert f"[{name}]" in fired[name].sentence


@pytest.mark.parametrize("number", range(len(HEALTHY)))
def test_no_rule_makes_a_healthy_device_suspect(number: int) -> None:
    readings = told(HEALTHY[number])
    found = trials(RULES, readings, readings[-1].at)
    assert found
    assert {trial.finding for trial in found} == {Finding.HEALTHY}
    loud = [item for trial in found for item in trial.fired if item.state.mode is not Mode.RECORD]
    assert loud == []
