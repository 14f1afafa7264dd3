"""The language of rules: every kind of condition, hysteresis, combinations, quiet times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pytest

from migrator.health import Verdict
from watchdog.policy.check import Timing
from watchdog.policy.evaluate import Assessment, evaluate
from watchdog.policy.model import Affects, Mode, Policy, Rule, Window
from watchdog.policy.quiet import Silence, in_force
from watchdog.signals.model import Device, DeviceKind, Reading
from watchdog.signals.series import ReadingHistory

HOUR, DAY = 3600.0, 86400.0
DISKS = [Device(DeviceKind.DISK, f"disk:{n}", f"/dev/sd{n}", {"type": "hdd", "serial": f"S{n}"}) for n in "abc"]
PENDING, CE = "smart.pending_sectors", "edac.ce_count"

Values = Sequence[float | None]


def rule(**words: object) -> Policy:
    """Return a policy of one rule."""
    base = {"id": "r", "verdict": "failing", "why": "because"}
    return Policy(rules=(Rule.model_validate({**base, **words}),))


def read(signal: str, values: Values, step: float = 300.0, disk: int = 0, start: float = 0.0) -> list[Reading]:
    """Return readings of a disk."""
    return [Reading(signal, DISKS[disk], start + number * step, value) for number, value in enumerate(values)]


def judged(policy: Policy, readings: list[Reading], now: float | None = None) -> Assessment:
    """Judge at the time of the last reading."""
    at = max(reading.at for reading in readings) if now is None else now
    return evaluate(policy, ReadingHistory.of(readings), at)


def fires(policy: Policy, readings: list[Reading], now: float | None = None) -> bool:
    """Say whether the rule has fired on any device."""
    return bool(judged(policy, readings, now).fired)


def test_a_limit_may_have_a_unit() -> None:
    policy = rule(signal="smart.temperature", at_least="60 C")
    assert fires(policy, read("smart.temperature", [60]))
    assert rule(signal="memory.poisoned", at_least="100 MiB").rules[0].at_least == 100 * 2**20
    assert rule(signal="smart.reading_age", at_least="3d").rules[0].at_least == 3 * DAY


def test_what_goes_up_and_down_grows_from_its_least() -> None:
    policy = rule(signal=PENDING, grows_by=10, within="1d")
    assert not fires(policy, read(PENDING, [100, 105, 100, 105, 100]))
    assert fires(policy, read(PENDING, [100, 105, 95, 105]))


def test_a_rate_is_an_average_over_its_window() -> None:
    policy = rule(signal="pcie.correctable_errors", rate_at_least=100, per="1m", within="10m")
    steady = [n * 100.0 for n in range(20)]
    assert fires(policy, read("pcie.correctable_errors", steady, step=60))
    assert not fires(policy, read("pcie.correctable_errors", [0, 900, *[900] * 10], step=60))


def test_growth_over_a_gap_counts_with_its_share() -> None:
    policy = rule(signal="smart.media_errors", grows_by=10, within="1d")
    assert fires(policy, read("smart.media_errors", [0, 100], step=10 * DAY))
    assert not fires(policy, read("smart.media_errors", [0, 99], step=10 * DAY))


def test_growth_leaves_its_window_while_nothing_changes() -> None:
    policy = rule(signal=CE, grows_by=10, within="1h")
    assert fires(policy, read(CE, [0, 10, *[10] * 11]))
    assert not fires(policy, read(CE, [0, 10, *[10] * 14]))


def test_a_trend_says_when_a_limit_will_be_crossed() -> None:
    policy = rule(signal="smart.percentage_used", will_reach=100, ahead="90d", within="30d")
    worn = [70 + n / 3 for n in range(31)]
    assert not fires(policy, read("smart.percentage_used", worn[:12], step=DAY)), "too little to say"
    assert fires(policy, read("smart.percentage_used", worn, step=DAY))
    assert not fires(policy, read("smart.percentage_used", [10 + n / 3 for n in range(31)], step=DAY))
    outliers: Values = [*worn[:10], 0.0, *worn[11:20], 99.0, *worn[21:]]
    assert fires(policy, read("smart.percentage_used", outliers, step=DAY))
    state = judged(policy, read("smart.percentage_used", worn, step=DAY)).states[0]
    assert state.value == pytest.approx(60 * DAY, rel=0.05)
    falling = rule(signal="smart.spare_margin", will_reach=0, ahead="60d", within="10d")
    assert fires(falling, read("smart.spare_margin", [60.0 - n for n in range(20)], step=DAY))


@pytest.mark.parametrize(
    ("change", "values", "fired"),
    [("any", [4, 4, 2], True), ("down", [4, 2], True), ("up", [4, 2], False), ("any", [4, 4, 4], False)],
)
def test_a_change_of_state(change: str, values: list[float], fired: bool) -> None:
    policy = rule(signal="smart.spare_margin", changes=change, within="1d")
    assert fires(policy, read("smart.spare_margin", values)) == fired
    assert not fires(policy, read("smart.spare_margin", [*values, *[values[-1]] * 300]))


def test_being_blind_for_too_long() -> None:
    policy = rule(signal="smart.health_failed", blind_for="1h")
    blind = read("smart.health_failed", [0, *[None] * 5])
    assert not fires(policy, blind)
    assert fires(policy, blind, now=HOUR)
    assert fires(policy, read("smart.health_failed", [None, None]), now=2 * HOUR), "never seen at all"
    assert not fires(policy, read("smart.health_failed", [0, None, 0]), now=HOUR)
    assert fires(policy, read("smart.health_failed", [0]), now=2 * HOUR), "silence is blindness as well"


def test_hysteresis_clears_after_readings_and_time() -> None:
    policy = rule(signal=PENDING, at_least=5, clear_readings=3, clear_for="20m")
    assert fires(policy, read(PENDING, [5, 0, 0]))
    assert fires(policy, read(PENDING, [5, 0, 0, 0], step=300)), "three readings, but only ten minutes"
    assert not fires(policy, read(PENDING, [5, 0, 0, 0, 0, 0]))
    assert fires(policy, read(PENDING, [5, 0, 0, 5, 0, 0])), "begins anew"


def test_a_value_between_both_limits_keeps_what_was() -> None:
    policy = rule(signal="smart.temperature", at_least=60, clear_at=55)
    assert fires(policy, read("smart.temperature", [61, 57, 58]))
    assert not fires(policy, read("smart.temperature", [57, 58]))
    assert not fires(policy, read("smart.temperature", [61, 54, 58]))
    low = rule(signal="smart.spare_margin", at_most=5, clear_at=8)
    assert fires(low, read("smart.spare_margin", [5, 7]))
    assert not fires(low, read("smart.spare_margin", [5, 9, 7]))


def test_what_cannot_be_read_neither_fires_nor_clears() -> None:
    policy = rule(signal=PENDING, at_least=5, readings=2)
    assert fires(policy, read(PENDING, [5, None, 5]))
    assert fires(policy, read(PENDING, [5, 5, None, None]))


def test_several_conditions_on_one_device() -> None:
    when = [
        {"signal": PENDING, "at_least": 1},
        {"signal": "smart.reallocated_sectors", "grows_by": 1, "within": "7d"},
        {"signal": "smart.offline_uncorrectable", "at_least": 1},
    ]
    two = rule(when=when, needs=2)
    both = read(PENDING, [0, 3]) + read("smart.reallocated_sectors", [7, 8])
    assert fires(two, both)
    assert not fires(rule(when=when), both), "all is the default, and one of them is not even told"
    assert not fires(two, read(PENDING, [0, 3]) + read("smart.reallocated_sectors", [7, 8], disk=1))
    assert fires(rule(when=when, needs=2, on="host"), both + read("smart.offline_uncorrectable", [1], disk=1))
    assert not fires(rule(when=when, needs="all", on="host"), both)
    lasting = rule(when=when, needs=2, **{"for": "1h"})
    assert not fires(lasting, both)
    held = read(PENDING, [0, *[3] * 14]) + read("smart.reallocated_sectors", [7, *[8] * 14])
    assert fires(lasting, held)
    sentence = judged(two, both).fired[0].sentence
    assert "smart.pending_sectors is 3, limit 1" in sentence
    assert "smart.reallocated_sectors grew by 1 in 7d" in sentence


def test_several_devices_at_once() -> None:
    three = rule(signal="smart.unresponsive", is_set=True, devices=3)
    some = read("smart.unresponsive", [1], disk=0) + read("smart.unresponsive", [1], disk=1)
    assert not fires(three, some)
    assert judged(three, some).states[0].why_not == "holds on 2 of 3 devices"
    assert fires(three, some + read("smart.unresponsive", [1], disk=2))
    every = rule(signal="smart.unresponsive", is_set=True, devices="all")
    assert fires(every, some)
    assert not fires(every, some + read("smart.unresponsive", [0], disk=2))


def test_where_takes_patterns_and_lists() -> None:
    series = read(PENDING, [5])
    for where in ({"type": "hdd"}, {"name": "/dev/sd*"}, {"type": ["ssd", "hdd"]}, {"serial": "Sa", "type": "h*"}):
        assert fires(rule(signal=PENDING, at_least=1, where=where), series)
    for where in ({"type": "ssd"}, {"type": "hdd", "serial": "Sb"}, {"nosuch": "x"}):
        assert not fires(rule(signal=PENDING, at_least=1, where=where), series)


@pytest.mark.parametrize(
    ("words", "values", "why"),
    [
        ({"at_least": 5}, [3], "is 3, limit 5"),
        ({"at_least": 5, "readings": 3}, [5, 5], "holds in 2 of 3 readings"),
        ({"at_least": 5, "for": "1h"}, [5, 5], "holds for 5m of 1h"),
        ({"at_least": 5}, [None], "nothing to compare yet"),
        ({"grows_by": 5, "within": "1h"}, [1, 3], "grew by 2 in 1h, limit 5"),
    ],
)
def test_a_rule_says_why_it_has_not_fired(words: dict[str, object], values: list[float | None], why: str) -> None:
    (state,) = judged(rule(signal=PENDING, **words), read(PENDING, values)).states
    assert (state.fired, state.why_not) == (False, why)


def test_what_is_affected_is_carried() -> None:
    storage = rule(signal=PENDING, at_least=1, affects="storage")
    found = judged(storage, read(PENDING, [1], disk=1))
    assert [device.name for device in found.affected] == ["/dev/sdb"]
    assert found.acting[0].rule.affects is Affects.STORAGE
    assert judged(rule(signal=PENDING, at_least=1), read(PENDING, [1])).affected == ()


def quiet_at(policy: Policy, moment: str, *silences: Silence) -> Assessment:
    """Judge a disk with pending sectors at a moment in local time."""
    local = datetime.fromisoformat(moment)
    readings = [Reading(PENDING, DISKS[0], local.timestamp(), 5.0)]
    quiets = in_force(policy.windows, silences, local)
    return evaluate(policy, ReadingHistory.of(readings), local.timestamp(), quiets)


@pytest.mark.parametrize(
    ("moment", "verdict"),
    [
        ("2026-11-21T23:30", Verdict.HEALTHY),  # a Saturday
        ("2026-11-22T01:59", Verdict.HEALTHY),  # goes on over midnight
        ("2026-11-22T02:00", Verdict.FAILING),
        ("2026-11-22T23:30", Verdict.FAILING),
        ("2026-11-21T22:59", Verdict.FAILING),
    ],
)
def test_a_window_keeps_a_rule_from_acting(moment: str, verdict: Verdict) -> None:
    window = Window(name="w", days=("sat",), start="23:00", end="02:00", why="scrub", rules=("r*",))
    policy = Policy(rules=rule(signal=PENDING, at_least=1).rules, windows=(window,))
    found = quiet_at(policy, moment)
    assert found.verdict is verdict
    assert found.fired, "it is judged all the same"
    assert found.fired[0].quiet == ("" if verdict is Verdict.FAILING else "window w: scrub")
    assert found.fired[0].mode is (Mode.ACT if verdict is Verdict.FAILING else Mode.RECORD)


@pytest.mark.parametrize("what", ["r", "/dev/sda", "Sa", "disk:a", "/dev/sd*"])
def test_a_silence_is_for_a_rule_or_a_device_and_expires(what: str) -> None:
    policy = rule(signal=PENDING, at_least=1)
    now = datetime.fromisoformat("2026-11-22T12:00").timestamp()
    silence = Silence(what=what, since=now, until=now + HOUR, why="new disk ordered")
    assert quiet_at(policy, "2026-11-22T12:30", silence).verdict is Verdict.HEALTHY
    assert quiet_at(policy, "2026-11-22T13:00", silence).verdict is Verdict.FAILING
    assert quiet_at(policy, "2026-11-22T12:30", silence.model_copy(update={"what": "other"})).fired[0].quiet == ""


def test_a_silenced_device_is_not_told_as_blind() -> None:
    now = datetime.fromisoformat("2026-11-22T12:00").astimezone()
    quiets = in_force((), [Silence(what="/dev/sda", since=0, until=now.timestamp() + 1, why="pulled")], now)
    history = ReadingHistory.of(read(PENDING, [None]) + read(PENDING, [None], disk=1))
    found = evaluate(rule(signal=PENDING, at_least=1), history, now.timestamp(), quiets)
    assert [reading.device.name for reading in found.blind] == ["/dev/sdb"]


def test_memory_reaches_as_far_back_as_a_rule_can_look() -> None:
    timing = Timing(keep_s=90 * DAY, poll_s={"smart": 7200.0, "hwmon": 30.0})

    def reach(signal: str, **words: object) -> float:
        return rule(signal=signal, **words).look_back(timing)[signal]

    assert reach("hwmon.temperature", at_least=60) == HOUR
    assert reach("hwmon.temperature", at_least=60, clear_at=55, **{"for": "1h"}) == 7 * DAY + 2 * HOUR
    assert reach("smart.temperature", at_least=60, readings=3) >= 3 * 7200
    assert reach(CE, grows_by=1, within="30d", clear_for="1d") == 32 * DAY, "of an unknown turn a day more"
    assert reach(CE, grows_by=1, within="90d") == 90 * DAY
